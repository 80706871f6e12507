"""How well one raw feature alone tells a label: what knows the answer too well has seen it."""

from collections.abc import Mapping

import numpy as np

from dlen_cam2.metrics import auc
from dlen_cam2.schema import Schema
from pipelines.raw import Column

ROWS = 200_000  # of the data set that are looked at
LEAST = 20  # positives, and negatives, that a task must have
SMOOTHING = 10.0  # rows at the base rate that are added to every value


def single_feature_aucs(schema: Schema, sample: Mapping[str, Column]) -> dict[str, dict[str, float]]:
    """AUC of each feature alone, by task; tasks with fewer than 20 positives or negatives are left out.

    Args:
        schema: features and tasks; a task is measured on the rows of its sample space.
        sample: the rows to look at, every column of the schema.
    """
    labels = {t.name: sample[t.label].values for t in schema.tasks}
    spaces = {t.name: sample[t.mask].values == 1 if t.mask else np.ones(len(labels[t.name]), bool)
              for t in schema.tasks}
    tasks = [n for n, y in labels.items() if min(np.bincount(y[spaces[n]], minlength=2)) >= LEAST]
    found: dict[str, dict[str, float]] = {name: {} for name in tasks}
    for feature in schema.features:
        column = sample[feature.name]
        values = _Values(column) if tasks and not feature.is_numeric else None
        for name in tasks:
            y, rows = labels[name], spaces[name]
            result = number_auc(column.values[rows], y[rows]) if values is None else values.auc(y, rows)
            if result is not None:
                found[name][feature.name] = result
    return found


def number_auc(values: np.ndarray, labels: np.ndarray) -> float | None:
    """max(AUC, 1 - AUC) of the raw value, since a leak may point either way; None with one class only."""
    area = auc(labels, values)
    return None if area is None else max(area, 1 - area)


def value_auc(column: Column, labels: np.ndarray, rows: np.ndarray | None = None) -> float | None:
    """AUC of a categorical column by the positive rates of its values in other rows.

        rate(v) = (positives_v + 10 base) / (rows_v + 10)

    Rows are halved by the parity of their number. Either half is scored by the rates and the base rate of the other
    half, in which a value that it lacks has the base rate; the result is the mean of the two halves' AUC, so that a
    difference of their base rates tells nothing. A row of a list has the mean rate of its elements, and an empty list
    is a value. None if a half has one class only.

    Args:
        column: int or bytes values.
        labels: (rows,) 0 or 1.
        rows: (rows,) which to use; default all. The others keep their number.
    """
    return _Values(column).auc(labels, np.ones(len(labels), bool) if rows is None else rows)


class _Values:
    """A categorical column as pairs (row, code of a value), coded once for all tasks."""

    def __init__(self, column: Column):
        known, codes = np.unique(column.values, return_inverse=True)
        lengths = np.ones(len(codes), np.int64) if column.lengths is None else column.lengths
        empty = np.flatnonzero(lengths == 0)
        self.size = len(known) + 1  # the last is an empty list
        self.rows = np.concatenate([np.repeat(np.arange(len(lengths)), lengths), empty])
        self.codes = np.concatenate([codes, np.full(len(empty), len(known))])

    def auc(self, labels: np.ndarray, use: np.ndarray) -> float | None:
        odd = np.arange(len(labels)) % 2 == 1
        halves = []
        for scored in (use & odd, use & ~odd):
            rated = use & ~scored
            if not (scored.any() and rated.any()):
                return None
            pairs = rated[self.rows]
            codes = self.codes[pairs]
            positives = np.bincount(codes, labels[self.rows[pairs]], self.size)
            counts = np.bincount(codes, minlength=self.size)
            rate = (positives + SMOOTHING * labels[rated].mean()) / (counts + SMOOTHING)
            sums = np.bincount(self.rows, rate[self.codes], len(labels))
            scores = sums / np.bincount(self.rows, minlength=len(labels))
            halves.append(auc(labels[scored], scores[scored]))
        return None if None in halves else float(np.mean([h for h in halves if h is not None]))
