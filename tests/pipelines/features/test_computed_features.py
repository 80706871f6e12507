"""Every kind of computed feature against its definition, and against the future."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlen_cam2.schema import Computed
from dlen_cam2.utils.errors import UserError
from tests.support.computed import HOUR, KNOWN, START, compute, day_of, known_at, random_log, reference, schema_of

WHO, BRAND, BOTH = ("who",), ("brand",), ("who", "brand")
EVERY = {
    "exposures": Computed("count", WHO), "buys": Computed("count", WHO, of="buy"),
    "buys_7d": Computed("count", BOTH, of="buy", over="7d"), "clicks_1h": Computed("count", WHO, of="click", over="1h"),
    "shown_90m": Computed("count", ("what", "tab"), over="90m"), "session": Computed("count", WHO, over="session 30m"),
    "session_of_brand": Computed("count", BOTH, over="session 3h"),
    "spent": Computed("sum", WHO, of="buy", value="price"),
    "spent_2d": Computed("sum", BRAND, value="price", over="2d"),
    "spent_last": Computed("sum", WHO, of="buy", value="price", over="last 3"),
    "mean_price": Computed("mean", BRAND, of="buy", value="price", missing=-1),
    "mean_dwell": Computed("mean", WHO, value="dwell", over="last 3"),
    "mean_click": Computed("mean", WHO, value="click", over="last 10", missing=0.5),
    "mean_dwell_1d": Computed("mean", BOTH, value="dwell", over="1d"),
    "click_rate": Computed("rate", WHO, of="click"),
    "buy_rate": Computed("rate", BRAND, of="buy", start=0.05, strength=5),
    "buy_per_click": Computed("rate", WHO, of="buy", among="click"),
    "own_rate": Computed("rate", BOTH, of="click", prior="click_rate", over="6h"),
    "deep_rate": Computed("rate", ("who", "what"), of="click", prior="own_rate"),
    "dwell_share": Computed("rate", WHO, value="price", among="dwell", prior="0.3", strength=100),
    "bought_share": Computed("rate", WHO, of="buy", value="price", among="dwell"),
    "last_click": Computed("last", WHO, value="click", missing=0.25),
    "last_brand": Computed("last", WHO, value="brand"),
    "last_bought": Computed("last", BRAND, of="buy", value="what"), "last_dwell": Computed("last", BOTH, value="dwell"),
    "idle": Computed("age", WHO), "buy_age": Computed("age", BOTH, of="buy", missing=99),
    "brands": Computed("distinct", WHO, value="brand"), "bought": Computed("distinct", WHO, of="buy", value="what"),
    "brands_1d": Computed("distinct", WHO, value="what", over="1d"),
    "clicked_5": Computed("distinct", WHO, of="click", value="what", over="last 5"),
    "same_brand": Computed("same", WHO, value="brand"),
    "same_item_3": Computed("same", WHO, value="what", over="last 3"),
    "same_bought": Computed("same", WHO, of="buy", value="brand", over="last 2"),
    "seen": (Computed("sequence", WHO, value="what"), 4),
    "wanted": (Computed("sequence", WHO, of="buy", value="brand"), 3),
}
LOGS = {
    "plain": lambda: random_log(0), "no older": lambda: random_log(1, older=0),
    "ties": lambda: random_log(2, moments=8),
    "many days": lambda: random_log(3, days=9, rows=220),
}


def check(found, log, schema, rows=None):
    assert sorted(found) == [e["row"] for e in log if e["split"] is not None]
    for e in log:
        if e["split"] is not None and (rows is None or e["row"] in rows):
            for name, value in reference(log, e, schema).items():
                wanted = value if isinstance(value, list | str) else pytest.approx(value, rel=1e-12, abs=1e-12)
                assert found[e["row"]][name] == wanted, (name, e)


@pytest.mark.parametrize("name", LOGS)
def test_every_kind_is_what_it_says(name):
    log, schema = LOGS[name](), schema_of(EVERY)
    found = compute(log, schema)
    check(found, log, schema)
    if name == "plain":  # the log tells each feature from a constant
        for feature in EVERY:
            assert len({str(row[feature]) for row in found.values()}) > 1, feature


@pytest.mark.parametrize("computed", [
    Computed("mean", WHO, value="buy"), Computed("mean", WHO, of="click", value="buy"),
    Computed("last", WHO, value="price"), Computed("distinct", WHO, of="click", value="price"),
])
def test_what_is_not_known_of_an_event_is_not_read_of_it(computed):
    """Else a click that will never be paid for would count at once, and one that will be only later."""
    with pytest.raises(UserError, match="must be of events that are known at 'bought_at', too.*Received: of:"):
        compute(random_log(0, rows=5), schema_of({"own": computed}))


def test_whether_there_is_a_number_may_not_be_known_yet():
    """A share of an amount that is missing where nothing came: what is below must not tell that it will."""
    log = [e | {"price": e["price"] or None, "split": e["split"] or "d0", "tab": 0} for e in random_log(5, older=0)]
    schema = schema_of({"own": Computed("rate", WHO, value="price", among="dwell", prior="0.3", strength=100)})
    before = compute(log, schema)
    now = max(e["ts"] for e in log)
    changed = [e | {"buy": 1, "price": 5.0, "bought_at": now + HOUR} if not e["buy"] else e for e in log]
    assert compute(changed, schema) == before and len({str(row) for row in before.values()}) > 20


COMPUTED = st.one_of(
    st.builds(Computed, st.just("count"), st.sampled_from([WHO, BRAND, BOTH]),
              st.sampled_from(["exposures", "click", "buy"]),
              over=st.sampled_from(["all", "1s", "1h", "3h", "2d"])),
    st.builds(Computed, st.just("mean"), st.sampled_from([WHO, BRAND, BOTH]), st.sampled_from(["click", "buy"]),
              value=st.sampled_from(["dwell", "price", "what"]), over=st.sampled_from(["all", "2h", "last 2"]),
              ).filter(lambda c: c.value != "price" or c.of == "buy"),  # a price is known of purchases only
    st.builds(Computed, st.just("distinct"), st.sampled_from([WHO, BRAND]),
              st.sampled_from(["exposures", "click", "buy"]),
              value=st.sampled_from(["what", "brand", "tab"]), over=st.sampled_from(["all", "5h", "last 4"])),
    st.builds(Computed, st.just("same"), st.sampled_from([WHO, BOTH]), st.sampled_from(["exposures", "buy"]),
              value=st.sampled_from(["what", "tab"]), over=st.sampled_from(["all", "last 4"])),
    st.builds(Computed, st.just("rate"), st.sampled_from([WHO, BOTH]), st.sampled_from(["click", "buy"]),
              among=st.sampled_from(["", "click"]), over=st.sampled_from(["all", "2h", "1d"])),
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(COMPUTED, min_size=1, max_size=4), st.integers(0, 99))
def test_any_features_of_any_log(features, seed):
    log = [e | {"tab": e["tab"] or 0} for e in random_log(seed, rows=30, moments=12)]
    schema = schema_of({f"f{n}": c for n, c in enumerate(features)})
    check(compute(log, schema), log, schema)


def test_a_run_that_goes_on_from_a_snapshot_computes_the_same(tmp_path):
    log, schema = LOGS["many days"](), schema_of(EVERY)
    whole = compute(log, schema, tmp_path / "whole")
    late = [e for e in log if day_of(e) <= "d2" and any(known_at(e, c) > START + 3 * 24 * HOUR for c in KNOWN)]
    assert late  # some feedback of the first days is known only in the days that are added
    compute([e for e in log if day_of(e) <= "d2"], schema, tmp_path / "first")
    rest = compute([e for e in log if day_of(e) > "d2"], schema, tmp_path / "rest", tmp_path / "first", "d3")
    assert rest == {row: found for row, found in whole.items() if row in rest} and len(rest) > 60


@pytest.mark.parametrize("seed", range(4))
def test_no_feature_of_a_row_depends_on_an_outcome_that_is_not_known_before_it(seed):
    """Every outcome that is known at t or later changes, and so do the exposures at t and later; no row at t does."""
    rng = np.random.default_rng(seed)
    log, schema = random_log(seed + 20, rows=200), schema_of(EVERY)
    before = compute(log, schema)
    moments = sorted({e["ts"] for e in log if e["split"]})
    for now in (moments[len(moments) // 3], moments[len(moments) // 2], moments[-3]):
        changed = copy.deepcopy(log)
        mutated = 0
        for e in changed:
            if e["ts"] >= now and day_of(e) > day_of(log[0]):
                e["what" if e["ts"] > now else "dwell"] = 3
            if known_at(e, "buy") >= now and e["buy"]:  # the purchase never comes, or comes later
                e["bought_at"] += int(rng.integers(1, HOUR))
                e["price"] += 1
                mutated += 1
                if rng.random() < 0.5:
                    e |= {"buy": 0, "bought_at": None, "price": 0.0}
            elif not e["buy"] and rng.random() < 0.3:  # or one comes that nobody knew of
                e |= {"buy": 1, "bought_at": max(now, e["ts"]) + int(rng.integers(0, HOUR)), "price": 5.0}
                mutated += 1
            if known_at(e, "dwell") >= now:  # what is still playing may play longer, and be clicked
                e["dwell"] += float(rng.integers(0, 1000))
                e["click"] = 1 - e["click"]
                mutated += 1
        after = compute(changed, schema)
        rows = [e["row"] for e in log if e["split"] is not None and e["ts"] <= now]
        assert mutated > 20 and len(rows) > 20
        for row in rows:
            if log[row]["ts"] < now or changed[row]["what"] == log[row]["what"]:
                assert after[row] == before[row], row
        later = [e["row"] for e in log if e["split"] is not None and e["ts"] > now]
        assert any(after[row] != before[row] for row in later)  # the comparison can fail


def exposed(row, after, **changes):
    """An exposure so many milliseconds after the start, without feedback."""
    return {"row": row, "split": "d0", "ts": START + after, "who": "u", "what": 0, "brand": "a", "tab": 0, "click": 0,
            "buy": 0, "price": 0.0, "dwell": 0.0, "bought_at": None} | changes


@pytest.mark.parametrize("dwell", [5.0, 6.0])
def test_what_a_rate_is_among_is_not_read_before_it_is_known(dwell):
    """The dwell time is known only after 5 s, so the price, known after 1 ms, cannot be compared with it earlier."""
    share = Computed("rate", WHO, value="price", among="dwell", prior="0.3", strength=100)
    log = [exposed(0, 0, buy=1, price=8.0, dwell=dwell, bought_at=START + 1), exposed(1, 2000), exposed(2, 9000)]
    found = compute(log, schema_of({"share": share}))
    assert [found[row]["share"] for row in (0, 1, 2)] == [0.3, 0.3, (dwell + 30) / (dwell + 100)]


def test_a_rate_of_numbers_passes_over_rows_without_one_of_them():
    """Such a row has a rate of its own, and counts neither above nor below."""
    share = Computed("rate", WHO, value="what", among="tab", prior="0.5", strength=2)
    log = [exposed(0, 0, what=4, tab=None), exposed(1, 1000, what=3, tab=4), exposed(2, 2000, what=9, tab=None)]
    found = compute(log, schema_of({"share": share}))
    assert [found[row]["share"] for row in (0, 1, 2)] == [0.5, 0.5, (3 + 1) / (4 + 2)]
