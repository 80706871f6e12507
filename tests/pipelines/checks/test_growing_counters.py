"""Counts that grow while a log goes on."""

import math

import numpy as np
import pytest

from dlen_cam2.schema import Feature, Schema
from pipelines import check
from pipelines.checks.growing_counters import grows, levels, natural
from tests.support.checked_sets import DAYS, SCHEMA, faults, statuses, tables, write

pytestmark = pytest.mark.usefixtures("unread")


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
