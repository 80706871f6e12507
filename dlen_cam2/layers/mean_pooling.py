"""MeanPooling: the mean of a list of vectors."""

from typing import Any

import tensorflow as tf


@tf.keras.utils.register_keras_serializable(package="dlen_cam2")
class MeanPooling(tf.keras.layers.Layer):
    """Computes the mean `Σ_l m_l v_l / Σ_l m_l` of the events that are present, or 0 if there are none.

    Input: events v (B, L, w), their presence m (B, L) of 1 and 0, and a candidate, which is ignored. Output: (B, w).
    """

    def __init__(self, **kwargs: Any):
        # Events and presence come in one type, which Keras would change of the first alone.
        super().__init__(autocast=False, **kwargs)

    def call(self, events: tf.Tensor, present: tf.Tensor, candidate: tf.Tensor | None = None) -> tf.Tensor:
        total = tf.reduce_sum(present[:, :, None] * events, axis=1)
        return tf.math.divide_no_nan(total, tf.reduce_sum(present, axis=1, keepdims=True))
