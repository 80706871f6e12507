"""TaskLogits: the last, linear step of every task's tower."""

from typing import Any

import tensorflow as tf


class TaskLogits(tf.keras.layers.Layer):
    """`logit_k = w_k · X^k + b_k` for all tasks at once.

    Input: (B, T, h), the towers' outputs X^k. Output: (B, T), float32 also under mixed precision.

    Example:
        >>> TaskLogits()(tf.ones((2, 3, 8))).shape
        TensorShape([2, 3])
    """

    def build(self, input_shape: Any) -> None:
        tasks, width = input_shape[1:]
        limit = (6 / (width + 1)) ** 0.5
        self.kernel = self.add_weight(
            name="kernel", shape=(tasks, width), initializer=tf.keras.initializers.RandomUniform(-limit, limit)
        )
        self.bias = self.add_weight(name="bias", shape=(tasks,), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.einsum("bth,th->bt", inputs, self.kernel) + self.bias, tf.float32)
