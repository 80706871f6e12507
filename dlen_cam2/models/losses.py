"""The loss: every task's cross-entropy, averaged over the task's own sample space."""

import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from dlen_cam2.schema import Schema
from dlen_cam2.utils.all_reduce import global_sum


class TaskCrossentropy(tf.keras.losses.Loss):
    """Element-wise cross-entropy of logits, (B, T), times the weights of `sample_weights`; their sum is the loss.

        L = Σ_k ω_k · Σ_i δ_ik ℓ_ik / Σ_i δ_ik

    References:
        PLE (Tang et al., 2020), eq 7: a task's loss is averaged over the rows in its sample space.
    """

    def __init__(self, name: str = "task_crossentropy"):
        # Keras' own default divides by the batch of a replica, which is wrong under tf.distribute; the sum over rows
        # and replicas is the ranker's.
        super().__init__(reduction=tf.keras.losses.Reduction.NONE, name=name)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(y_true, y_pred.dtype), y_pred)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}


def targets(labels: Mapping[str, tf.Tensor], schema: Schema) -> tuple[tf.Tensor, tf.Tensor]:
    """Stack the tasks' labels and sample-space masks δ in schema order: two tensors (B, T)."""
    y = tf.stack([labels[t.label] for t in schema.tasks], axis=1)
    return y, tf.stack([labels[t.mask] if t.mask else tf.ones_like(labels[t.label]) for t in schema.tasks], axis=1)


def entire_space(y: tf.Tensor, mask: tf.Tensor, schema: Schema) -> tuple[tf.Tensor, tf.Tensor]:
    """ESMM's labels and masks, from those of `targets`: (B, T) each.

    A task that follows another has the label 1 where it and all tasks before it are 1 (click and conversion), and the
    sample space of the first of them (all impressions).
    """
    labels, spaces = tf.unstack(y, axis=1), tf.unstack(mask, axis=1)
    joint, wide = list(labels), list(spaces)
    for k, before in enumerate(schema.ancestors):
        for ancestor in before:
            joint[k], wide[k] = joint[k] * labels[ancestor], spaces[ancestor]
    return tf.stack(joint, axis=1), tf.stack(wide, axis=1)


def entire_space_rates(schema: Schema) -> list[float]:
    """The tasks' positive rates in the spaces of `entire_space`."""
    rates = [t.positive_rate for t in schema.tasks]
    return [rate * math.prod(rates[a] for a in before) for rate, before in zip(rates, schema.ancestors, strict=True)]


def sample_weights(mask: tf.Tensor, schema: Schema) -> tf.Tensor:
    """`ω_k δ_ik / max(1, Σ_i δ_ik)`, (B, T), the sum over the global batch of all replicas.

    A task without rows in the batch has weight 0, hence no loss and no gradient.
    """
    rows = global_sum(tf.reduce_sum(mask, axis=0))
    return mask * tf.constant([t.weight for t in schema.tasks]) / tf.maximum(rows, 1.0)
