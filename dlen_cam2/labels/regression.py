"""Tasks that are a number: watch time, dwell time, the price paid."""

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
    """The label is a finite number, z is the prediction in standard deviations s from the mean m, both of the training
    days' rows in the task's sample space, and the loss is half the squared error there:

        ŷ = m + s z        ℓ = (y - ŷ)² / (2 s²)

    DESIGN, all of it: z starts at 0, where the mean loss is 1/2, so that a task in seconds and one in cents weigh
    alike, and like a binary one whose rate is about .2.
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
