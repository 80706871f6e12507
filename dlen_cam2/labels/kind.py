"""What every kind of task says of itself."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2 import parts
from dlen_cam2.parts import Part
from dlen_cam2.schema import Schema, Task

# Logits (B, T) of the named tasks to calibrated logits.
Calibrate = Callable[[tf.Tensor, Sequence[str]], tf.Tensor]


class Kind(Part):
    """A kind of task: how its label is trained, predicted and measured. z is what the network gives for the task.

    Attributes:
        binary: whether the label is 0 or 1 and the prediction a probability: what only probabilities have (calibration,
            NE, entire-space metrics, "any positive behaviour") is of binary tasks.
    """

    binary = False

    def start(self, task: Task) -> float:
        """σ(z) at which z starts."""
        raise NotImplementedError

    def losses(self, y: tf.Tensor, z: tf.Tensor, task: Task) -> tf.Tensor:
        """(B,): each row's loss, from labels and z, (B,) each."""
        raise NotImplementedError

    def predictions(self, z: tf.Tensor, task: Task) -> tf.Tensor:
        """(B,): from z to the prediction, in the label's unit."""
        raise NotImplementedError

    def constant_loss(self, task: Task) -> float | None:
        """The mean loss of the best constant prediction on the training days; None where it is 0."""
        raise NotImplementedError

    def metrics(
        self, y: np.ndarray, p: np.ndarray, users: np.ndarray, bootstrap: int, seed: int
    ) -> dict[str, Any]:
        """What `metrics.json` says of predictions p (N,) against labels y (N,)."""
        raise NotImplementedError


def kind_of(task: Task) -> Kind:
    """The kind that a task names."""
    found = parts.find("label", task.kind, f"the kind of the task {task.name!r}")()
    assert isinstance(found, Kind)
    return found


def binary(schema: Schema) -> list[int]:
    """The places of the tasks whose label is 0 or 1."""
    return [k for k, task in enumerate(schema.tasks) if kind_of(task).binary]


def targets(labels: Mapping[str, tf.Tensor], schema: Schema) -> tuple[tf.Tensor, tf.Tensor]:
    """Stack the tasks' labels and sample-space masks δ in schema order: two tensors (B, T)."""
    y = tf.stack([labels[t.label] for t in schema.tasks], axis=1)
    return y, tf.stack([labels[t.mask] if t.mask else tf.ones_like(labels[t.label]) for t in schema.tasks], axis=1)
