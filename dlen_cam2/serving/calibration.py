"""Monotone maps from a task's logit to a calibrated logit: fitted on a day of logs, applied in the served graph."""

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit, logit

from dlen_cam2.evaluation import Predictions
from dlen_cam2.labels.kind import binary
from dlen_cam2.schema import Schema
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import read_json, write_json

ENOUGH = 20  # positives, and negatives, of a task or of a knot: the log-odds of 20 are known to about 1/sqrt(20) = 0.22
KNOTS = 64  # of a task at most: finer steps than a day's noise, and the served table stays within a few kilobytes

Knots = tuple[tuple[float, ...], tuple[float, ...]]


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A strictly increasing, piecewise linear map of logits for each task:

        f(x) = y_j + (y_{j+1} - y_j) / (x_{j+1} - x_j) (x - x_j)     for x_j <= x < x_{j+1}

    The first and the last segment continue beyond the knots, so f is continuous and unbounded, and it keeps the order
    of all rows: AUC does not change, except for rows that float32 can no longer tell apart.

    Attributes:
        method: "isotonic" or "platt", see `fit`.
        day: the day on which it was fitted.
        knots: {task: (xs, ys)}, logits; both strictly increasing, at least two. Other tasks stay as they are.

    Raises:
        UserError: an attribute breaks these rules; the message names the task.
    """

    method: str
    day: str
    knots: Mapping[str, Knots]

    def __post_init__(self) -> None:
        if self.method not in list(METHODS):
            raise UserError(f"method must be one of {list(METHODS)}. Received: {self.method!r}.")
        if not isinstance(self.day, str):
            raise UserError(f"day must be a string. Received: {self.day!r}.")
        for task, pair in self.knots.items():
            if not _is_increasing(pair):
                raise UserError(
                    f"knots of task {task!r} must be [xs, ys], two lists of the same length, each of at least 2 "
                    "strictly increasing numbers between -1e6 and 1e6, with slopes up to 1e12. Received: "
                    f"{pair!r:.200}."
                )

    def save(self, path: str | os.PathLike) -> None:
        """Write the calibration as JSON."""
        write_json(path, dataclasses.asdict(self))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Calibration":
        """Read a calibration that `save` wrote. Raises `UserError` naming the file if it is missing or unusable."""
        values = read_json(path)
        names = [f.name for f in dataclasses.fields(cls)]
        if not isinstance(values, dict) or set(values) != set(names) or not isinstance(values["knots"], dict):
            raise UserError(
                f"{path} must be an object with the keys {names}, of which knots is an object. Received: "
                f"{values!r:.200}."
            )
        try:
            calibration = cls(**values)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        knots = {task: (tuple(xs), tuple(ys)) for task, (xs, ys) in calibration.knots.items()}
        return dataclasses.replace(calibration, knots=knots)

    def __call__(self, logits: tf.Tensor, tasks: Sequence[str]) -> tf.Tensor:
        """Calibrate logits, (B, T) -> (B, T) of the same type, for the columns `tasks`, all tasks at once."""
        if not any(task in self.knots for task in tasks):
            return logits
        table = tf.constant(self._segments(tasks), logits.dtype)
        x = tf.transpose(logits)
        place = tf.searchsorted(table[:, 1:, 0], x, side="right")
        start, value, slope = tf.unstack(tf.gather(table, place, batch_dims=1), axis=-1)
        return tf.transpose(value + slope * (x - start))

    def _segments(self, tasks: Sequence[str]) -> np.ndarray:
        """The segments (T, K, 3): where each starts, its value there and its slope; one segment from every knot on.

        Tasks with fewer knots than K repeat their last segment; a task without knots has y = x throughout.
        """
        most = max(len(self.knots[task][0]) for task in tasks if task in self.knots)
        table = np.tile([0.0, 0.0, 1.0], (len(tasks), most, 1))
        for row, task in zip(table, tasks, strict=True):
            if task in self.knots:
                xs, ys = np.array(self.knots[task])
                slopes = np.diff(ys) / np.diff(xs)
                segments = np.stack([xs, ys, np.append(slopes, slopes[-1])], axis=1)
                row[:] = np.pad(segments, [(0, most - len(xs)), (0, 0)], mode="edge")
        return table

    def apply(self, predictions: Predictions, tasks: Sequence[str]) -> Predictions:
        """The predictions with calibrated `probabilities` (N, `tasks`), in float64 so that no two rows tie.

        `serving` is unchanged.
        """
        mapped = [k for k, task in enumerate(tasks) if task in self.knots]
        if not mapped:
            return predictions
        found = np.array(predictions.probabilities, np.float64)
        logits = self(tf.constant(_logit(predictions.probabilities[:, mapped])), [tasks[k] for k in mapped])
        found[:, mapped] = expit(logits.numpy())
        return dataclasses.replace(predictions, probabilities=found)


def fit(predictions: Predictions, schema: Schema, method: str, day: str) -> Calibration:
    """Fit a calibration of every task on the rows of its sample space.

    isotonic: the best non-decreasing fit of the labels to the score (pool adjacent violators). DESIGN: neighbouring
        blocks are pooled further until each has 20 positives and 20 negatives, so that no step comes from a few rows
        and no rate is 0 or 1. A block becomes a knot at (logit of its mean probability, logit of its rate), so that a
        calibrated score does not change. (The block's mean logit is lower, as σ is convex for rare labels: in a wide
        block it made P(k) of a rare task twice as high as the truth.) Beyond the first and the last knot the slope is
        1.
    platt: σ(a logit + b) by maximum likelihood. DESIGN: 0.01 <= a <= 100, so that f is increasing and finite even for
        a score that ranks backwards or separates the classes; the labels are not smoothed as in Platt 1999.

    DESIGN: a task with fewer than 20 positives or 20 negatives on the day has no knots; neither has a regression task.

    Args:
        predictions: the rows of a day that the model was not trained on.
        schema: the schema of the model.
        method: "isotonic" or "platt".
        day: the day's name.

    References:
        Zadrozny and Elkan 2002, "Transforming classifier scores into accurate multiclass probability estimates".
        Platt 1999, "Probabilistic outputs for support vector machines".
    """
    knots = {}
    for column in binary(schema):
        task = schema.task_names[column]
        rows = predictions.mask[:, column] == 1
        labels = predictions.labels[rows, column].astype(np.float64)
        if min(labels.sum(), (1 - labels).sum()) >= ENOUGH:
            xs, ys = METHODS[method](labels, predictions.probabilities[rows, column].astype(np.float64))
            knots[task] = (tuple(map(float, xs)), tuple(map(float, ys)))
    return Calibration(method, day, knots)


def _isotonic(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, place, rows = np.unique(probabilities, return_inverse=True, return_counts=True)
    positives = np.bincount(place, labels)
    starts = isotonic_regression(positives / rows, weights=rows).blocks[:-1]
    blocks = np.add.reduceat(np.stack([positives, rows - positives, values * rows], axis=1), starts)
    rarer = min(labels.sum(), (1 - labels).sum())
    enough = max(ENOUGH, math.ceil(rarer / (KNOTS - 2)))
    pooled = [np.zeros(3)]
    for block in blocks:
        if min(pooled[-1][:2]) >= enough:
            pooled.append(np.zeros(3))
        pooled[-1] += block
    if min(pooled[-1][:2]) < enough and len(pooled) > 1:
        last = pooled.pop()
        pooled[-1] += last
    positives, negatives, predicted = np.array(pooled).T
    xs, ys = _logit(predicted / (positives + negatives)), np.log(positives / negatives)
    distinct = np.diff(ys, prepend=-np.inf) > 0  # not where rounding alone told equal rates apart
    xs, ys = xs[distinct], ys[distinct]
    return np.array([xs[0] - 1, *xs, xs[-1] + 1]), np.array([ys[0] - 1, *ys, ys[-1] + 1])


def _platt(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x = _logit(probabilities)

    def loss(ab: np.ndarray) -> tuple[float, np.ndarray]:
        z = ab[0] * x + ab[1]
        residual = expit(z) - labels
        return np.mean(np.logaddexp(0, z) - labels * z), np.array([np.mean(residual * x), np.mean(residual)])

    found = minimize(
        loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=[(0.01, 100), (None, None)],
        options={"ftol": 0, "gtol": 1e-9},
    )
    a, b = found.x
    return np.array([0.0, 1.0]), np.array([b, a + b])


METHODS: dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "isotonic": _isotonic, "platt": _platt,
}


def _logit(probabilities: np.ndarray) -> np.ndarray:
    """The float64 logits of float32 probabilities, of which 0 and 1 are placed beyond the nearest other number."""
    return logit(np.clip(probabilities.astype(np.float64), 2.0**-150, 1 - 2.0**-25))


def _is_increasing(pair: Any) -> bool:
    """Whether `pair` is valid as the knots of a task."""
    if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(v, list | tuple) for v in pair)):
        return False
    numbers = all((type(v) is int or isinstance(v, float)) and -1e6 <= v <= 1e6 for values in pair for v in values)
    if not numbers or not len(pair[0]) == len(pair[1]) >= 2:
        return False
    run, rise = np.diff(np.array(pair, np.float64))
    return bool(np.all(run > 0) and np.all(rise > 0) and np.all(rise <= 1e12 * run))
