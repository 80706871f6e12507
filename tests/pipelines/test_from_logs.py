"""Any log -> a data set: rows, keys, training days, messages and commands."""

import dataclasses
import gzip
import random

import pytest

from dlen_cam2.data import manifest
from dlen_cam2.schema import Feature, Schema, Task, pbtxt
from dlen_cam2.utils.errors import UserError
from pipelines.from_logs import Roles, convert
from pipelines.options import Options
from tests.support.builders import command
from tests.support.logs import (
    AT,
    COUNTED,
    DAY,
    ROLES,
    SCHEMA,
    SMALL,
    START,
    fed,
    kept,
    keyed,
    log_rows,
    named,
    read_all,
    varied,
    write,
)


def test_rows_come_in_time_order_and_exact_duplicates_once(tmp_path):
    rows = log_rows(60)
    given = rows + rows[:7] + rows[:2]
    random.Random(1).shuffle(given)
    write(tmp_path / "log.jsonl", given)
    statistics = convert(str(tmp_path / "log.jsonl"), SCHEMA, ROLES, str(tmp_path / "out"))
    assert (statistics["source"]["rows_read"], statistics["source"]["rows_repeated"]) == (69, 9)
    assert read_all(tmp_path / "out") == kept(rows, keyed())


def test_the_order_of_the_files_rows_changes_no_byte(tmp_path):
    rows = [row | {"ts": row["ts"] // 7_000_000 * 7_000_000} for row in log_rows(60)]  # many at one time
    sums = []
    for seed in range(2):
        random.Random(seed).shuffle(rows)
        write(tmp_path / "log.parquet", rows)
        convert(str(tmp_path / "log.parquet"), SCHEMA, ROLES, str(tmp_path / "out"))
        sums.append([manifest.read_manifest(tmp_path / "out", day).shards for day in ("20220425", "20220426")])
    assert sums[0] == sums[1]


def test_keys_are_the_columns_of_the_flags(tmp_path):
    write(tmp_path / "log.csv", log_rows())
    convert(str(tmp_path / "log.csv"), SCHEMA, ROLES, str(tmp_path / "out"))
    assert pbtxt.load(tmp_path / "out").keys == {"user": "uid", "item": "vid", "time": "ts"}
    other = Schema("log", SCHEMA.features, SCHEMA.tasks, keys={"user": "vid"})
    with pytest.raises(UserError, match="keys must be the columns of --user.*Received: {'user': 'vid'}"):
        convert(str(tmp_path / "log.csv"), other, ROLES, str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


WORDS = Schema("words", (
    Feature("who", "string", "user", "content", size=32, hashed=True, width=2),
    Feature("what", "string", "item", "content", min_count=1, width=2)), (Task("click"),))


def test_users_and_items_may_be_text(tmp_path):
    rows = [{"t": START + i, "who": f"u{i % 3}", "what": f"ü{i}", "click": i % 2} for i in range(6)]
    write(tmp_path / "log.csv", rows)
    roles = Roles("t", "who", "what")
    convert(str(tmp_path / "log.csv"), WORDS, roles, str(tmp_path / "out"))
    assert read_all(tmp_path / "out") == kept(rows, keyed(WORDS, roles))


@pytest.mark.parametrize(("train_days", "wanted"), [("", {1, 2}), ("20220426", {2}), ("20220425..20220427", {1, 2, 3})])
def test_vocabularies_are_of_the_training_days_only(tmp_path, train_days, wanted):
    rows = [{"t": START + day * DAY + i, "uid": i, "vid": day + 1, "click": 0} for day in range(3) for i in range(4)]
    write(tmp_path / "log.csv", rows)
    convert(str(tmp_path / "log.csv"), SMALL, Roles("t", "uid", "vid"), str(tmp_path / "out"),
            how=Options(train_days=train_days))
    assert set(pbtxt.load(tmp_path / "out").features[0].vocabulary) == wanted


@pytest.mark.parametrize("schema", [COUNTED, COUNTED.select(features=["uid", "video_id", "note"])])
@pytest.mark.parametrize("days", ["2024", "20220425..20220431"])
def test_training_days_that_are_none_are_refused_before_any_day_is_written(tmp_path, capsys, schema, days):
    write(tmp_path / "log.csv", named(fed()))
    with pytest.raises(UserError, match=f"days must name days of the data set.*Received: '{days}'. Known: .*20220427"):
        convert(str(tmp_path / "log.csv"), schema, AT, str(tmp_path / "out"), how=Options(train_days=days))
    assert "shards" not in capsys.readouterr().out


def test_a_data_set_that_is_replaced_is_named(tmp_path, capsys):
    write(tmp_path / "log.csv", log_rows())
    for said in (False, True):
        convert(str(tmp_path / "log.csv"), SCHEMA, ROLES, str(tmp_path / "out"))
        assert (f"the earlier data set in {tmp_path / 'out'} (2 splits) is replaced" in capsys.readouterr().out) == said


@pytest.mark.parametrize(("text", "known"), [
    ("20220425..20220430", False), ("20220401..20220427", False), ("2022..2023", False), ("20220427..20220425", False),
    ("20220425..20220427_random", False), ("20220425..20220427", True), ("20220427..20220427", True),
])
def test_both_ends_of_a_range_are_days(text, known):
    days = ["20220425", "20220426", "20220427", "20220427_random"]
    if known:
        assert manifest.parse_days(text, days) == [d for d in days[:3] if text[:8] <= d <= text[-8:]]
    else:
        with pytest.raises(UserError, match=f"days must name days of the data set.*Received: '{text}'. Known"):
            manifest.parse_days(text, days)


@pytest.mark.parametrize("role", ["time", "user", "item", "random"])
def test_a_role_of_a_column_that_the_log_lacks_names_it(tmp_path, role):
    write(tmp_path / "log.csv", log_rows())
    schema = dataclasses.replace(SCHEMA, keys={"time": "ts", "user": "uid", "item": "vid"})
    with pytest.raises(UserError, match=r"log\.csv has no column 'tss'\. Received columns"):
        convert(str(tmp_path / "log.csv"), schema, dataclasses.replace(ROLES, **{role: "tss"}), str(tmp_path / "out"))


def test_what_is_wrong_is_said_once(tmp_path):
    write(tmp_path / "log.csv", log_rows())
    with pytest.raises(UserError) as error:
        pbtxt.load(tmp_path / "nothing")
    assert str(error.value).count("cannot be read") == str(error.value).count("Received") == 1
    done = command(
        "pipelines.from_logs", f"--logs={tmp_path / 'log.csv'}", "--time=ts", "--user=uid", "--item=vid",
        f"--schema={tmp_path / 'my.pbtxt'}", f"--out={tmp_path / 'out'}",
    )
    assert done.returncode == 1 and f"error: {tmp_path / 'my.pbtxt'} cannot be read. Received" in done.stderr
    (tmp_path / "log.jsonl.gz").write_bytes(gzip.compress(b'{"ts": 1}\n' * 999)[:-12])
    with pytest.raises(UserError) as error:
        convert(str(tmp_path / "log.jsonl.gz"), SCHEMA, ROLES, str(tmp_path / "out"))
    assert str(error.value).count("Received") == 1


def test_commands(tmp_path):
    """Propose a schema, convert with it; a flag's other name; one message for what is wrong."""
    write(tmp_path / "s" / "log.csv", [row | {"ts": row["ts"] // 1000} for row in varied(200)])

    def from_logs(*flags):
        roles = ["--time=ts", "--user=uid", "--item=vid", "--time_unit=s", f"--schema={tmp_path / 'my.pbtxt'}"]
        return command("pipelines.from_logs", f"--logs={tmp_path / 's' / '*.csv'}", *roles, *flags)

    done = from_logs("--suggest_schema")
    assert done.returncode == 0, done.stderr
    assert "is_click: a task" in done.stdout and "my.pbtxt, then run the command" in done.stdout
    computed = [f for f in pbtxt.loads((tmp_path / "my.pbtxt").read_text()).features if f.computed]
    assert all(f"\n{f.name}: computed: " in done.stdout for f in computed)
    assert f"\n{len(computed)} computed features, by " in done.stdout
    again = from_logs("--suggest_schema")
    assert again.returncode == 1 and again.stderr.count("error: ") == 1 and "Traceback" not in again.stderr
    done = from_logs(f"--out={tmp_path / 'out'}", "--layout=block", "--compression=GZIP", "--workers=1")
    assert done.returncode == 0, done.stderr
    assert "200 rows were read, 0 skipped, and 0 exact duplicates dropped" in done.stdout
    assert "200 rows in 1 splits were written to" in done.stdout
    found = manifest.read_manifest(tmp_path / "out", "20220425")
    assert (found.layout, found.compression, found.rows) == ("block", "GZIP", 200)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my.pbtxt", "out", "s"]
