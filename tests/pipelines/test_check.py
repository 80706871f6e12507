"""The checker of data sets: every kind of fault is found and named, and a clean set passes."""

import base64
import math
import re

import pytest

from pipelines import check, simulate
from pipelines.checks import html_page
from tests.support.builders import command as run
from tests.support.checked_sets import (
    DAYS,
    HOSTILE,
    edit,
    faults,
    forge,
    named,
    shard,
    statuses,
    tables,
    with_value,
    write,
)


def test_a_clean_set_passes_and_its_page_is_whole_and_escaped(clean, tmp_path, drawn):
    report = check.check(clean)
    assert statuses(report) == {} and not report.failed and len(report.findings) == 10
    page = html_page.render(report)
    assert page.count('src="data:image/png;base64,') == 3 and "http" not in page
    for picture in re.findall(r'base64,([^"]+)"', page):
        assert base64.b64decode(picture, validate=True).startswith(b"\x89PNG")


def test_texts_of_the_data_set_are_escaped(tmp_path):
    columns = tables()
    for c in columns.values():
        c[HOSTILE] = c["click"] + 0.0
    report = check.check(write(tmp_path / "<i>set", columns))
    page = html_page.render(report)
    assert "&lt;b&gt;bold" in page and "<b>" not in page and "&lt;i&gt;set" in page and "<i>" not in page


@pytest.mark.slow
def test_the_command_on_a_simulated_set(tmp_path):
    simulate.write(simulate.World(rows=1500, seed=1, days=3), str(tmp_path / "set"))
    done = run("pipelines.check", f"--data_dir={tmp_path / 'set'}", f"--output={tmp_path / 'page.html'}")
    assert done.returncode == 0, done.stdout + done.stderr[-1000:]
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:10]] == ["PASS"] * 6 + ["WARN"] + ["PASS"] * 3
    assert (tmp_path / "page.html").read_text().endswith("</html>\n")


def test_the_command_fails_after_its_table_and_page(clean, tmp_path):
    (clean / "20240101" / "hand.tfrecord-00007-of-00009").write_bytes(b"")
    done = run("pipelines.check", f"--data_dir={clean}", f"--output={tmp_path / 'page.html'}")
    assert done.returncode == 1 and "error:" not in done.stderr
    assert "FAIL  unlisted shards" in done.stdout and "00007-of-00009 is not listed" in done.stdout
    assert "00007-of-00009" in (tmp_path / "page.html").read_text()


def test_the_command_refuses_what_is_no_data_set(tmp_path):
    done = run("pipelines.check", f"--data_dir={tmp_path}")
    assert done.returncode == 1 and done.stderr.count("error:") == 1 and "schema.pbtxt" in done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr


@pytest.mark.parametrize("change", [
    lambda content: content["days"].update({"x": 3}), lambda content: content["days"].clear(),
    lambda content: content["days"][DAYS[0]].pop("rows"),
])
def test_statistics_that_cannot_be_used(clean, change):
    edit(clean / "statistics.json", change)
    with pytest.raises(check.UserError, match="statistics.json.*Received"):
        check.check(clean)


@pytest.mark.slow
@pytest.mark.parametrize("change, message", [
    (with_value("click", "int64_list", 2), "0 or 1"),
    (with_value("count", "float_list", -1.0), "finite, and in the domain"),
    (with_value("watch", "float_list", math.nan), "finite"),
    (lambda records: [records[0], b"\xff\xff", *records[1:]], "damaged"),
    (lambda records: [b"\xff\xff", *records], "tf.train.Example"),
    (lambda records: [re.sub(b"city", b"cuty", r) for r in records], "no column ['city']"),
])
def test_rows_that_break_the_schema_name_their_shard(clean, change, message):
    forge(shard(clean), change)
    report = check.check(clean)
    found = faults(report, "rows readable")
    assert report.failed and statuses(report)["rows readable"] == "FAIL"
    assert named(shard(clean)) in found and message in found and "2 of 3 splits" in found
