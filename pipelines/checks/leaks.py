"""Finds leaks by how well a single raw feature predicts a label: a feature that knows it too well has seen it.

There are two rules: the AUC of a feature over all rows, and (`pure_values`) values whose few rows have one label.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from dlen_cam2.schema import Schema
from pipelines.checks import pure_values
from pipelines.checks.coded_column import Coded
from pipelines.checks.findings import FAIL, Report
from pipelines.writer.stored_rows import Column

ROWS = 200_000  # of the data set that are looked at
LEAST = 20  # positives, and negatives, that a task must have
SMOOTHING = 10.0  # rows at the base rate that are added to every value
_SHOWN = 20  # on the line: each is a decision to make


def search(schema: Schema, sample: Mapping[str, Column]) -> tuple[dict[str, dict[str, float]], list[pure_values.Pure]]:
    """The AUC of each single feature, by task, and the values that give a label away where the whole feature does not.

    Tasks with fewer than 20 positives or negatives are left out. For a regression task, such as watch seconds, the rows
    above its median count as positives.

    Args:
        schema: features and tasks; a task is measured on the rows of its sample space.
        sample: the rows to examine, with every column of the schema.
    """
    labels = {t.name: sample[t.label].values for t in schema.tasks}
    spaces = {t.name: sample[t.mask].values == 1 if t.mask else np.ones(len(labels[t.name]), bool)
              for t in schema.tasks}
    for task in schema.tasks:
        if task.is_number:
            y = labels[task.name]
            labels[task.name] = (y > np.median(y[spaces[task.name]] if spaces[task.name].any() else y)).astype(np.int64)
    tasks = [t for t in schema.tasks if min(np.bincount(labels[t.name][spaces[t.name]], minlength=2)) >= LEAST]
    aucs: dict[str, dict[str, float]] = {t.name: {} for t in tasks}
    pure = []
    spread = pure_values.Spread(schema, sample)
    for feature in schema.features if tasks else ():
        coded = Coded(sample[feature.name])
        for task in tasks:
            y, rows = labels[task.name], spaces[task.name]
            area = (_ordered_auc if feature.is_numeric else _coded_auc)(coded, y, rows)
            if area is not None:
                aucs[task.name][feature.name] = area
            found = pure_values.pure(feature, coded, task, y, rows, spread)
            if found:
                pure.append(found)
    return aucs, pure


def faults(aucs: Mapping[str, Mapping[str, float]], pure: Sequence[pure_values.Pure], limit: float) -> list[str]:
    """One text for each feature that knows a label too well: first those with an AUC above `limit`.

    A value that gives away several tasks, such as a click and the purchase after it, is reported for the task of which
    it covers most.
    """
    known: dict[str, list[tuple[float, str]]] = {}
    for area, feature, task in sorted(((a, f, t) for t, found in aucs.items() for f, a in found.items()), reverse=True):
        if area > limit:
            known.setdefault(feature, []).append((area, task))
    texts = [f"{f!r} alone has " + ", ".join(f"AUC {a:.4f} for {t!r}" for a, t in found) for f, found in known.items()]
    given: dict[str, list[pure_values.Pure]] = {}
    for p in sorted(pure, key=lambda p: -p.covered):
        if p.feature not in known:
            given.setdefault(p.feature, []).append(p)
    for found in given.values():
        also = f", and of {', '.join(repr(p.task.name) for p in found[1:])}" if found[1:] else ""
        texts.append(found[0].text + also)
    return texts


def number_auc(values: np.ndarray, labels: np.ndarray) -> float | None:
    """The max(AUC, 1 - AUC) of the raw value, since a leak may point either way; None with one class only."""
    return _ordered_auc(Coded(Column(values)), labels, np.ones(len(labels), bool))


def _ordered_auc(coded: Coded, labels: np.ndarray, use: np.ndarray) -> float | None:
    area = _auc(coded.codes[use], labels[use], coded.size)
    return None if area is None else max(area, 1 - area)


def _auc(codes: np.ndarray, labels: np.ndarray, size: int) -> float | None:
    """The AUC of codes below `size`, from the negatives below each code and half of those that share it."""
    positives = np.bincount(codes[labels == 1], minlength=size)
    negatives = np.bincount(codes[labels == 0], minlength=size)
    if not (positives.any() and negatives.any()):
        return None
    below = np.cumsum(negatives) - 0.5 * negatives
    return float(positives @ below / (float(positives.sum()) * float(negatives.sum())))


def value_auc(column: Column, labels: np.ndarray, rows: np.ndarray | None = None) -> float | None:
    """The AUC of a categorical column by the positive rates of its values in other rows.

        rate(v) = (positives_v + 10 base) / (rows_v + 10)

    Rows are halved by the parity of their number. Each half is scored by the rates of the other half; a value that is
    missing there gets that half's base rate. The result is the mean of the two AUCs, so that a difference in base rates
    between the halves reveals nothing. A row of a list has the mean rate of its elements, and an empty list counts as a
    value. The result is None if a half has one class only.

    Args:
        column: int or bytes values.
        labels: (rows,) 0 or 1.
        rows: (rows,), the rows to use; default: all. The others keep their number.
    """
    return _coded_auc(Coded(column), labels, np.ones(len(labels), bool) if rows is None else rows)


def _coded_auc(coded: Coded, labels: np.ndarray, use: np.ndarray) -> float | None:
    odd = np.arange(len(labels)) % 2 == 1
    halves = []
    for scored in (use & odd, use & ~odd):
        rated = use & ~scored
        if not (scored.any() and rated.any()):
            return None
        pairs = rated[coded.rows]
        codes = coded.codes[pairs]
        positives = np.bincount(codes, labels[coded.rows[pairs]], coded.size)
        counts = np.bincount(codes, minlength=coded.size)
        rate = (positives + SMOOTHING * labels[rated].mean()) / (counts + SMOOTHING)
        sums = np.bincount(coded.rows, rate[coded.codes], len(labels))
        scores = sums / np.bincount(coded.rows, minlength=len(labels))
        known, ranks = np.unique(scores[scored], return_inverse=True)
        halves.append(_auc(ranks, labels[scored], len(known)))
    return None if None in halves else float(np.mean([h for h in halves if h is not None]))


def check(report: Report, schema: Schema, sample: Mapping[str, Column], limit: float) -> None:
    """Report features that know a label too well, on the rows of `sample`."""
    report.aucs, pure = search(schema, sample) if sample else ({}, [])
    report.sampled = len(sample[schema.tasks[0].label].values) if sample and schema.tasks else 0
    if not any(report.aucs.values()):
        report.unchecked("leak suspects", f"no task has {LEAST} positives and {LEAST} negatives")
        return
    best = sorted(((a, f, t) for t, found in report.aucs.items() for f, a in found.items()), reverse=True)
    left_out = [t.name for t in schema.tasks if t.name not in report.aucs]
    text = (f"on {report.sampled:,} rows (the first of each split), the best single feature is {best[0][1]!r} with AUC "
            f"{best[0][0]:.4f} for {best[0][2]!r}")
    if left_out:
        text += f"; too few positives or negatives of {', '.join(left_out)}"
    report.add("leak suspects", FAIL, text, faults(report.aucs, pure, limit), _SHOWN)
