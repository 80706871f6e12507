"""Rows that stand there twice."""

import dataclasses

import pytest

from pipelines import check
from tests.support.checked_sets import DAYS, SCHEMA, faults, forge, shard, statuses, tables, write

pytestmark = pytest.mark.usefixtures("unread")


@pytest.mark.parametrize("again, status", [(2, "WARN"), (18, "WARN"), (19, "FAIL")])
def test_identical_records_fail_above_a_hundredth_and_same_keys_warn(clean, again, status):
    forge(shard(clean), lambda records: [*records[:-again], *[records[0]] * again])
    report = check.check(clean)
    assert statuses(report)["identical records"] == status
    assert f"{again} of 1,800 rows repeat an earlier one; {again} on {DAYS[1]}" in faults(report, "identical records")
    assert statuses(report)["same keys"] == "WARN"


def test_without_times_equal_records_are_a_warning(tmp_path):
    """A user who sees an item twice, with the same values both times, is no fault of a log that has no times."""
    schema = dataclasses.replace(SCHEMA, keys={"user": "user", "item": "item"})
    columns = {day: {name: list(values) for name, values in found.items() if name != "ms"}
               for day, found in tables().items()}
    for values in columns[DAYS[1]].values():
        values[1:100] = [values[0]] * 99
    report = check.check(write(tmp_path / "set", columns, schema))
    assert statuses(report)["identical records"] == "WARN"
    assert "99 of 1,800 rows repeat an earlier one" in faults(report, "identical records")


def test_same_keys_alone_do_not_fail(tmp_path):
    columns = tables()
    for name in ("user", "item", "ms"):
        columns[DAYS[2]][name][5] = columns[DAYS[0]][name][3]
    report = check.check(write(tmp_path / "set", columns))
    assert statuses(report) == {"same keys": "WARN"} and not report.failed
    assert f"1 of 1,800 rows repeat an earlier one; 1 on {DAYS[2]}" in faults(report, "same keys")
