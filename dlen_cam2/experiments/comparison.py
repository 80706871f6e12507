"""The models of a table against each other: every metric in every draw of users."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from dlen_cam2.evaluation.bootstrap import Estimate, Resamples
from dlen_cam2.experiments.rows import Measured
from dlen_cam2.utils import console

METRICS = {"auc": "AUC", "gauc": "GAUC", "ne": "NE", "calibration": "calibration"}
# Metrics of which less is better; PLE's eq 11 is reversed for them.
SMALLER = ("ne",)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Measured models, and the draws that all comparisons share.

    Attributes:
        measured: the rows and the models' predictions.
        baseline: the model that others are compared with.
        single: the row of single-task models, "" if the table has none.
        resamples: {task: the draws of its rows' users}.
        values: {model: {task: {metric: (seeds, draws)}}}; the first draw is all rows.
    """

    measured: Measured
    baseline: str
    single: str
    resamples: dict[str, Resamples]
    values: dict[str, dict[str, dict[str, np.ndarray]]]

    @property
    def models(self) -> Sequence[str]:
        return list(self.values)

    def level(self, model: str, task: str, metric: str) -> np.ndarray:
        """(seeds,) of the metric on all rows; NaN where it is undefined."""
        return self.values[model][task][metric][:, 0]

    def difference(self, model: str, other: str, task: str, metric: str) -> Estimate:
        """`metric(model) - metric(other)`, paired by users and seeds."""
        return self.resamples[task].difference(self.values[model][task][metric], self.values[other][task][metric])

    def gain(self, model: str, task: str, metric: str) -> Estimate:
        """MTL gain over the task's own model: `M_mtl - M_single`, for NE `M_single - M_mtl` (PLE, eq 11)."""
        first, second = (self.single, model) if metric in SMALLER else (model, self.single)
        return self.difference(first, second, task, metric)


def compare(measured: Measured, baseline: str, single: str = "", resamples: int = 200) -> Comparison:
    """Compute every metric in every draw; a task is measured on its own sample space."""
    draws = Resamples.draw(measured.users, resamples)
    spaces = dict(zip(measured.tasks, measured.mask.T == 1, strict=True))
    by_task = {task: draws.of(rows) for task, rows in spaces.items()}
    values: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    with console.Progress("intervals", len(measured.probabilities), "models") as progress:
        for model, probabilities in measured.probabilities.items():
            values[model] = {}
            for k, (task, rows) in enumerate(spaces.items()):
                found = [by_task[task].metrics(measured.labels[rows, k], p[rows, k]) for p in probabilities]
                values[model][task] = {metric: np.stack([f[metric] for f in found]) for metric in METRICS}
            progress.advance(said=model)
    return Comparison(measured, baseline, single, by_task, values)
