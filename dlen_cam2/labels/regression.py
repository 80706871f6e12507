"""Regression tasks: a number, such as watch time, dwell time or the price paid."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2 import metrics
from dlen_cam2.labels.kind import Kind
from dlen_cam2.parts import label
from dlen_cam2.schema import Task


@label("regression")
@dataclasses.dataclass
class Regression(Kind):
    """The kind of task whose label is a finite number. z is the prediction in standard deviations s from the mean m,
    both over the training days' rows in the task's sample space. The loss is half the squared error, in units of s:

        ŷ = m + s z        ℓ = (y - ŷ)² / (2 s²)

    DESIGN, all of it: z starts at 0, where the mean loss is 1/2. A task in seconds and one in cents therefore weigh the
    same, and about as much as a binary task whose rate is about .2.
    """

    def start(self, task: Task) -> float:
        return 0.5

    def losses(self, y: tf.Tensor, z: tf.Tensor, task: Task) -> tf.Tensor:
        return 0.5 * tf.square((tf.cast(y, z.dtype) - task.mean) / task.std - z)

    def predictions(self, z: tf.Tensor, task: Task) -> tf.Tensor:
        return task.mean + task.std * z

    def constant_loss(self, task: Task) -> float | None:
        return 0.5

    def metrics(self, y: np.ndarray, p: np.ndarray, users: np.ndarray, bootstrap: int, seed: int) -> dict[str, Any]:
        return metrics.regression_metrics(y, p, users, bootstrap, seed)
