"""Keras' `fit` on batches that lie in memory, by a clock."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from benchmarks.yardstick import Clock


class _Timer(tf.keras.callbacks.Callback):
    def __init__(self, clock: Clock, steps: int):
        super().__init__()
        self._clock, self._steps = clock, steps
        self.loss = float("nan")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.loss = float(logs["loss"])
        self.model.stop_training = self._clock.tick(self._steps)


def fit(model: Any, batches: Sequence[Any], clock: Clock, steps_per_execution: int = 1) -> float:
    """Train until the clock says stop; returns the last loss."""
    stacked = tf.nest.map_structure(lambda *parts: tf.stack(parts), *batches)
    timer = _Timer(clock, steps_per_execution)
    data = tf.data.Dataset.from_tensor_slices(stacked).repeat().prefetch(2)
    # An epoch without end: at the end of one Keras does work that belongs to no step.
    model.fit(data, epochs=1, steps_per_epoch=10**7 // steps_per_execution * steps_per_execution, verbose=0,
              callbacks=[timer])
    return timer.loss
