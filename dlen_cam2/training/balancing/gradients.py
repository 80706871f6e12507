"""Gradients of several tasks: stacking and summing them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2.layers.axes import shared_weights
from dlen_cam2.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Shared:
    """The gradients of T tasks with respect to one weight.

    Attributes:
        values: (T, …) for a dense weight; (T, rows, width) for the rows of a table that the batch touches. 0 for None.
        mask: for a dense weight, broadcast to it: 1 where more than one task reaches it, else 0.
        rows: the table's rows, each once, followed by 0 where the values are 0, too; None for a dense weight.
        shape: the shape of the table.
    """

    values: tf.Tensor
    mask: np.ndarray
    rows: tf.Tensor | None = None
    shape: tf.Tensor | None = None

    def vectors(self) -> tf.Tensor:
        """The gradients as vectors: (T, 1, size), 0 if the weight is not shared; (T, rows, width) for a table."""
        if self.rows is not None:
            return self.values
        return tf.reshape(self.values * self.mask, (self.values.shape[0], 1, -1))

    def total(self, factors: tf.Tensor) -> Any:
        """Compute `Σ_k factors_k g_k`, factors (T, 1), or (T, rows) for a table; `Σ_k g_k` where it is not shared."""
        if self.rows is not None:
            return tf.IndexedSlices(tf.reduce_sum(factors[:, :, None] * self.values, axis=0), self.rows, self.shape)
        factors = tf.reshape(factors, (-1, *[1] * (self.values.shape.rank - 1)))
        return tf.reduce_sum(self.values * (factors * self.mask + (1 - self.mask)), axis=0)


def side_by_side(gradients: Sequence[Any], mask: np.ndarray) -> Shared:
    """Stack the tasks' gradients of one weight, at least one of which is not None.

    All tasks' gradients of a table come from the same lookups in the same order, since a table is looked up once.
    Lookups of the same row are summed. The result has as many rows as there were lookups, with 0 at the end, because
    XLA cannot compile sizes that depend on the data.
    """
    present = [g for g in gradients if g is not None]
    if not all(isinstance(g, tf.IndexedSlices) for g in present):
        present = [tf.convert_to_tensor(g) for g in present]
        return Shared(_stack(gradients, present), mask)
    index = present[0].indices
    for other in present[1:]:
        tf.debugging.assert_equal(other.indices, index, "tasks must look up the same rows of a table")
    lookups = tf.size(index)
    places = tf.unique(index)[1]
    rows = tf.maximum(tf.math.unsorted_segment_max(index, places, lookups), 0)
    values = _stack(gradients, [tf.math.unsorted_segment_sum(g.values, places, lookups) for g in present])
    return Shared(values, mask, rows, present[0].dense_shape)


def _stack(gradients: Sequence[Any], present: Sequence[tf.Tensor]) -> tf.Tensor:
    """The gradients as one tensor: `present` where they are not None, 0 elsewhere."""
    tensors = iter(present)
    return tf.stack([tf.zeros_like(present[0]) if g is None else next(tensors) for g in gradients])


def total(gradients: Sequence[Any]) -> Any:
    """The sum of gradients of a weight, or None if all are None; rows of a table are concatenated."""
    present = [g for g in gradients if g is not None]
    if len(present) < 2:
        return present[0] if present else None
    if not all(isinstance(g, tf.IndexedSlices) for g in present):
        return tf.add_n([tf.convert_to_tensor(g) for g in present])
    values, indices = (tf.concat([getattr(g, part) for g in present], axis=0) for part in ("values", "indices"))
    return tf.IndexedSlices(values, indices, present[0].dense_shape)


def added(gradients: Sequence[Any]) -> Any:
    """The `total` of gradients of different losses on one batch, whose table rows come from the same lookups."""
    present = [g for g in gradients if g is not None]
    if len(present) > 1 and all(isinstance(g, tf.IndexedSlices) for g in present):
        first = present[0]
        return tf.IndexedSlices(tf.add_n([g.values for g in present]), first.indices, first.dense_shape)
    return total(present)


def gram(vectors: tf.Tensor) -> tf.Tensor:
    """The inner products of T vectors in each of R groups: (T, R, n) -> (R, T, T)."""
    return tf.einsum("irn,jrn->rij", vectors, vectors)


def last_kernel(network: tf.keras.Model) -> tuple[int, np.ndarray]:
    """The last kernel that several tasks share: its index among the trainable weights, and its mask.

    Raises:
        UserError: only tables are shared.
    """
    found = None
    for place, (weight, mask) in enumerate(zip(network.trainable_variables, shared_weights(network), strict=True)):
        if mask is not None and weight.name.rpartition("/")[2].startswith("kernel"):
            found = place, mask
    if found is None:
        raise UserError(
            "config.train.step_rule='gradnorm' needs a trunk with a kernel that tasks share. Received: no such kernel "
            f"in the layers {[layer.name for layer in network.layers if layer.weights]}."
        )
    return found
