"""What is left out of a proposal: ids of requests, dates, clocks, and numbers that rows lack."""

import datetime
import re

import numpy as np
import pytest

from pipelines.suggestion import log_sample
from tests.support.proposals import (
    DAY,
    ROWS,
    chance,
    click,
    converted,
    features,
    found,
    proposed,
    rng,
    save,
    some,
    texts,
    ts,
    u,
    v,
)


@pytest.mark.parametrize(("name", "values"), [
    ("rid", [f"{k:08x}" for k in rng.permutation(ROWS)]), ("snowflake", 2**60 + rng.permutation(ROWS)),
    ("comment_text", [f"text {k}" for k in range(ROWS)]), ("Unnamed: 0", np.arange(ROWS)),
    ("basket", [f"{a}/{b}" for a, b in zip(u, ts // (DAY // 8), strict=True)]), ("impressionId", v),
    ("search_id", [f"q{k // 3}" for k in range(ROWS)]), ("SESSION_KEY", texts(u)), ("session", u // 2),
])
def test_ids_of_requests_and_sessions_are_left_out(tmp_path, name, values):
    schema, why = found(tmp_path, **{name: values})
    assert name not in features(schema) and why[name].startswith("left out: ")


@pytest.mark.parametrize(("name", "values", "side"), [
    ("author_id", v % 30, "item"), ("campaign_id", rng.integers(0, 30, ROWS), "context"), ("event_id", v % 7, "item"),
    ("title", [f"title {k}" for k in v], "item"), ("brand_id", some([f"{k % 40}.0" for k in v], 0.01), "item"),
    ("query", [f"query {k}" for k in rng.integers(0, 900, ROWS)], "context"),
])
def test_other_ids_and_texts_are_features(tmp_path, name, values, side):
    schema, _ = converted(tmp_path, ".csv", **{name: values})
    assert features(schema)[name].side == side and not features(schema)[name].is_numeric


def iso(form):
    return [datetime.datetime.fromtimestamp(t / 1000, datetime.UTC).strftime(form) for t in ts]


@pytest.mark.parametrize(("name", "values", "reason"), [
    ("date", [int(d) for d in iso("%Y%m%d")], "a date or time such as 20241006"), ("day", iso("%Y-%m-%d"), "a date"),
    ("d", iso("%d.%m.%Y"), "a date"), ("created", iso("%b %d, %Y"), "a date"), ("ymdh", iso("%Y%m%d%H"), "a date"),
    ("log_s", ts // 1000, "a date"), ("log_ms", ts, "a date"), ("log_us", ts * 1000.0, "a date"), ("ts2", ts, "a date"),
    ("period", [202410] * ROWS, "a date"), ("updated_ts", v * 1000, "a date"),
    ("hourmin", [int(h) for h in iso("%H%M")], "a time of day such as 9.*reduce it to the hour"),
    ("at", iso("%H:%M:%S"), "a time of day such as 23:59"), ("minute_of_day", ts // 60_000 % 1440, "a time of day"),
])
@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_dates_and_clocks_are_left_out(tmp_path, ending, name, values, reason):
    schema, why = found(tmp_path, ending, **{name: values})
    assert name not in features(schema)
    assert re.match(f"left out: it is {reason}", why[name]), why[name]


def test_a_time_of_day_or_date_as_a_type_is_left_out(tmp_path):
    dates = [datetime.date(2024, 10, 4)] * ROWS
    _, why = found(tmp_path, day=dates, at=[datetime.time(1, 2)] * ROWS, moment=ts.astype("M8[ms]"))
    assert all(why[n].startswith("left out: it is of type ") for n in ("day", "at", "moment"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "values", "numeric"), [
    ("hour", ts // 3_600_000 % 24, False), ("weekday", ts // DAY % 7, False), ("month", v % 12 + 1, False),
    ("dow", np.array(["mon", "tue", "wed"])[v % 3], False), ("release_year", 1980 + v % 40, True),
    ("duration_ms", v * 977 + 10**9, True), ("age_days", chance * 1000, True), ("load_time_ms", v * 7 + 200, True),
    ("length_text", [f"{k % 5}-{k % 7}" for k in v], False), ("likes", v * 10**7 + 10**9, True),
])
def test_small_integers_and_lengths_are_features(tmp_path, name, values, numeric):
    schema, _ = converted(tmp_path, ".csv", **{name: values})
    assert features(schema)[name].is_numeric == numeric


@pytest.mark.parametrize(("ending", "hole"), [
    (".parquet", None), (".parquet", float("nan")), (".parquet", float("inf")), (".csv", None), (".csv", "NA"),
    (".csv", "null")])
def test_numbers_that_rows_lack_are_counted_at_once(tmp_path, monkeypatch, ending, hole):
    monkeypatch.setattr(log_sample, "ROWS", 500)
    values = [hole if c < 0.08 else str(c * 5) if isinstance(hole, str) else c * 5 for c in chance.tolist()]
    columns = dict.fromkeys(("stars", "watch_time", "clicks_before"), values)
    schema, why = converted(tmp_path, ending, **columns)
    for name in columns:
        assert why[name].startswith(f"left out: {sum(chance < 0.08):,} of 3,000 rows have no number")
    assert why["watch_time"].endswith("kind:regression and mask:COLUMN of the feedback that it follows make it a task")
    assert not schema.targets and not features(schema).keys() & columns.keys()


def test_a_category_may_lack_values_which_are_counted(tmp_path):
    schema, why = converted(tmp_path, ".csv", age=some(20 + u % 50), kind=some([f"{k % 3}.0" for k in v]),
                        level=["NA" if c < 0.1 else str(k % 5) for c, k in zip(chance, u, strict=True)])
    assert {n: (features(schema)[n].dtype, features(schema)[n].side) for n in ("age", "kind", "level")} == {
        "age": ("int", "user"), "kind": ("int", "item"), "level": ("string", "user")}
    assert f"{sum(chance < 0.1):,} of 3,000 rows have no value" in why["age"]


def test_the_range_of_a_number_is_that_of_the_whole_log(tmp_path, monkeypatch):
    monkeypatch.setattr(log_sample, "ROWS", 500)
    ratio = chance / 2
    ratio[ROWS // 2] = 1.5
    schema, _ = converted(tmp_path, share=ratio)
    assert features(schema)["share"].transform == ""


def test_users_that_are_missing_are_counted(tmp_path):
    path = save(tmp_path / "log.csv", {"ts": ts, "uid": some(u), "vid": v, "click": click})
    _, why = proposed(path)
    assert f"{sum(chance < 0.1):,} of 3,000 rows have no value, and --on_bad_row=skip leaves them out" in why["uid"]
