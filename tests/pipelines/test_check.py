"""The checker of data sets: every kind of fault is found and named, and a clean set passes."""

import base64
import hashlib
import json
import math
import re

import numpy as np
import pyarrow as pa
import pytest

from dlen_cam2.schema import Feature, Schema, Task
from pipelines import check, simulate
from pipelines.checks import html_page, leaks
from pipelines.checks.coded_column import Coded
from pipelines.checks.distribution_shift import Bins, by_chance, psi
from pipelines.checks.growing_counters import grows, levels, natural
from pipelines.checks.label_rates import departs
from pipelines.checks.pure_values import PURE, Pure, Spread, pure
from pipelines.writer.dataset import write_dataset
from pipelines.writer.shards import Form
from pipelines.writer.stored_rows import Column, read_split
from tests.support.builders import command as run

import tensorflow as tf  # isort: skip

DAYS = ("20240101", "20240102", "20240103")
ROWS = 600
HOSTILE = "<b>bold</b> & $x$"
SCHEMA = Schema("hand", (
    Feature("user", "int", "user", "content", size=50, width=2),
    Feature("city", "string", "user", "content", vocabulary=("a", "b", "c"), width=2),
    Feature("seen", "int", "user", "content", size=9, width=2, max_length=3),
    Feature("count", "float", "item", "statistical", transform="log1p"),
    Feature(HOSTILE, "float", "item", "statistical"),
), (Task("click"), Task("share", mask="click")), ("watch",), {"user": "user", "item": "item", "time": "ms"})


def tables():
    """Columns by day, without any fault."""
    rng = np.random.default_rng(0)
    return {day: {
        "user": rng.integers(0, 50, ROWS), "city": rng.choice(["a", "b", "c"], ROWS).tolist(),
        "seen": [rng.integers(0, 9, n).tolist() for n in rng.integers(0, 4, ROWS)],
        "count": rng.exponential(5, ROWS), HOSTILE: rng.normal(size=ROWS),
        "click": (rng.random(ROWS) < 0.3).astype(int), "share": (rng.random(ROWS) < 0.2).astype(int),
        "watch": rng.random(ROWS), "item": rng.integers(0, 99, ROWS), "ms": 1000 * index + np.arange(ROWS),
    } for index, day in enumerate(DAYS)}


def write(directory, columns, schema=SCHEMA):
    write_dataset(directory, schema, [(day, pa.table(c)) for day, c in columns.items()], {})
    return directory


def shard(directory, day=DAYS[1]):
    return directory / day / "hand.tfrecord-00000-of-00001"


def named(path):
    """What a shard is called in a report."""
    return f"{path.parent.name}/{path.name}"


def edit(path, change):
    """Apply `change` to the content of a JSON file: statistics.json, or a split's manifest."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def forge(path, change):
    """Rewrite a shard's records by `change`, and the manifest with it, as a wrong pipeline would."""
    records = change([r.numpy() for r in tf.data.TFRecordDataset(str(path))])
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    seal = {"rows": len(records), "bytes": path.stat().st_size, "sha256": digest}
    edit(path.parent / "_SUCCESS", lambda m: m.update(rows=len(records), shards={path.name: seal}))


def with_value(column, kind, value):
    """A change of records that sets `column` of the third row."""
    def change(records):
        example = tf.train.Example.FromString(records[2])
        getattr(example.features.feature[column], kind).value[:] = [value]
        return [*records[:2], example.SerializeToString(), *records[3:]]
    return change


def statuses(report):
    return {f.check: f.status for f in report.findings if f.status != "PASS"}


def faults(report, name):
    return " | ".join(next(f.line for f in report.findings if f.check == name).splitlines())


@pytest.fixture
def clean(tmp_path):
    return write(tmp_path / "set", tables())


# === A clean set, and the command ===

def test_a_clean_set_passes_and_its_page_is_whole_and_escaped(clean, tmp_path):
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


# === Files ===

def test_manifests_record_the_sha256_of_every_shard(clean):
    for day in DAYS:
        manifest = json.loads((clean / day / "_SUCCESS").read_text())
        content = shard(clean, day).read_bytes()
        entry = {"rows": ROWS, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        assert manifest == {"rows": ROWS, "layout": "example", "compression": "", "shards": {shard(clean).name: entry}}


def test_a_flipped_byte(clean):
    content = bytearray(shard(clean).read_bytes())
    content[len(content) // 2] ^= 1
    shard(clean).write_bytes(content)
    report = check.check(clean)
    assert report.failed and statuses(report) == {"checksums": "FAIL", "rows readable": "FAIL"}
    assert named(shard(clean)) in faults(report, "checksums") and named(shard(clean)) in faults(report, "rows readable")


def test_other_rows_of_the_same_size_are_caught_by_the_checksum_alone(clean):
    records = [r.numpy() for r in tf.data.TFRecordDataset(str(shard(clean)))]
    with tf.io.TFRecordWriter(str(shard(clean))) as writer:
        for record in reversed(records):
            writer.write(record)
    assert statuses(check.check(clean)) == {"checksums": "FAIL"}


def test_a_truncated_and_a_missing_shard(clean):
    shard(clean).write_bytes(shard(clean).read_bytes()[:-100])
    shard(clean, DAYS[2]).unlink()
    report = check.check(clean)
    found = faults(report, "shard files")
    assert report.failed and f"{named(shard(clean))} has " in found
    assert f"{named(shard(clean, DAYS[2]))} is missing" in found
    assert "1 of 3 splits" in faults(report, "rows readable")
    assert statuses(report)["drift"] == "WARN" and "not checked" in faults(report, "drift")


@pytest.mark.parametrize(
    "name", ["../x.tfrecord-00000-of-00001", "/etc/passwd", "a/b.tfrecord-00000-of-00001", "x", ""]
)
def test_a_listed_name_outside_the_directory_is_not_opened(clean, name):
    entry = {"rows": 1, "bytes": 1, "sha256": ""}
    edit(clean / DAYS[1] / "_SUCCESS", lambda manifest: manifest["shards"].update({name: entry}))
    report = check.check(clean)
    assert report.failed and "_SUCCESS must hold rows, a layout" in faults(report, "shard files")
    assert "2 of 3 splits" in faults(report, "rows readable")


@pytest.mark.parametrize("change", [
    lambda manifest: manifest.pop("shards"), lambda manifest: manifest.update(layout="rows"),
    lambda manifest: manifest.update(compression="LZ4"), lambda manifest: manifest.update(rows="600"),
    lambda manifest: manifest["shards"][f"{SCHEMA.name}.tfrecord-00000-of-00001"].pop("sha256"),
])
def test_a_manifest_that_cannot_be_used_fails_its_split_only(clean, change):
    edit(clean / DAYS[1] / "_SUCCESS", change)
    report = check.check(clean)
    assert report.failed and f"{DAYS[1]}/_SUCCESS must hold rows, a layout" in faults(report, "shard files")
    assert "2 of 3 splits" in faults(report, "rows readable")


def test_a_split_without_a_manifest_and_one_that_no_one_names(clean):
    (clean / DAYS[1] / "_SUCCESS").unlink()
    edit(clean / "statistics.json", lambda content: content["days"].pop(DAYS[2]))
    report = check.check(clean)
    assert statuses(report) | {"shard files": "FAIL", "unlisted shards": "FAIL"} == statuses(report)
    assert f"{DAYS[1]}/_SUCCESS does not exist" in faults(report, "shard files")
    assert f"{DAYS[2]} is not listed" in faults(report, "unlisted shards")


@pytest.mark.parametrize("form", [Form("block"), Form("block", "GZIP"), Form("example", "ZLIB")], ids=str)
def test_other_forms_pass_and_hold_the_same_rows(clean, tmp_path, form):
    columns = [(day, pa.table(c)) for day, c in tables().items()]
    write_dataset(tmp_path / "other", SCHEMA, columns, {}, form=form)
    report, wanted = check.check(tmp_path / "other"), check.check(clean)
    assert statuses(report) == {}
    assert (report.rates, report.psi, report.aucs) == (wanted.rates, wanted.psi, wanted.aucs)
    first, second = (read_split(directory, SCHEMA, DAYS[0]) for directory in (clean, tmp_path / "other"))
    assert first.keys.tolist() == second.keys.tolist() and len(set(second.records)) == ROWS
    assert first.columns.keys() == second.columns.keys() == SCHEMA.columns.keys()
    for name, column in first.columns.items():
        assert column.values.tolist() == second.columns[name].values.tolist()
        assert (column.lengths is None) == (second.columns[name].lengths is None)
        assert column.lengths is None or column.lengths.tolist() == second.columns[name].lengths.tolist()
    path = tmp_path / "other" / DAYS[1] / "hand.tfrecord-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert statuses(check.check(tmp_path / "other")) == {"checksums": "FAIL", "rows readable": "FAIL"}


# === Rows ===

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


def test_counts_that_do_not_match(clean):
    forge(shard(clean), lambda records: records[:-1])
    report = check.check(clean)
    assert report.failed and statuses(report) == {"counts": "FAIL", "shard files": "FAIL"}
    assert f"{DAYS[1]}: _SUCCESS, its shards and statistics.json count different rows" in faults(report, "shard files")
    assert f"{DAYS[1]} has 599 rows, not 600" in faults(report, "counts")
    edit(clean / "statistics.json", lambda content: content["days"][DAYS[0]].update(rows=7))
    assert "600 rows, not 7" in faults(check.check(clean), "counts")


@pytest.mark.parametrize("again, status", [(2, "WARN"), (18, "WARN"), (19, "FAIL")])
def test_identical_records_fail_above_a_hundredth_and_same_keys_warn(clean, again, status):
    forge(shard(clean), lambda records: [*records[:-again], *[records[0]] * again])
    report = check.check(clean)
    assert statuses(report)["identical records"] == status
    assert f"{again} of 1,800 rows repeat an earlier one; {again} on {DAYS[1]}" in faults(report, "identical records")
    assert statuses(report)["same keys"] == "WARN"


def test_same_keys_alone_do_not_fail(tmp_path):
    columns = tables()
    for name in ("user", "item", "ms"):
        columns[DAYS[2]][name][5] = columns[DAYS[0]][name][3]
    report = check.check(write(tmp_path / "set", columns))
    assert statuses(report) == {"same keys": "WARN"} and not report.failed
    assert f"1 of 1,800 rows repeat an earlier one; 1 on {DAYS[2]}" in faults(report, "same keys")


def test_lists_are_read_whole(clean):
    split, written = read_split(clean, SCHEMA, DAYS[0]), tables()[DAYS[0]]["seen"]
    seen = split.columns["seen"]
    assert seen.lengths.tolist() == [len(row) for row in written]
    assert seen.values.tolist() == [v for row in written for v in row]
    assert seen.head(7).values.tolist() == [v for row in written[:7] for v in row]


# === Rates, drift, leaks ===

def test_a_jump_of_a_label_rate_is_named(tmp_path):
    columns = tables()
    columns[DAYS[2]]["click"] = (np.arange(ROWS) % 10 < 7).astype(int)
    report = check.check(write(tmp_path / "set", columns))
    assert statuses(report) == {"label rates": "WARN"} and not report.failed
    assert f"'click' on {DAYS[2]}: 0.7000" in faults(report, "label rates")


@pytest.mark.parametrize("counts, expected", [
    ((1000, 200, 1000, 100), True),  # z = 6.26, twice the rate
    ((1000, 190, 1000, 100), False),  # z = 5.72
    ((100_000, 14_000, 100_000, 10_000), False),  # z = 27, but a change of 40% only
    ((1000, 0, 1000, 100), True), ((1000, 100, 1000, 0), True), ((9, 0, 9, 0), False), ((9, 9, 9, 9), False),
    ((0, 0, 9, 1), False), ((9, 1, 0, 0), False),
])
def test_the_rule_for_rates(counts, expected):
    assert departs(*counts) is expected


@pytest.mark.parametrize("name, values", [
    ("count", lambda c: c["count"] * 4), ("city", lambda c: ["c"] * ROWS),
    ("seen", lambda c: [[8]] * ROWS), ("seen", lambda c: [[]] * ROWS),
])
def test_a_drifting_feature_warns(tmp_path, name, values):
    columns = tables()
    columns[DAYS[1]][name] = pa.array(values(columns[DAYS[1]]), pa.list_(pa.int64())) if name == "seen" else values(
        columns[DAYS[1]])
    report = check.check(write(tmp_path / "set", columns))
    assert statuses(report) == {"drift": "WARN"} and not report.failed
    assert f"{name!r} on {DAYS[1]}" in faults(report, "drift") and DAYS[2] not in faults(report, "drift")
    assert statuses(check.check(tmp_path / "set", psi=99.0)) == {}


def test_a_drifting_feature_is_one_fault(tmp_path):
    columns = tables()
    for day, factor in zip(DAYS[1:], (4, 60), strict=True):
        columns[day]["count"] = columns[day]["count"] * factor
    columns[DAYS[2]]["city"] = ["c"] * ROWS
    found = next(f for f in check.check(write(tmp_path / "set", columns)).findings if f.check == "drift")
    city, count = found.faults  # the worst first
    assert re.fullmatch(rf"'city' on {DAYS[2]}: [0-9.]+ from {DAYS[0]} \(1 of 2 splits\)", city)
    assert re.fullmatch(
        rf"'count' on {DAYS[2]}: [0-9.]+ from {DAYS[0]} \(2 of 2 splits, first on {DAYS[1]}\)", count)


def test_counts_that_grow_with_the_log_are_told_apart_and_do_not_hide_others(tmp_path):
    features = (*SCHEMA.features, Feature("fell", "float", "item", "statistical", transform="log1p"),
                Feature("rate", "float", "item", "statistical", transform="logit"),
                Feature("price", "float", "item", "content", transform="log1p"))
    schema, columns = Schema("hand", features, SCHEMA.tasks, SCHEMA.targets, SCHEMA.keys), tables()
    for index, c in enumerate(columns.values()):
        c["count"] = c["price"] = np.floor(c["count"] * 10 * (index + 0.5))
        c["fell"] = np.floor(c["count"] / 10 ** index)
        c["rate"] = np.clip(c["watch"] * (index + 1) / 3, 0, 1)
    report = check.check(write(tmp_path / "set", columns, schema))
    assert statuses(report) == {"drift": "WARN"} and report.growing == ("count",)
    assert {f for f in ("fell", "rate", "price", "count") if repr(f) in faults(report, "drift")} == {
        "fell", "rate", "price"}
    assert "PASS  growing counters   1 counts" in faults(report, "growing counters")
    assert f"'count' on {DAYS[2]}" in faults(report, "growing counters")


@pytest.mark.parametrize("means, expected", [
    ([0.3, 1.6, 2.2, 2.5], True), ([2.0, 2.05, 2.1, 2.2], True),  # from nothing; from long before the log
    ([1.0, 1.3, 1.25, 1.5], True), ([1.0, 1.3, 1.1, 1.5], False),  # a fall of .05 and of .2, a third of R being .17
    ([2.0, 1.8, 1.6, 1.4], False), ([2.0, 2.0, 2.0, 2.0], False), ([1.0, 1.5], False),
    ([1.0, 1.4, 2.5, 2.6], False),  # 1.1 on the third day, and 2 natural(3) = 1.05
    ([1.0, 1.0, 1.9, 1.92], False), ([1.0, 2.2, 2.22, 2.24], False),  # a step that leaves .02 of .92, .04 of 1.24
    ([0.5, 3.4, 3.9, 4.2], False),  # 2.9 on the second day, and 2 natural(2) = 2.77; but see below
])
def test_what_growth_is(means, expected):
    days = np.repeat(np.array(means)[:, None], 6, axis=1)
    assert grows(days) is expected
    broken = days.copy()
    broken[-1, 1] = 0  # a tenth of the rows lost their count
    assert not grows(broken)


def test_a_quantile_may_fall_a_little():
    days = np.repeat(np.array([3.0, 3.1, 3.15, 3.2])[:, None], 6, axis=1)

    def fallen(by):
        return np.where(np.arange(24).reshape(4, 6) == 19, 3.15 - by, days)  # the last day's tenth of a quantile

    assert grows(fallen(0.14)) and not grows(fallen(0.16))
    low = np.where(np.arange(6) == 1, np.log1p([[0.0], [2], [3], [2]]), days)
    assert grows(low)  # one count less is .29 here
    low[-1, 1] = np.log1p(1)
    assert not grows(low)


def test_levels_and_the_steady_rate_by_hand():
    assert natural(2) == pytest.approx(2 * math.log(2))
    assert natural(3) == pytest.approx(3 * math.log(3) - 4 * math.log(2))
    count = SCHEMA.features[3]
    zero = np.zeros(9, np.float32)
    assert levels(count, zero + math.e - 1).tolist() == pytest.approx([1] * 6)
    from_nothing = np.array([[m] * 6 for m in (0.5, 3.4, 3.9, 4.2)])
    from_nothing[0, 1:4] = 0  # most of the first day's counts are 0, as counts are that are taken once a day
    assert grows(from_nothing)
    plain = Feature("x", "float", "item", "statistical")
    assert levels(plain, zero + 3) is not None and levels(plain, zero + 0.5) is None
    assert levels(plain, zero - 1) is None and levels(SCHEMA.features[0], zero) is None


def test_a_first_and_a_last_day_of_few_rows_are_not_compared(tmp_path):
    columns, few = tables(), {"20231231": 141, "20240104": 100}
    for day, rows in few.items():
        columns[day] = {n: c[:rows] for n, c in tables()[DAYS[0]].items()} | {
            "city": ["c"] * rows, "click": np.ones(rows, int), "ms": int(day) * 1000 + np.arange(rows)}
    columns = dict(sorted(columns.items()))
    report = check.check(write(tmp_path / "set", columns))
    assert statuses(report) == {} and report.references == {"": DAYS[0]}
    assert set(report.psi["count"]) == set(DAYS[1:])
    assert f"against {DAYS[0]}, limit 0.25, left out as too small: 20231231 (141 rows), 20240104 (100 rows)" in faults(
        report, "drift")
    assert f"against {DAYS[0]}:" in html_page.render(report)
    columns["20231231"] = {n: c[:150] for n, c in tables()[DAYS[0]].items()} | {
        "ms": np.arange(150) - 999}  # a quarter of the median day
    assert check.check(write(tmp_path / "other", columns)).references == {"": "20231231"}


def test_one_day_and_a_few_rows_have_no_drift_but_any_two_named_splits_have(tmp_path):
    columns = tables()
    columns = {DAYS[0]: {n: c[:50] for n, c in columns[DAYS[0]].items()}, DAYS[1]: columns[DAYS[1]]}
    found = faults(check.check(write(tmp_path / "set", columns)), "drift")
    assert "not checked" in found and f"{DAYS[0]} (50 rows)" in found
    named = {"train": columns[DAYS[1]], "test": columns[DAYS[0]]}  # sizes that somebody chose
    assert check.check(write(tmp_path / "named", named)).references == {"": "train"}


def test_a_random_split_is_not_compared_with_logged_days(tmp_path):
    columns = tables()
    logged = columns[DAYS[1]]
    columns[f"{DAYS[0]}_random"] = logged | {
        "count": logged["count"] * 50, "ms": np.arange(ROWS) - 9999, "click": np.arange(ROWS) % 10 // 9}
    assert statuses(check.check(write(tmp_path / "set", columns))) == {}


@pytest.mark.parametrize("name, values", [
    (HOSTILE, lambda click: click * 1.0), (HOSTILE, lambda click: -2.0 * click),
    ("city", lambda click: np.array(["a", "b"])[click].tolist()),
    ("seen", lambda click: [[1 + c] for c in click]),
])
def test_a_planted_leak_fails(tmp_path, name, values):
    columns = tables()
    for c in columns.values():
        c[name] = values(c["click"])
    report = check.check(write(tmp_path / "set", columns))
    assert report.failed and statuses(report) == {"leak suspects": "FAIL"}
    assert f"{name!r} alone has AUC 1.0000 for 'click'" in faults(report, "leak suspects")


def few(flags, share=0.15):
    """Which rows: some of those that have a flag."""
    return (flags == 1) & (np.random.default_rng(1).random(len(flags)) < share)


@pytest.mark.parametrize("name, values, words", [
    (HOSTILE, lambda c, x: few(c["click"]) * 1.0, "= 1 in"),
    ("count", lambda c, x: few(c["click"]) * (0.5 + x), "> 0 in"),
    (HOSTILE, lambda c, x: np.where(few(c["click"]), -9 - x, x), "< 0."),
    ("city", lambda c, x: np.where(few(c["click"]), "c", "a").tolist(), "= 'c' in"),
    ("city", lambda c, x: [f"code {int(99 * v)}" * int(k) for k, v in zip(few(c["click"]), x, strict=True)],
     "other than '' in"),
    ("seen", lambda c, x: [[8, 8, *row[:1]] if k else [v % 8 for v in row] for k, row in zip(
        few(c["click"]), c["seen"], strict=True)], "with 8 in"),
    ("seen", lambda c, x: [[int(9 * v)] * int(k) for k, v in zip(few(c["click"]), x, strict=True)], "not empty in"),
])
def test_a_leak_of_low_coverage_fails(tmp_path, name, values, words):
    columns, rows = tables(), 0
    for c in columns.values():
        c[name] = values(c, np.random.default_rng(2).random(ROWS))
        rows += int(few(c["click"]).sum())
    report = check.check(write(tmp_path / "set", columns))
    assert report.failed and statuses(report) == {"leak suspects": "FAIL"}
    assert f"{name!r} {words}" in faults(report, "leak suspects")
    assert f"{rows} rows ({rows / 1800:.1%}), 100.0% of them positives of 'click' (" in faults(report, "leak suspects")


def test_a_leak_of_low_coverage_in_a_sample_space(tmp_path):
    columns = tables()
    for c in columns.values():
        c["city"] = np.where(few(c["share"] * c["click"], 0.5) | few(1 - c["click"]), "c", "a").tolist()
    report = check.check(write(tmp_path / "set", columns))
    assert re.search(
        r"'city' = 'c' in \d\d rows \([0-9.]+%\), 100.0% of them positives of 'share' \([0-9.]+% in all rows where "
        r"'click' is 1\)$", faults(report, "leak suspects"))


def told(values, labels, users=None, dtype="float"):
    """What `pure` says of a feature."""
    rows = len(labels)
    values = np.array([v.encode() for v in values], object) if dtype == "string" else np.asarray(values)
    feature = Feature("x", dtype, "user", "content") if dtype == "float" else Feature(
        "x", dtype, "user", "content", size=9, hashed=True, width=2)
    sample = {"u": Column(np.arange(rows) % 50 if users is None else users), "i": Column(np.arange(rows) % 70)}
    spread = Spread(Schema("s", (), (), (), {"user": "u", "item": "i"}), sample)
    return pure(feature, Coded(Column(values)), Task("t"), np.asarray(labels), np.ones(rows, bool), spread)


@pytest.mark.parametrize("rate, rows, hits, expected", [
    (0.2, 19, 19, False), (0.2, 20, 20, True), (0.2, 30, 29, False), (0.2, 50, 49, True), (0.01, 20, 20, True),
    (0.001, 20, 20, True), (0.45, 22, 22, False), (0.45, 28, 28, True), (0.6, 40, 40, False), (0.6, 50, 50, True),
    (0.7, 2000, 2000, False),
])
def test_how_many_rows_make_a_leak(rate, rows, hits, expected):
    # Of the 7 candidates of a flag (two values, the rest, four tails) the bound of n in n rows is (.001 / 7)^(1 / n):
    # .642, .669 and .729 for 20, 22 and 28 rows. Three times the odds of .2 and .45 are .75 and 2.45, so .429 and .711.
    total = max(8000, int(40 / rate))
    labels, flag = np.zeros(total, int), np.zeros(total)
    labels[: int(rate * total)] = 1
    labels = np.random.default_rng(0).permutation(labels)
    flag[np.flatnonzero(labels)[:hits]] = flag[np.flatnonzero(labels == 0)[: rows - hits]] = 1
    assert (told(flag, labels) is not None) is expected


def test_habits_and_good_features_are_no_leaks():
    rng = np.random.default_rng(0)
    users = rng.integers(0, 60, 20_000)
    labels = (rng.random(20_000) < np.where(users < 8, 1.0, 0.2)).astype(int)  # eight who click whatever they see
    assert told(users, labels, users, "int") is None
    assert told([f"city {u % 60}" for u in users], labels, users, "string") is None
    assert told([f"city {u % 60}" for u in users], labels, np.arange(20_000), "string") is not None
    crowd = np.where(users < 8, rng.integers(0, 40, 20_000), 40 + users)  # as if they were forty
    assert told(few(users < 8, 0.5) * 1.0, labels, crowd) is None and told(few(labels) * 1.0, labels, crowd) is not None
    x = rng.normal(size=20_000)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(1 - 3 * x))).astype(int)
    top = labels[np.argsort(-x)[:1000]].mean()
    assert top >= PURE and told(x, labels) is None and told(np.minimum(x, 1.6), labels) is None
    # Nobody is married at 14, and 83% are at 19: a steep end, but no edge.
    ages = np.repeat(np.arange(60), 400)
    married = (rng.random(len(ages)) < np.clip((ages - 14) / 6, 0, 0.9)).astype(int)
    assert told(ages.astype(float), 1 - married) is None
    assert told(ages.astype(float), np.where(ages < 15, 1, few(1 - married))) is not None
    # A page on which whatever is shown counts as clicked, but on which little is shown.
    labels = np.arange(60_000) % 9 < 4
    page = (labels & (np.arange(60_000) < 120)) * 1.0
    assert page.sum() > 50 and told(page, labels * 1) is None and told(page[:10_000], labels[:10_000] * 1) is not None
    # Exact amounts have rates of their own: one of many is no category.
    amounts = np.where(rng.random(20_000) < 0.01, 777.0, np.floor(1000 * rng.random(20_000)))
    assert told(amounts, ((amounts == 777) | few(np.ones(20_000))).astype(int)) is None


def test_few_negatives_are_told_and_many_are_not():
    rng = np.random.default_rng(0)
    for rate, expected in ((0.2, False), (0.7, True)):
        labels = (rng.random(20_000) < rate).astype(int)
        skipped = few(1 - labels)
        found = told(skipped * 1.0, labels)
        assert (found is not None) is expected
    assert f"= 1 in {skipped.sum():,} rows" in found.text and "100.0% of them negatives of 't' (29.9%" in found.text


def test_a_leak_is_told_of_the_task_that_it_covers_most_and_all_are_named():
    click, buy, flag = (Pure("x", Task(name), "= 1", 0, 30, 9000, 1.0, base, covered, True)
                        for name, base, covered in (("click", 0.2, 0.1), ("buy", 0.0004, 0.4), ("cart", 0.1, 0.2)))
    other = Pure("y", Task("click", mask="seen"), "> 0", 2, 30, 9000, 0.99, 0.2, 0.3, True)
    assert leaks.faults({"click": {"x": 0.9, "z": 0.96}, "buy": {"z": 0.97}}, [click, other, buy, flag], 0.95) == [
        "'z' alone has AUC 0.9700 for 'buy', AUC 0.9600 for 'click'",
        "'x' = 1 in 30 rows (0.3%), 100.0% of them positives of 'buy' (0.04% in all rows), and of 'cart', 'click'",
        "'y' > 0 (and 2 other values like it) in 30 rows (0.3%), 99.0% of them positives of 'click' (20.0% in all rows "
        "where 'seen' is 1)",
    ]
    assert leaks.faults({"click": {"x": 0.96}}, [buy, click], 0.95) == ["'x' alone has AUC 0.9600 for 'click'"]


def test_rare_tasks_are_not_measured(tmp_path):
    columns = tables()
    for c in columns.values():
        c["share"] = (np.cumsum(c["click"]) * c["click"] <= 6) * c["click"]  # 18 positives, all told by their place
    report = check.check(write(tmp_path / "set", columns))
    assert "share" not in report.aucs and "click" in report.aucs
    assert "too few positives or negatives: share" in faults(report, "leak suspects")


def test_leaks_are_sought_in_the_first_rows_of_each_split(clean, monkeypatch):
    monkeypatch.setattr(leaks, "ROWS", 301)
    report = check.check(clean)
    assert report.sampled == 300 and "300 rows (the first of each split)" in faults(report, "leak suspects")


def test_psi_by_hand():
    q, p = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.5, 0.25])
    assert psi(q, p) == pytest.approx(-0.25 * math.log(0.5) + (0.25 - 1e-4) * math.log(2500))
    assert psi(q, q) == 0
    assert by_chance(q, p, 100, 200) == pytest.approx(0.015 * 13.8155, rel=1e-4)  # chi-squared of 2, .999


def test_bins_by_hand():
    numbers = Column(np.arange(1, 101, dtype=np.float32))
    bins = Bins.of(numbers)
    assert bins.edges.tolist() == list(range(10, 100, 10))
    np.testing.assert_allclose(bins.shares(numbers), 0.1)
    other = bins.shares(Column(np.array([-5, 10, 10.5, 999], np.float32)))
    np.testing.assert_allclose(other[[0, 1, 9]], [0.5, 0.25, 0.25])
    tied = Bins.of(Column(np.r_[np.zeros(75), np.arange(1, 26)].astype(np.float32)))
    assert tied.edges.tolist() == [0, 5, 15]
    words = Column(np.repeat(np.array([f"{i:02}".encode() for i in range(25)], object), np.arange(25, 0, -1)))
    by_value = Bins.of(words)
    assert by_value.values.tolist() == [f"{i:02}".encode() for i in range(20)]
    assert by_value.shares(words)[-2:].tolist() == [pytest.approx(15 / 325), 0]
    lists = Column(np.array([7, 7, 3]), np.array([2, 0, 1]))
    assert Bins.of(lists).shares(lists).tolist() == [0.25, 0.5, 0, 0.25]  # 3, 7, others, empty
    constant = Column(np.ones(9, np.float32))
    assert Bins.of(constant).shares(Column(np.zeros(4, np.float32))).tolist() == [0, 1, 0]


def test_out_of_fold_auc_by_hand():
    # Even rows: a 1, a 1, b 0, b 1 (base .75): rates a 9.5/12, b 8.5/12. Odd rows: a 1, b 0, b 1, c 0 (base .5):
    # rates a 6/11, b 6/12, c 5/11. Odd rows scored by the even: a .792, b .708, b .708, c .75, so the positives a, b
    # against the negatives b, c win 1 + 1 + .5 + 0 of 4. Even by odd: a, a, b over b: 1 + 1 + .5 of 3.
    column = Column(np.array([b"a", b"a", b"a", b"b", b"b", b"b", b"b", b"c"], object))
    labels = np.array([1, 1, 1, 0, 0, 1, 1, 0])
    assert leaks.value_auc(column, labels) == pytest.approx((2.5 / 4 + 2.5 / 3) / 2)
    # A row of a list has the mean rate of its elements. Even rows [0] 1, [0] 1, [] 0, [1] 0 (base .5): rates 0 7/12,
    # 1 and empty 5/11. Odd rows [0, 1] 1, [] 0, [0] 1, [1] 1 have .519, .455, .583, .455: 2.5 of 3. Their own rates
    # (base .75): 0 and 1 9.5/12, empty 7.5/11, so the even rows have .792, .792, .682, .792: 3 of 4.
    lists = Column(np.array([0, 0, 1, 0, 0, 1, 1]), np.array([1, 2, 1, 0, 0, 1, 1, 1]))
    assert leaks.value_auc(lists, np.array([1, 1, 1, 0, 0, 1, 0, 1])) == pytest.approx((2.5 / 3 + 3 / 4) / 2)
    assert leaks.value_auc(Column(np.zeros(8, int)), labels) == 0.5
    assert leaks.value_auc(Column(np.arange(8)), labels) == 0.5  # ids seen once know nothing about other rows
    assert leaks.number_auc(np.array([4.0, 3, 2, 1]), np.array([0, 0, 1, 1])) == 1
    assert leaks.number_auc(np.array([1.0, 2]), np.array([1, 1])) is None
