"""Gates: how much each task listens to each expert."""

from typing import Any

import tensorflow as tf


class Gates(tf.keras.layers.Layer):
    """`g^k(x) = softmax(W_k x)` for `count` gates at once, linear and without bias.

    Args:
        count: number of gates K, usually one for each task.
        experts: number of experts that each gate weighs.

    Input: (B, d) that all gates share, or (B, K, d), one each. Output: (B, K, experts), each row sums to 1.

    Example:
        >>> float(tf.reduce_sum(Gates(3, 5)(tf.ones((2, 10)))[0, 0]))
        1.0

    References:
        MMOE (Ma et al., 2018), eq 7.
    """

    def __init__(self, count: int, experts: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.count = count
        self.experts = experts

    def build(self, input_shape: Any) -> None:
        if len(input_shape) == 3 and input_shape[1] != self.count:
            raise ValueError(f"inputs must be (B, d) or (B, count={self.count}, d). Received: shape={input_shape}.")
        # The limit is that of one gate: fan-in d, fan-out `experts`.
        limit = (6 / (input_shape[-1] + self.experts)) ** 0.5
        self.kernel = self.add_weight(
            name="kernel", shape=(self.count, input_shape[-1], self.experts),
            initializer=tf.keras.initializers.RandomUniform(-limit, limit),
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        equation = "bd,kde->bke" if inputs.shape.rank == 2 else "bkd,kde->bke"
        return tf.nn.softmax(tf.einsum(equation, inputs, self.kernel))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"count": self.count, "experts": self.experts}
