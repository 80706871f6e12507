"""Labels that count only within a window, rows that are too young for it, and feedback that is known late."""

import dataclasses

import pytest

from dlen_cam2.data import manifest
from dlen_cam2.schema import Computed, Feature, Known, Schema, Task
from dlen_cam2.utils.errors import UserError
from pipelines import from_logs
from pipelines.from_logs import Roles, convert
from pipelines.options import Options
from tests.support.logs import DAY, START, read, read_all, write

HOUR = 3_600_000
ROLES = Roles("ts", "uid", "vid")
BOUGHT = Feature("bought", "float", "user", "statistical", computed=Computed("count", ("uid",), of="buy"))
SCHEMA = Schema("shop", (Feature("vid", "int", "item", "content", size=9, width=2), BOUGHT), (Task("buy"),),
                known={"buy": Known(at="buy_time", within=24 * 3600)})


def log(days=3, after=(1, 23, 24, 25)):
    """Every six hours an exposure; each is bought some hours later."""
    return [{"ts": (ts := START + i * 6 * HOUR), "uid": 1, "vid": i % 9, "buy": 1,
             "buy_time": ts + after[i % len(after)] * HOUR} for i in range(days * 4)]


def converted(tmp_path, rows, schema=SCHEMA, **how):
    write(tmp_path / "log.parquet", rows, {})
    return convert(str(tmp_path / "log.parquet"), schema, ROLES, str(tmp_path / "out"), **how)


def test_a_label_that_comes_too_late_counts_as_0_and_feeds_nothing(tmp_path):
    rows = log(5)
    converted(tmp_path, rows)
    found = read_all(tmp_path / "out")
    assert [row["buy"] for row in found] == [1, 1, 1, 0] * 4  # 25 hours are too many; the fifth day is too young
    for row in found:
        known = [r for r in rows if r["buy_time"] < row["ts"] and r["buy_time"] - r["ts"] <= 24 * HOUR]
        assert row["bought"] == len(known)
    assert found[-1]["bought"] > 5


@pytest.mark.parametrize("schema", [SCHEMA, SCHEMA.select(without=["bought"])])
def test_rows_that_are_too_young_are_left_out_or_marked(tmp_path, schema):
    statistics = converted(tmp_path, log(), schema)
    assert {name: day["rows"] for name, day in statistics["days"].items()} == {"20220425": 4, "20220426": 4}
    assert statistics["source"]["rows_young"] == 4 and statistics["source"]["young_from"] == "20220427"
    statistics = converted(tmp_path, log(), schema, young_rows="mark")
    assert {name: day["rows"] for name, day in statistics["days"].items()} == {
        "20220425": 4, "20220426": 4, "20220427_young": 4}
    assert manifest.parse_days("20220425..20220426", list(statistics["days"])) == ["20220425", "20220426"]


def test_rows_that_were_too_young_are_written_when_the_log_goes_on(tmp_path):
    whole, rows = tmp_path / "whole", log(5)
    whole.mkdir()
    converted(whole, rows, young_rows="mark")
    for young_rows in ("drop", "mark"):
        converted(tmp_path, [r for r in rows if r["ts"] < START + 3 * DAY], young_rows=young_rows)
        with pytest.raises(UserError, match="days must be added from 20220427 on, whose youngest rows.*=20220428"):
            converted(tmp_path, rows, how=Options(since="20220428"))
        statistics = converted(tmp_path, rows, how=Options(since="20220427"), young_rows=young_rows)
        marked = ["20220429_young"] * (young_rows == "mark")
        assert list(statistics["days"]) == ["20220425", "20220426", "20220427", "20220428", *marked]
        for split in statistics["days"]:
            assert read(tmp_path / "out", split) == read(whole / "out", split)
        assert not (tmp_path / "out" / "20220427_young").exists()


@pytest.mark.parametrize(("known", "change", "message"), [
    (Known(at="buy_time"), {"buy_time": START - 1}, "'buy_time' must be a time that is not before that of the ex"),
    (Known(at="buy_time"), {"buy_time": None}, "'buy_time' must be a time that is not before.*Received: nothing"),
    (Known(after="wait"), {"wait": -1.0}, "'wait' must be a number of seconds of at least 0, after which 'buy' "),
    (Known(after="wait"), {"wait": None}, "column 'wait' must be a number of seconds.*Received: nothing"),
    (Known(at="absent"), {}, "column 'buy', known_at: the log must have the column 'absent'"),
])
def test_when_feedback_is_known_is_held_to_rules(tmp_path, known, change, message):
    rows = [row | {"wait": 1.0} for row in log()]
    rows[0] |= change
    schema = dataclasses.replace(SCHEMA, known={"buy": known})
    with pytest.raises(UserError, match=message):
        converted(tmp_path, rows, schema)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("schema", [
    dataclasses.replace(SCHEMA, targets=("paid",), known={"paid": Known(at="buy_time", within=60)}),
    dataclasses.replace(SCHEMA, known={"seen": Known(at="buy_time", within=60)}),
])
def test_only_a_label_has_an_attribution_window(tmp_path, schema):
    with pytest.raises(UserError, match=r"only the label of a task of 0 and 1.*Received: \['(paid|seen)'\]"):
        converted(tmp_path, [row | {"paid": 1.0, "seen": 1} for row in log()], schema)


def test_a_label_is_known_no_earlier_than_the_one_in_which_it_lies(tmp_path):
    """A return tells of the purchase; counted at its exposure it would tell of one that is still to come."""
    sent = Feature("sent", "float", "user", "statistical", computed=Computed("count", ("uid",), of="back"))
    schema = dataclasses.replace(SCHEMA, features=(*SCHEMA.features, sent), known={"buy": Known(at="buy_time")},
                                 tasks=(Task("buy"), Task("back", mask="buy")))
    rows = [row | {"back": 1} for row in log()]
    converted(tmp_path, rows, schema)
    found = read_all(tmp_path / "out")
    assert [row["sent"] for row in found] == [row["bought"] for row in found]
    assert [row["sent"] for row in found] == [sum(o["buy_time"] < row["ts"] for o in rows) for row in found]
    late = Computed("mean", ("uid",), value="back")
    with pytest.raises(UserError, match="mean of 'back' must be of events that are known at 'buy_time', too"):
        converted(tmp_path, rows, dataclasses.replace(
            schema, features=(*SCHEMA.features, dataclasses.replace(sent, computed=late))))


def test_a_time_may_be_missing_where_nothing_came(tmp_path):
    rows = log()
    for row in rows[::2]:
        row |= {"buy": 0, "buy_time": None}
    converted(tmp_path, rows)
    assert [row["buy"] for row in read_all(tmp_path / "out")] == [0, 1, 0, 0, 0, 1, 0, 0]


def test_the_sql_can_be_read(tmp_path, monkeypatch):
    write(tmp_path / "log.parquet", log(), {})
    monkeypatch.chdir(tmp_path)
    text = from_logs.sql(SCHEMA, ROLES, str(tmp_path / "log.parquet"))
    for part in ("CREATE TABLE today AS", "-- By uid.", 'greatest("ts", coalesce("buy_time", "ts"))', "AS \"bought\"",
                 "CREATE TABLE new_kept_counts_0 AS"):
        assert part in text
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]
