"""Features that moved, and what is too small to be compared."""

import math
import re

import numpy as np
import pyarrow as pa
import pytest

from pipelines import check
from pipelines.checks import html_page
from pipelines.checks.distribution_shift import Bins, by_chance, psi
from pipelines.writer.stored_rows import Column
from tests.support.checked_sets import DAYS, ROWS, faults, statuses, tables, write

pytestmark = pytest.mark.usefixtures("unread")


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
    assert re.fullmatch(rf"'city' on {DAYS[2]}: [0-9.]+ against {DAYS[0]} \(above the limit on 1 of 2 splits\)", city)
    above = rf"above the limit on 2 of 2 splits, first on {DAYS[1]}"
    assert re.fullmatch(rf"'count' on {DAYS[2]}: [0-9.]+ against {DAYS[0]} \({above}\)", count)


def test_a_first_and_a_last_day_of_few_rows_are_not_compared(tmp_path):
    columns, few = tables(), {"20231231": 141, "20240104": 100}
    for day, rows in few.items():
        columns[day] = {n: c[:rows] for n, c in tables()[DAYS[0]].items()} | {
            "city": ["c"] * rows, "click": np.ones(rows, int), "ms": int(day) * 1000 + np.arange(rows)}
    columns = dict(sorted(columns.items()))
    report = check.check(write(tmp_path / "set", columns))
    assert statuses(report) == {} and report.references == {"": DAYS[0]}
    assert set(report.psi["count"]) == set(DAYS[1:])
    small = "left out as too small: 20231231 (141 rows), 20240104 (100 rows)"
    assert f"against {DAYS[0]} with the limit 0.25; {small}" in faults(report, "drift")
    assert f"against {DAYS[0]}, the first split" in html_page.render(report)
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
