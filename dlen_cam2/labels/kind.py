"""`Kind`, the base class of the kinds of tasks."""

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
    """A kind of task: how its label is trained on, predicted and measured. z is the network's output for the task.

    Attributes:
        binary: whether the label is 0 or 1 and the prediction a probability. Only binary tasks have what needs
            probabilities: calibration, NE, entire-space metrics, "any positive behaviour".
    """

    binary = False

    def start(self, task: Task) -> float:
        """The value of σ(z) at which training starts."""
        raise NotImplementedError

    def losses(self, y: tf.Tensor, z: tf.Tensor, task: Task) -> tf.Tensor:
        """The loss of each row, (B,), from labels and z, (B,) each."""
        raise NotImplementedError

    def predictions(self, z: tf.Tensor, task: Task) -> tf.Tensor:
        """The predictions, (B,), from z, in the label's unit."""
        raise NotImplementedError

    def constant_loss(self, task: Task) -> float | None:
        """The mean loss of the best constant prediction on the training days; None where it is 0."""
        raise NotImplementedError

    def metrics(
        self, y: np.ndarray, p: np.ndarray, users: np.ndarray, bootstrap: int, seed: int
    ) -> dict[str, Any]:
        """The entries of `metrics.json` for predictions p (N,) against labels y (N,)."""
        raise NotImplementedError


def kind_of(task: Task) -> Kind:
    """The kind that a task names."""
    found = parts.find("label", task.kind, f"the kind of the task {task.name!r}")()
    assert isinstance(found, Kind)
    return found


def binary(schema: Schema) -> list[int]:
    """The indices of the tasks whose label is 0 or 1."""
    return [k for k, task in enumerate(schema.tasks) if kind_of(task).binary]


def targets(labels: Mapping[str, tf.Tensor], schema: Schema) -> tuple[tf.Tensor, tf.Tensor]:
    """Stack the tasks' labels and sample-space masks δ in schema order: two tensors (B, T)."""
    y = tf.stack([labels[t.label] for t in schema.tasks], axis=1)
    return y, tf.stack([labels[t.mask] if t.mask else tf.ones_like(labels[t.label]) for t in schema.tasks], axis=1)
