"""The features of a feed against a slow reference, and against the future."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlen_cam2.utils.errors import UserError
from pipelines.features.feed import COUNTERS, HISTORY_LENGTH, histories
from tests.support.exposures import (
    FEEDBACK,
    HOUR,
    INPUTS,
    LOGS,
    START,
    compute,
    day_of,
    features,
    one,
    random_log,
    reference,
    same,
)


@pytest.mark.slow
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


@pytest.mark.slow
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


FUTURES = ("deleted", "shuffled", "changed", "more")


@pytest.mark.slow
@pytest.mark.parametrize("future", FUTURES)
@pytest.mark.parametrize("seed", range(2))
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
