"""Dropout, with its random state in the checkpoint."""

from typing import Any

import numpy as np
import tensorflow as tf


@tf.keras.utils.register_keras_serializable(package="dlen_cam2")
class Dropout(tf.keras.layers.Layer):
    """Sets a share `rate` of the inputs to 0 and scales the others by `1 / (1 - rate)`, during training only.

    Keras' own layer does not save its random state in checkpoints. A job that resumes from one would draw the first
    masks again, and so would differ from a job that was never interrupted.

    Args:
        rate: share of the inputs to drop, in [0, 1).

    Input and output: any shape.

    References:
        Srivastava et al., 2014.
    """

    def __init__(self, rate: float, **kwargs: Any):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be in [0, 1). Received: rate={rate}.")
        self.rate = rate
        # numpy's seed is set by tf.keras.utils.set_random_seed, together with TensorFlow's.
        self.generator = tf.random.Generator.from_seed(np.random.randint(2**31))

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not training:
            return inputs
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, seed=self.generator.make_seeds()[:, 0])

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"rate": self.rate}
