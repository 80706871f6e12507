"""Features that know a label too well."""

import numpy as np
import pytest

from pipelines import check
from pipelines.checks import leaks
from pipelines.writer.stored_rows import Column
from tests.support.checked_sets import HOSTILE, faults, statuses, tables, write

pytestmark = pytest.mark.usefixtures("unread")


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


def test_rare_tasks_are_not_measured(tmp_path):
    columns = tables()
    for c in columns.values():
        c["share"] = (np.cumsum(c["click"]) * c["click"] <= 6) * c["click"]  # 18 positives, all told by their place
    report = check.check(write(tmp_path / "set", columns))
    assert "share" not in report.aucs and "click" in report.aucs
    assert "too few positives or negatives of share" in faults(report, "leak suspects")


def test_leaks_are_sought_in_the_first_rows_of_each_split(clean, monkeypatch):
    monkeypatch.setattr(leaks, "ROWS", 301)
    report = check.check(clean)
    assert report.sampled == 300 and "300 rows (the first of each split)" in faults(report, "leak suspects")


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
