"""Label rates that depart from other days'."""

import numpy as np
import pytest

from pipelines import check
from pipelines.checks.label_rates import departs
from tests.support.checked_sets import DAYS, ROWS, edit, faults, forge, shard, statuses, tables, write

pytestmark = pytest.mark.usefixtures("unread")


def test_counts_that_do_not_match(clean):
    forge(shard(clean), lambda records: records[:-1])
    report = check.check(clean)
    assert report.failed and statuses(report) == {"counts": "FAIL", "shard files": "FAIL"}
    found = f"{DAYS[1]}: _SUCCESS, its shards and statistics.json have different numbers of rows"
    assert found in faults(report, "shard files")
    assert f"{DAYS[1]} has 599 rows, not 600" in faults(report, "counts")
    edit(clean / "statistics.json", lambda content: content["days"][DAYS[0]].update(rows=7))
    assert "600 rows, not 7" in faults(check.check(clean), "counts")


def test_a_jump_of_a_label_rate_is_named(tmp_path):
    columns = tables()
    columns[DAYS[2]]["click"] = (np.arange(ROWS) % 10 < 7).astype(int)
    report = check.check(write(tmp_path / "set", columns))
    assert statuses(report) == {"label rates": "WARN"} and not report.failed
    assert f"'click' on {DAYS[2]}: 0.7000" in faults(report, "label rates")


@pytest.mark.parametrize("counts, expected", [
    ((1000, 200, 1000, 100), True),  # z = 6.26, twice the rate
    ((1000, 190, 1000, 100), False),  # z = 5.72
    ((100_000, 14_000, 100_000, 10_000), False),  # z = 27, but a change of 40% only
    ((1000, 0, 1000, 100), True), ((1000, 100, 1000, 0), True), ((9, 0, 9, 0), False), ((9, 9, 9, 9), False),
    ((0, 0, 9, 1), False), ((9, 1, 0, 0), False),
])
def test_the_rule_for_rates(counts, expected):
    assert departs(*counts) is expected
