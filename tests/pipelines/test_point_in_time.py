"""point_in_time.sql against a slow reference, and against the future."""

import contextlib
import math
import pathlib
import tempfile

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.utils.errors import UserError
from pipelines import engines
from pipelines.features.point_in_time import COUNTERS, HISTORY_LENGTH, histories, splits

HOUR = 3_600_000
START = 457_000 * HOUR
TYPES = {
    "row": pa.int64(),
    "split": pa.string(),
    "topic": pa.string(),
    "duration_s": pa.float64(),
    "play_s": pa.float64(),
}
FEEDBACK = ("click", "long_view", "like", "profile_enter")
INPUTS = (
    "row",
    "split",
    "time_ms",
    "user_id",
    "video_id",
    "author_id",
    "topic",
    "tab",
    "duration_s",
    "play_s",
    *FEEDBACK,
)
SCHEMA = Schema(
    "log",
    (
        *COUNTERS,
        *histories(9),
        *(Feature(name, "int", "item", "content", size=9, width=1) for name in ("row", "author_id", "tab")),
        Feature("topic", "string", "item", "content", size=9, hashed=True, width=1),
        *(Feature(name, "float", "item", "content") for name in ("duration_s", "play_s")),
    ),
    tuple(map(Task, FEEDBACK)),
    keys={"user": "user_id", "item": "video_id", "time": "time_ms"},
)


def random_log(seed, rows=220, users=3, videos=6, moments=60, older=0.15, durations=False):
    """Few users and few distinct times, so ties abound; some rows are older exposures (split None)."""
    rng = np.random.default_rng(seed)
    times = START + np.sort(rng.integers(0, 5 * HOUR, moments))
    times[1::7] = times[::7][:len(times[1::7])] + HOUR  # just at, and next to, the edge of the hour's window
    times[2::7] = times[::7][:len(times[2::7])] + HOUR + 1
    log = []
    for row in range(rows):
        video = int(rng.integers(videos))
        log.append(
            {
                "row": row,
                "split": str(rng.choice(["d1", "d1_random", "d2"])),
                "time_ms": int(rng.choice(times)),
                "user_id": int(rng.integers(users)),
                "video_id": video,
                "author_id": video % 3 - 1,
                "topic": "ab"[video % 2] * (video != 5),
                "tab": int(rng.integers(2)),
                "duration_s": float(rng.uniform(1, 60)),
                "play_s": float(rng.uniform(0, 90)),
                **{name: int(rng.random() < p) for name, p in zip(FEEDBACK, (0.5, 0.4, 0.3, 0.1), strict=True)},
            }
        )
        if rng.random() < older:
            unknown = ("split", "tab", "play_s", "click", "profile_enter")
            log[-1] |= dict.fromkeys(unknown if durations else (*unknown, "duration_s"))
    return log


def long_log(seed, days=4, **how):
    """Several days, each of which begins three hours before the one before it ends, so most counters are closed."""
    log = random_log(seed, **how)
    rng = np.random.default_rng(seed)
    for e in log:
        if e["split"] is None:
            e["time_ms"] -= int(rng.choice([2, 30, 90])) * HOUR
            continue
        day = int(rng.integers(days))
        e["time_ms"] = START + 24 * HOUR * day + (e["time_ms"] - START) * 28 // 6 - 3 * HOUR
        e["split"] = f"d{day}" + "_random" * int(rng.random() < 0.2)
    return log


@contextlib.contextmanager
def connected(log):
    """An engine with the table `exposures`."""
    columns = {name: pa.array([e[name] for e in log], TYPES.get(name, pa.int64())) for name in INPUTS}
    with tempfile.TemporaryDirectory() as home, engines.connect("duckdb", pathlib.Path(home) / "out") as engine:
        engine.put("exposures", pa.table(columns))
        yield engine


def compute(log, snapshots=None, saved=None, since=""):
    """{row: {column: value}} as the product computes it, and the splits in the order in which they come."""
    with connected(log) as engine:
        snapshots = snapshots or engine.directory / "snapshots"
        found = [(split, rows.read_all()) for split, rows in splits(engine, SCHEMA, snapshots, saved, since)]
    rows = {}
    for split, table in found:
        assert table.column_names == list(SCHEMA.columns)
        order = [(row["time_ms"], row["user_id"], row["video_id"]) for row in table.to_pylist()]
        assert order == sorted(order)
        for row in table.to_pylist():
            lists = {f.name: row[f.name] or [] for f in histories(1)}  # null is an empty list, see write_dataset
            rows[row["row"]] = row | lists | {"split": split}
    return rows, [split for split, _ in found]


def day_of(e):
    """Days stand in the order of their names; what is older than all days is before them."""
    return e["split"].split("_")[0] if e["split"] is not None else ""


def milliseconds(seconds):
    return math.floor(seconds * 1000 + 0.5)


def reference(log, e):
    """The features of the exposure `e`, by their definition: a loop over the rows that are strictly earlier.

    A row of a later day is not known yet, whatever its time.
    """
    known_by_then = [o for o in log if day_of(o) <= day_of(e)]
    before = [o for o in known_by_then if o["time_ms"] < e["time_ms"]]
    hours = [o for o in known_by_then if o["time_ms"] // HOUR < e["time_ms"] // HOUR]

    def count(rows, name):
        return sum(o[name] or 0 for o in rows)

    def known(rows, name):
        return sum(o[name] is not None for o in rows)

    base = {name: (count(hours, name) + 1) / (known(hours, "long_view" if name == "like" else name) + prior)
            for name, prior in zip(FEEDBACK, (2, 2, 20, 20), strict=True)}
    users = [o for o in before if o["user_id"] == e["user_id"]]
    of = {
        "user": users,
        "video": [o for o in before if o["video_id"] == e["video_id"]],
        "author": [o for o in before if o["author_id"] == e["author_id"]],
        "user_tab": [o for o in users if o["tab"] == e["tab"]],
        "user_topic": [o for o in users if o["topic"] == e["topic"]],
        "user_author": [o for o in users if o["author_id"] == e["author_id"]],
        "user_video": [o for o in users if o["video_id"] == e["video_id"]],
        "user_hour": [o for o in users if e["time_ms"] - o["time_ms"] <= HOUR],
    }
    out = {}
    for who, rows in of.items():
        out |= {f"{who}_impressions": len(rows), f"{who}_logged": known(rows, "click")}
        out |= {f"{who}_{name}s": count(rows, name) for name in FEEDBACK}
    for who, k, rare in (("user", 10, 30), ("video", 20, 50), ("author", 20, 50)):
        for name, weight in zip(FEEDBACK, (k, k, rare, rare), strict=True):
            shown = known(of[who], "click") if name in ("click", "profile_enter") else len(of[who])
            out[f"{who}_{name}_rate"] = (count(of[who], name) + weight * base[name]) / (shown + weight)
    for who, seconds in (("user", 30), ("video", 150)):
        seen = [o for o in of[who] if o["play_s"] is not None]
        played = sum(milliseconds(min(o["play_s"], o["duration_s"])) for o in seen)
        offered = sum(milliseconds(o["duration_s"]) for o in seen)
        out[f"{who}_play_ratio"] = (played + 1000 * seconds) / (offered + 1000 * seconds / 0.3)
    for who, k, rare, shown in (("user_tab", 5, 20, "logged"), ("user_topic", 3, 10, "impressions")):
        for name, weight in zip(FEEDBACK[:3], (k, k, rare), strict=True):
            n = out[f"{who}_logged"] if name == "click" else out[f"{who}_{shown}"]
            out[f"{who}_{name}_rate"] = (count(of[who], name) + weight * out[f"user_{name}_rate"]) / (n + weight)
    out["user_idle_s"] = (e["time_ms"] - max(o["time_ms"] for o in users)) / 1000 if users else 864_000.0
    newest = sorted(users, key=lambda o: (-o["time_ms"], -o["video_id"]))
    for name, keep in (("watched", None), ("long_viewed", "long_view"), ("liked", "like")):
        out[name] = [o["video_id"] for o in newest if keep is None or o[keep] == 1][:20]
    return out


LOGS = {
    "no older": lambda: random_log(0, older=0.0), "plain": lambda: random_log(1),
    "one user": lambda: random_log(2, rows=400, users=1), "ties": lambda: random_log(3, moments=8),
    "sparse": lambda: random_log(4, rows=30, users=8), "again": lambda: random_log(5),
    "days": lambda: long_log(6, rows=250), "days of one user": lambda: long_log(7, rows=320, users=1),
    "plays that are not known of known videos": lambda: random_log(10, older=0.3, durations=True),
    "many days": lambda: long_log(8, days=9, rows=200), "days with ties": lambda: long_log(9, moments=12),
}


@pytest.mark.parametrize("name", LOGS)
def test_every_feature_equals_the_reference(name):
    log = LOGS[name]()
    rows, order = compute(log)
    assert order == sorted(order, key=lambda split: split.split("_"))
    assert sorted(rows) == [e["row"] for e in log if e["split"] is not None]
    wanted_names = {f.name for f in (*COUNTERS, *histories(1))}
    for e in log:
        if e["split"] is None:
            continue
        found, wanted = rows[e["row"]], reference(log, e)
        compared = wanted_names & set(wanted)
        assert len(compared) >= 42
        assert {n: found[n] for n in INPUTS} == e
        for name in sorted(compared):
            if isinstance(wanted[name], float):
                assert found[name] == pytest.approx(wanted[name], rel=1e-12, abs=1e-12), (name, e)
            else:
                assert found[name] == wanted[name], (name, e)


# Few of everything, so that rows meet: in a moment, in a key, at the edge of an hour and of a day.
EXPOSURES = st.lists(
    st.fixed_dictionaries({
        "split": st.sampled_from([None, "d1", "d1_random", "d2", "d3"]),
        "after_ms": st.sampled_from([0, 1, 5, HOUR - 1, HOUR, HOUR + 1, 2 * HOUR]),
        "user_id": st.integers(0, 1), "video_id": st.integers(0, 2), "author_id": st.integers(-1, 0),
        "topic": st.sampled_from(["", "a"]), "tab": st.integers(0, 1), "duration_s": st.sampled_from([1.0, 2.5005]),
        "play_s": st.sampled_from([0.0, 1.2345, 9.0]), **{name: st.integers(0, 1) for name in FEEDBACK},
    }),
    min_size=1, max_size=12,
).filter(lambda log: any(e["split"] for e in log))


@settings(max_examples=25, deadline=None)
@given(EXPOSURES)
def test_every_feature_of_any_log_equals_the_reference(log):
    # A day lasts a day and a half here: the rows of the day before are partly counters and partly still rows.
    starts = {None: -40 * HOUR, "d1": 0, "d1_random": 0, "d2": 36 * HOUR, "d3": 72 * HOUR}
    log = [{"row": row, **e, "time_ms": START + starts[e["split"]] + e["after_ms"]} for row, e in enumerate(log)]
    for e in log:
        del e["after_ms"]
        if e["split"] is None:
            e |= dict.fromkeys(("tab", "duration_s", "play_s", "click", "profile_enter"))
    rows, _ = compute(log)
    assert sorted(rows) == [e["row"] for e in log if e["split"] is not None]
    for row, found in rows.items():
        for name, value in reference(log, log[row]).items():
            if name in found and name not in INPUTS:
                assert found[name] == pytest.approx(value, rel=1e-12, abs=1e-12), (name, log[row])


def test_the_reference_meets_every_case():
    """The random logs do have ties, long histories, unknown feedback, and rows at the edge of the hour's window."""
    log = random_log(2, rows=400, users=1)
    rows, _ = compute(log)
    assert max(len(r["watched"]) for r in rows.values()) == HISTORY_LENGTH
    assert len({(e["user_id"], e["time_ms"]) for e in log}) < len(log) / 3
    gaps = {a["time_ms"] - b["time_ms"] for a in log for b in log}
    assert {HOUR, HOUR + 1} <= gaps
    assert min(r["user_impressions"] for r in rows.values()) == 0
    assert any(e["click"] is None and e["long_view"] is not None for e in log)
    # Rows of a later day are older than some of an earlier one, by hours, and most counters are of days that are over.
    log = LOGS["days of one user"]()
    late = [(a, b) for a in log for b in log if day_of(a) > day_of(b) > "" and a["time_ms"] < b["time_ms"]]
    assert max(b["time_ms"] - a["time_ms"] for a, b in late) > 2 * HOUR
    assert max(e["time_ms"] for e in log) - min(e["time_ms"] for e in log) > 7 * 24 * HOUR
    assert sum(len(r["long_viewed"]) == HISTORY_LENGTH for r in compute(log)[0].values()) > 50


def features(row):
    return {name: value for name, value in row.items() if name not in INPUTS}


def same(a, b):
    """Equal but for the last bits of a sum of floats."""
    return a.keys() == b.keys() and all(
        a[n] == pytest.approx(b[n], rel=1e-12) if isinstance(a[n], float) else a[n] == b[n] for n in a
    )


FUTURES = ("deleted", "shuffled", "changed", "more")


@pytest.mark.parametrize("future", FUTURES)
@pytest.mark.parametrize("seed", range(4))
def test_the_features_of_rows_up_to_T_do_not_depend_on_anything_at_or_after_T(future, seed):
    rng = np.random.default_rng(seed)
    log = random_log(10 + seed, moments=40)
    now = sorted({e["time_ms"] for e in log})[25]  # T, at which several rows stand
    past = [e for e in log if e["time_ms"] < now]
    at, later = [e for e in log if e["time_ms"] == now], [e for e in log if e["time_ms"] > now]
    kept = next(e for e in at if e["split"] is not None)  # one row at T stays, to be compared; its feedback may change
    rest = [e for e in at if e is not kept] + later
    assert len(at) > 1 and len(later) > 20 and len(past) > 20
    if future == "deleted":
        rest = []
    elif future == "shuffled":
        for name in ("user_id", "video_id", "author_id", "topic", *FEEDBACK):
            for e, value in zip(rest, rng.permutation([e[name] for e in rest]).tolist(), strict=True):
                e[name] = value
        rng.shuffle(rest)
    elif future == "changed":
        rest = [
            e | {n: 1 - (e[n] or 0) for n in FEEDBACK}
            | {"play_s": 1e4, "duration_s": 1e4, "split": "d0", "tab": e["tab"] or 0}
            for e in rest
        ]
    else:
        rest += [e | {"row": 1000 + i, "user_id": i % 3, "click": 1, "like": 1} for i, e in enumerate(rest)]
    changed = {n: 1 - (kept[n] or 0) for n in FEEDBACK} | {"play_s": 0.5}
    before, _ = compute(random_log(10 + seed, moments=40))
    after, _ = compute([*rest, *past, kept | changed])
    compared = [e["row"] for e in [*past, kept] if e["split"] is not None]
    for row in compared:
        assert same(features(before[row]), features(after[row])), row
    if future != "deleted":  # the comparison can fail: rows after T do see the change
        assert any(
            not same(features(before[r]), features(after[r])) for r in before.keys() & after.keys() - set(compared)
        )


def one(row, time=0, user=1, video=1, **changes):
    return {
        "row": row,
        "split": "d",
        "time_ms": START + time,
        "user_id": user,
        "video_id": video,
        "author_id": video,
        "topic": "a",
        "tab": 0,
        "duration_s": 10.0,
        "play_s": 5.0,
        **dict.fromkeys(FEEDBACK, 0),
    } | changes


def test_by_hand():
    rows, _ = compute([
        one(0, 0, click=1, like=1, long_view=1), one(1, 1000, video=2), one(2, 1000, video=3, long_view=1),
        one(3, HOUR + 1000, video=1), one(4, HOUR + 1001, video=1), one(5, HOUR + 1001, user=2, video=1)])
    assert [rows[i]["user_impressions"] for i in range(6)] == [0, 1, 1, 3, 4, 0]
    assert [rows[i]["video_impressions"] for i in range(6)] == [0, 0, 0, 1, 2, 2]
    assert [rows[i]["user_hour_impressions"] for i in range(6)] == [0, 1, 1, 2, 1, 0]
    assert [rows[i]["user_idle_s"] for i in range(6)] == [864_000, 1, 1, 3600, 0.001, 864_000]
    assert [rows[i]["watched"] for i in range(6)] == [[], [1], [1], [3, 2, 1], [1, 3, 2, 1], []]
    assert (rows[4]["long_viewed"], rows[4]["liked"]) == ([3, 1], [1])
    assert rows[0]["user_click_rate"] == 0.5 and rows[1]["user_click_rate"] == pytest.approx((1 + 10 * 0.5) / 11)
    base = (1 + 1) / (3 + 2)  # one click of the three impressions of the hour before
    assert rows[5]["user_click_rate"] == pytest.approx(base) and rows[5]["video_click_rate"] == pytest.approx(
        (1 + 20 * base) / 22
    )


def test_the_rows_of_one_millisecond_do_not_see_each_other_nor_themselves():
    loud = dict.fromkeys(FEEDBACK, 1)
    log = [one(i, video=i % 2, play_s=99.0, **loud) for i in range(6)]
    rows, _ = compute(log)
    alone, _ = compute([one(0)])
    for row in rows.values():
        assert features(row) == features(alone[0])


@pytest.mark.parametrize("column", ["time_ms", "user_id", "video_id", "author_id", "topic", "tab"])
def test_a_missing_id_or_time_is_named(column):
    with pytest.raises(UserError, match=f"column '{column}' must have a value in every exposure. Received: 1 "):
        compute([one(0), one(1, **{column: None})])


# === Day by day ===

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
    message = (rf"day d2: exposures must be at most 23 hours older than the newest of the days before.*"
               rf"Received: time_ms={START + 500 * HOUR - late}\.")
    with pytest.raises(UserError, match=message):
        compute(log)
    rows, _ = compute([e | {"split": "d2"} for e in log])  # within a day they may be as far apart as they like
    assert rows[2]["user_impressions"] == 0


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
        ("d5", "--since must be a day of the log. Received: 'd5'"), ("d0", "has no snapshot of a day before d0"),
        ("d3", r"--since=d3 would leave out days that have no snapshot. Received: \['d2'\]"),
    ):
        with pytest.raises(UserError, match=message):
            compute(log, tmp_path / f"new_{since}", tmp_path / "saved", since)
