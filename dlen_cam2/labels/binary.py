"""Binary tasks: feedback that happens or does not, such as a click, a like or a purchase."""

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2 import metrics
from dlen_cam2.labels.kind import Kind
from dlen_cam2.parts import label
from dlen_cam2.schema import Task


@label("binary")
@dataclasses.dataclass
class Binary(Kind):
    """The kind of task whose label is 0 or 1. z is a logit, the prediction is σ(z), and the loss its cross-entropy:

        ℓ = -y log σ(z) - (1 - y) log(1 - σ(z))

    DESIGN: z starts at the logit of the task's positive rate.
    """

    binary = True

    def start(self, task: Task) -> float:
        return task.positive_rate

    def losses(self, y: tf.Tensor, z: tf.Tensor, task: Task) -> tf.Tensor:
        return tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(y, z.dtype), z)

    def predictions(self, z: tf.Tensor, task: Task) -> tf.Tensor:
        return tf.sigmoid(z)

    def constant_loss(self, task: Task) -> float | None:
        q = task.positive_rate
        return -(q * math.log(q) + (1 - q) * math.log(1 - q)) if 0 < q < 1 else None

    def metrics(self, y: np.ndarray, p: np.ndarray, users: np.ndarray, bootstrap: int, seed: int) -> dict[str, Any]:
        return metrics.task_metrics(y, p, users, bootstrap, seed)
