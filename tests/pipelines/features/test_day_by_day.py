"""Day by day: exposures that come late, and runs that go on from a snapshot."""

import pytest

from dlen_cam2.utils.errors import UserError
from tests.support.exposures import HOUR, LOGS, START, compute, day_of, features, one, reference, same


@pytest.mark.parametrize("late", [23 * HOUR, 23 * HOUR + HOUR // 2])
def test_a_day_may_hold_exposures_that_are_up_to_23_hours_older_than_the_newest_before(late):
    newest = 50 * HOUR + HOUR // 2  # so the hour in which counters are closed is the 27th
    log = [one(0, 0, split="d1", click=1), one(1, newest - late - HOUR, split="d1", like=1), one(2, newest, split="d1"),
           one(3, newest - late, split="d2"), one(4, newest + 1, split="d2")]
    rows, _ = compute(log)
    for e in log:
        wanted = reference(log, e)
        assert same({n: rows[e["row"]][n] for n in wanted if n in rows[e["row"]]},
                    {n: v for n, v in wanted.items() if n in rows[e["row"]]})
    assert [rows[i]["user_impressions"] for i in range(5)] == [0, 1, 2, 2, 4]


@pytest.mark.parametrize("late", [24 * HOUR, 25 * HOUR, 400 * HOUR])
@pytest.mark.parametrize("before", ["d1", None])
def test_an_exposure_that_is_older_than_that_is_refused(late, before):
    log = [one(0, 500 * HOUR, split=before), one(1, 500 * HOUR, split="d2"),
           one(2, 500 * HOUR - late, split="d2_random")]
    message = (rf"day d2: exposures must be at most 23 hours older than the newest exposure of the days before.*"
               rf"Received: time_ms={START + 500 * HOUR - late}\.")
    with pytest.raises(UserError, match=message):
        compute(log)
    rows, _ = compute([e | {"split": "d2"} for e in log])  # within a day they may be as far apart as they like
    assert rows[2]["user_impressions"] == 0


@pytest.mark.slow
def test_a_day_does_not_depend_on_later_days_whatever_their_times():
    log = LOGS["days"]()
    everything, order = compute(log)
    assert order == sorted({e["split"] for e in log if e["split"]})
    for day in ("d0", "d1", "d2"):
        rows, _ = compute([e for e in log if day_of(e) <= day])
        assert rows and all(features(row) == features(everything[n]) for n, row in rows.items())


def test_splits_of_one_day_see_each_other_and_those_of_an_earlier_day():
    rows, order = compute([
        one(0, 0, split="a_random", click=1), one(1, 1, split="a", click=1), one(2, 2, split="b"),
        one(3, 3, split="a_random"), one(4, 1, split="b_x")])
    assert order == ["a", "a_random", "b", "b_x"]
    assert [rows[i]["user_impressions"] for i in range(5)] == [0, 1, 3, 2, 1]


def test_days_stand_in_the_order_of_their_names_not_of_their_splits():
    rows, order = compute([one(0, 0, split="a_x"), one(1, 1, split="a0"), one(2, 2, split="a0_x")])
    assert order == ["a_x", "a0", "a0_x"]
    assert [rows[i]["user_impressions"] for i in range(3)] == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["days", "days of one user"])
def test_a_run_that_goes_on_from_a_snapshot_computes_the_same(name, tmp_path):
    log = LOGS[name]()
    whole, _ = compute(log, tmp_path / "whole")
    compute([e for e in log if day_of(e) <= "d1"], tmp_path / "first")
    rest = [e for e in log if day_of(e) > "d1"]
    for ready in (rest, log):  # the log may still hold the earlier days, which are not computed again
        rows, order = compute(ready, tmp_path / f"rest{len(ready)}", tmp_path / "first", "d2")
        assert {split.split("_")[0] for split in order} == {"d2", "d3"}
        assert rows == {n: row for n, row in whole.items() if row["split"] in order}
        assert sorted(p.name for p in (tmp_path / f"rest{len(ready)}").iterdir()) == ["d2", "d3"]
    assert sorted(p.name for p in (tmp_path / "whole").iterdir()) == ["d0", "d1", "d2", "d3"]


def test_going_on_needs_the_day_before(tmp_path):
    log = [one(n, n * HOUR, split=f"d{n}") for n in range(4)]
    compute(log[:2], tmp_path / "saved")
    for since, message in (
        ("d5", "--since must be a day of the log. Received: 'd5'"), ("d0", "--since needs a snapshot"),
        ("d3", r"--since must directly follow a day that has a snapshot.*Received: --since=d3, with \['d2'\]"),
    ):
        with pytest.raises(UserError, match=message):
            compute(log, tmp_path / f"new_{since}", tmp_path / "saved", since)
