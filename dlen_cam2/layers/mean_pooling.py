"""MeanPooling: a list of vectors as their mean."""

from typing import Any

import tensorflow as tf


@tf.keras.utils.register_keras_serializable(package="dlen_cam2")
class MeanPooling(tf.keras.layers.Layer):
    """`Σ_l m_l v_l / Σ_l m_l`, and 0 where no event is present.

    Input: events v (B, L, w), present m (B, L) of 1 and 0, and a candidate, which it does not read. Output: (B, w).
    """

    def __init__(self, **kwargs: Any):
        # Events and presence come in one type, which Keras would change of the first alone.
        super().__init__(autocast=False, **kwargs)

    def call(self, events: tf.Tensor, present: tf.Tensor, candidate: tf.Tensor | None = None) -> tf.Tensor:
        total = tf.reduce_sum(present[:, :, None] * events, axis=1)
        return tf.math.divide_no_nan(total, tf.reduce_sum(present, axis=1, keepdims=True))
