"""Gradients of tables in which each row occurs once."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


class Rows(tf.IndexedSlices):
    """The gradient of a table in which each row occurs once."""


def once(gradient: Any) -> Any:
    """A table's gradient with the lookups of each row summed; a dense gradient or None is returned unchanged."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows, places = tf.unique(gradient.indices)
    return Rows(tf.math.unsorted_segment_sum(gradient.values, places, tf.size(rows)), rows, gradient.dense_shape)


def clipped(gradients: Sequence[Any], norm: tf.Tensor, most: float) -> list[Any]:
    """Apply `tf.clip_by_global_norm`, but keep `Rows` as `Rows`."""
    tensors = [g.values if isinstance(g, Rows) else g for g in gradients]
    scaled, _ = tf.clip_by_global_norm(tensors, most, use_norm=norm)
    return [
        Rows(t, g.indices, g.dense_shape) if isinstance(g, Rows) else t for t, g in zip(scaled, gradients, strict=True)
    ]
