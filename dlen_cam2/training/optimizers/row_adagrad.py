"""Keras' Adagrad, for the rows of embedding tables that a batch touches."""

from typing import Any

import tensorflow as tf

from dlen_cam2.layers.embeddings import read_rows


class RowAdagrad(tf.keras.optimizers.Adagrad):
    """Keras' Adagrad, number for number, which reads the rows of a batch, computes, and writes them back.

        a_r += g_r²        w_r -= η g_r / √(a_r + ε)        for each row r in the batch, g_r the sum of its gradients

    Keras adds to rows in place, `scatter_add`, which costs four times as much as writing them (`benchmarks/NOTES.md`).
    What another worker would add to a row between reading and writing is lost, so asynchronous workers need Keras' own.

    Args:
        xla: whether XLA may compile the step, see `read_rows`. The others are those of Keras.
    """

    def __init__(self, *args: Any, xla: bool = True, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._xla = xla

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> None:
        if not isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable)
            return
        rows, g = gradient.indices, gradient.values
        rate = tf.cast(self.learning_rate, variable.dtype)
        accumulator = self._accumulators[self._index_dict[self._var_key(variable)]]
        accumulated = read_rows(accumulator, rows, self._xla) + g * g
        moved = read_rows(variable, rows, self._xla) - rate * g / tf.sqrt(accumulated + self.epsilon)
        accumulator.scatter_update(tf.IndexedSlices(accumulated, rows))
        variable.scatter_update(tf.IndexedSlices(moved, rows))
