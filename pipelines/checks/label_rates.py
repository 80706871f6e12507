"""Checks of the rows and positives of each task against the statistics and against other days."""

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from dlen_cam2 import data
from dlen_cam2.data import suffix
from dlen_cam2.schema import Schema, Task
from pipelines.checks.findings import WARN, Report
from pipelines.writer.stored_rows import Split

RATE_Z = 6.0  # standard errors, and relative change, by which a day's label rate departs from the other days'
RATE_CHANGE = 0.5


def count(report: Report, schema: Schema, name: str, split: Split, entry: Mapping[str, Any],
           wrong: list[str]) -> None:
    """Compare rows and positives with the statistics, which set every model's base rates."""
    if split.rows != entry["rows"]:
        wrong.append(f"{name} has {split.rows:,} rows, not {entry['rows']:,}")
    for task in schema.tasks:
        label = split.columns[task.label].values if split.rows else np.zeros(0, np.int64)
        mask = split.columns[task.mask].values if split.rows and task.mask else np.ones_like(label)
        if task.is_number:
            _count_numbers(name, task, label[mask == 1], (entry.get("tasks") or {}).get(task.name), wrong)
            continue
        counts = {"rows": int(mask.sum()), "positives": int((label * mask).sum())}
        report.rates.setdefault(task.name, {})[name] = (counts["rows"], counts["positives"])
        said = (entry.get("tasks") or {}).get(task.name)
        if said != counts:
            wrong.append(f"{name}, task {task.name!r}: {counts}, but {data.STATISTICS} says {said}")


def _count_numbers(name: str, task: Task, label: np.ndarray, said: Any, wrong: list[str]) -> None:
    """The same for a regression task: rows and sum."""
    rows, total = len(label), float(label.sum(dtype=np.float64))
    right = isinstance(said, dict) and said.get("rows") == rows and math.isclose(
        said.get("sum", math.nan), total, rel_tol=1e-9, abs_tol=1e-6)
    if not right:
        wrong.append(
            f"{name}, task {task.name!r}: {rows:,} rows with the sum {total:g}, but {data.STATISTICS} says {said}")


def departs(rows: int, positives: int, other_rows: int, other_positives: int) -> bool:
    """Whether a day's rate departs from the pooled rate of the other days.

        z = (r - r_o) / sqrt(r_p (1 - r_p) (1 / n + 1 / n_o)),  r_p the rate of all days

    It does if |z| > 6 and |r / r_o - 1| > .5. The rows of a user or an hour are not independent, so with many rows even
    a small change is beyond chance; the second condition requires that it also matters.
    """
    if not rows or not other_rows:
        return False
    rate, other = positives / rows, other_positives / other_rows
    pooled = (positives + other_positives) / (rows + other_rows)
    error = math.sqrt(pooled * (1 - pooled) * (1 / rows + 1 / other_rows))
    return abs(rate - other) > RATE_Z * error and abs(rate - other) > RATE_CHANGE * other


def check(report: Report, small: Collection[str]) -> None:
    """Report days that depart. Days too small for drift are skipped: ten minutes at midnight have special rates."""
    faults, compared = [], 0
    for task, days in report.rates.items():
        days = {name: counts for name, counts in days.items() if name not in small}
        for name, (rows, positives) in days.items():
            others = [c for n, c in days.items() if n != name and suffix(n) == suffix(name)]
            other_rows, other_positives = sum(r for r, _ in others), sum(p for _, p in others)
            compared += bool(rows and other_rows)
            if departs(rows, positives, other_rows, other_positives):
                other = other_positives / other_rows
                faults.append(f"{task!r} on {name}: {positives / rows:.4f}, on other days {other:.4f}")
    if compared:
        report.add("label rates", WARN, f"{compared} rates were compared with those of the other days", faults)
    else:
        report.unchecked("label rates", "no task has two readable splits of one suffix")
