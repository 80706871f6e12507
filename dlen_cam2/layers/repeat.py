"""Repeat: one representation, the same for all tasks."""

from typing import Any

import tensorflow as tf


@tf.keras.utils.register_keras_serializable(package="dlen_cam2")
class Repeat(tf.keras.layers.Layer):
    """Repeats one representation for every task, as hard sharing does: `X^k = x`, k = 1..count.

    This is a layer rather than a `Lambda` because Keras refuses to load the Python code of a `Lambda`.

    Args:
        count: number of repetitions, usually one for each task.

    Input: (B, 1, h). Output: (B, count, h).

    Example:
        >>> Repeat(3)(tf.ones((2, 1, 8))).shape
        TensorShape([2, 3, 8])

    References:
        Caruana, 1997.
    """

    def __init__(self, count: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.count = count

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.repeat(inputs, self.count, axis=1)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"count": self.count}
