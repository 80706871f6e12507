"""The optimizer: row-sparse Adagrad for the embedding tables, Adam for everything else."""

import functools
import math
from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs

from dlen_cam2.config import TrainConfig
from dlen_cam2.layers.embeddings import Embeddings, read_rows
from dlen_cam2.utils.errors import UserError


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


def composite(
    network: tf.keras.Model, config: TrainConfig, factor: float = 1.0, asynchronous: bool = False
) -> tf.keras.optimizers.Optimizer:
    """TFRS's `CompositeOptimizer` of two new-style Keras 2 optimizers.

    Adagrad is the one Keras optimizer that touches only the rows in the batch, so a step's cost does not
    grow with the vocabulary (BUILD.md has the measurements). Its accumulator starts near 0: a row's gradient
    is about 1 / batch size, and against the default start of 0.1 its first steps would be nearly none.

    Args:
        network: whose weights to train.
        config: the rates.
        factor: of both rates, see `TrainConfig.scaling`.
        asynchronous: several workers update the same rows at once.
    """
    lookups = [layer for layer in network.layers if isinstance(layer, Embeddings)]
    tables = {id(v) for layer in lookups for v in layer.trainable_variables}
    embedding = [v for v in network.trainable_variables if id(v) in tables]
    dense = [v for v in network.trainable_variables if id(v) not in tables]
    pairs = [(tf.keras.optimizers.Adam(config.learning_rate * factor), lambda: dense)]
    if embedding:
        of_rows = functools.partial(RowAdagrad, xla=any(layer.xla for layer in lookups))
        adagrad = (tf.keras.optimizers.Adagrad if asynchronous else of_rows)(
            config.embedding_learning_rate * factor, initial_accumulator_value=1e-8, epsilon=1e-8
        )
        pairs.append((adagrad, lambda: embedding))
    for optimizer, variables in pairs:
        optimizer.build(variables())  # at once, so that a checkpoint has slots to restore into
    return tfrs.experimental.optimizers.CompositeOptimizer(pairs)


def set_rates(optimizer: tf.keras.optimizers.Optimizer, config: TrainConfig, factor: float = 1.0) -> None:
    """Give what `composite` returned the rates of `config`, times `factor`."""
    for each in optimizer.optimizers:
        embedding = isinstance(each, tf.keras.optimizers.Adagrad)
        each.learning_rate = factor * (config.embedding_learning_rate if embedding else config.learning_rate)


class Cooldown(tf.keras.callbacks.Callback):
    """Both rates fall linearly at the end of a stage, `config.cooldown` of whose steps that takes:

        factor of step s = min(1, (steps - s) / (cooldown * steps)),   s = 0 … steps - 1

    At a constant rate the last few batches decide how often a rare task is predicted; see the README for how much.
    Several steps in one call (`config.steps_per_execution`) have one rate, the mean of theirs.

    Args:
        config: the rates and the cooldown.
        factor: of both rates, as of `composite`.
        steps: of the stage, in all its passes.
        done: steps of the stage before this fit.

    Raises:
        UserError: a call has so many steps that the rates could not fall in at least four calls.
    """

    def __init__(self, config: TrainConfig, factor: float, steps: int, done: int):
        super().__init__()
        self.config, self.factor, self.steps, self.done = config, factor, steps, done
        most = max(int(config.cooldown * steps / 4), 1)
        if config.steps_per_execution > most:
            raise UserError(
                f"config.train.steps_per_execution must be at most {most} for a cooldown of {config.cooldown:g} in a "
                f"stage of {steps} steps, since the steps of a call have one rate. Received: "
                f"{config.steps_per_execution}.")
        self._now = math.nan  # what a checkpoint has restored is not known

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        # There may be more steps than rows promise, where each worker reads shards of its own.
        first = self.done + batch
        left = [max(self.steps - step, 1) for step in range(first, first + self.config.steps_per_execution)]
        now = sum(min(1.0, n / (self.config.cooldown * self.steps)) for n in left) / len(left)
        if now != self._now:
            set_rates(self.model.optimizer, self.config, self.factor * now)
            self._now = now
