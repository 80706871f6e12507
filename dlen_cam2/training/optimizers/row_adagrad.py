"""Keras' Adagrad, for the rows of embedding tables that a batch touches."""

from typing import Any

import tensorflow as tf

from dlen_cam2.layers.embeddings import read_rows
from dlen_cam2.training.optimizers.rows import Rows


class RowAdagrad(tf.keras.optimizers.Adagrad):
    """Keras' Adagrad with the same results, which reads the rows of a batch, computes, and writes them back.

        a_r += g_r²        w_r -= η g_r / √(a_r + ε)        for each row r in the batch, g_r the sum of its gradients

    Keras adds to the rows in place with `scatter_add`, which costs four times as much as writing them
    (`docs/decisions/speed.md`). If another worker added to a row between the read and the write, its update would be
    lost, so asynchronous workers use `scatter_add` as Keras does.

    Args:
        xla: whether XLA may compile the step, see `read_rows`. All other arguments are those of Keras.
        alone: whether no other worker updates the rows at the same time.
    """

    def __init__(self, *args: Any, xla: bool = True, alone: bool = True, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._xla = xla
        self._alone = alone

    def _deduplicate_sparse_grad(self, grads: list[Any]) -> list[Any]:
        """Sum over the lookups of a row as Keras does, except for gradients that already have each row once."""
        summed = iter(super()._deduplicate_sparse_grad([g for g in grads if not isinstance(g, Rows)]))
        return [g if isinstance(g, Rows) else next(summed) for g in grads]

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> None:
        if not (self._alone and isinstance(gradient, tf.IndexedSlices)):
            super().update_step(gradient, variable)
            return
        rows, g = gradient.indices, gradient.values
        rate = tf.cast(self.learning_rate, variable.dtype)
        accumulator = self._accumulators[self._index_dict[self._var_key(variable)]]
        accumulated = read_rows(accumulator, rows, self._xla) + g * g
        moved = read_rows(variable, rows, self._xla) - rate * g / tf.sqrt(accumulated + self.epsilon)
        accumulator.scatter_update(tf.IndexedSlices(accumulated, rows))
        variable.scatter_update(tf.IndexedSlices(moved, rows))
