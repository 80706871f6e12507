"""TaskLogits: the last, linear step of every task's tower."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2.layers.axes import Axes, Axis, Reached
from dlen_cam2.layers.candidates import project
from dlen_cam2.layers.experts import starts_at_zero


@tf.keras.utils.register_keras_serializable(package="dlen_cam2")
class TaskLogits(tf.keras.layers.Layer):
    """Computes `logit_k = w_k · X^k + b_k` for all tasks at once.

    Args:
        rates: probabilities σ(b_k) at which the biases start, one for each task; empty: one half. DESIGN: rare
            tasks that start at one half would spend the steps of a short run on learning their base rate.
        joined: number of the last columns that are joined from another network and have no initial effect, see
            `Experts`.
        places: indices of the layer's tasks among the model's tasks; empty: all of them.

    Input: (B, T, h), the towers' outputs X^k. Output: (B, T), float32 even under mixed precision.

    Example:
        >>> TaskLogits()(tf.ones((2, 3, 8))).shape
        TensorShape([2, 3])
    """

    def __init__(self, rates: Sequence[float] = (), joined: int = 0, places: Sequence[int] = (), **kwargs: Any):
        super().__init__(**kwargs)
        self.joined = joined
        self.places = tuple(places)
        self.rates = tuple(float(r) for r in rates)

    def build(self, input_shape: Any) -> None:
        tasks, width = input_shape[1:]
        limit = (6 / (width - self.joined + 1)) ** 0.5
        uniform = tf.keras.initializers.RandomUniform(-limit, limit)
        # Not rounded to bfloat16 under mixed precision, by which a served probability would be 1% off its rate.
        self.kernel = self.add_weight(
            name="kernel", shape=(tasks, width), experimental_autocast=False,
            initializer=starts_at_zero(uniform, self.joined, axis=1) if self.joined else uniform,
        )
        if len(self.rates) not in (0, tasks):
            raise ValueError(f"rates must hold one probability for each of {tasks} tasks. Received: {self.rates}.")
        # A task without positives, or without negatives, must still start at a finite logit.
        rates = np.clip(self.rates or [0.5] * tasks, 1e-4, 1 - 1e-4)
        self.bias = self.add_weight(
            name="bias", shape=(tasks,), experimental_autocast=False,
            initializer=tf.keras.initializers.Constant(np.log(rates / (1 - rates))),
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        # One product with w_k in the rows of task k and zeros elsewhere: T dot products of each row are slower, as an
        # einsum or as a product and a sum.
        tasks, width = self.kernel.shape
        apart = self.kernel[:, :, None] * tf.eye(tasks)[:, None]
        joined = tf.reshape(tf.cast(inputs, tf.float32), (-1, tasks * width))
        return project(joined, tf.reshape(apart, (tasks * width, tasks)), self.bias)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"rates": self.rates, "joined": self.joined, "places": self.places}

    def axes(self, read: Axis | None, tasks: Axis) -> Axes:
        own = tasks.take(self.places)
        return [(self.kernel, (own, None)), (self.bias, (own,))]

    def shared_weights(self) -> Reached:
        return []
