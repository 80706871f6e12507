"""Relevance: CAM2's prediction that a user engages out of interest."""

from typing import Any

import numpy as np
import tensorflow as tf


@tf.keras.utils.register_keras_serializable(package="dlen_cam2")
class Relevance(tf.keras.layers.Layer):
    """The relevance prediction over k interests:

        û_x = σ(a_x + logit rate)  = Pr(the user engages | interest x)
        î_x = softmax(b)_x         = Pr(the item has interest x)
        r   = Σ_x û_x î_x

    CERTAIN (section 2.3): the products û_x î_x and the meaning of both factors. DESIGN: the sigmoid and the softmax,
    which make r a probability; the offset, which lets r start at the rate of its label; and log space. Since
    Σ_x î_x = 1, also 1 - r = Σ_x (1 - û_x) î_x, so

        logit r = logsumexp_x(log û_x + log î_x) - logsumexp_x(log(1 - û_x) + log î_x).

    Args:
        rate: the initial value of r, for a near 0.

    Input: a and b, (B, k) each. Output: a dictionary of float32 tensors: "relevance" (B, 1), the logit of r, and
    "interests" (B, k), the products û_x î_x.

    References:
        CAM2 (Raul et al., 2023), section 2.3, L_R.
    """

    def __init__(self, rate: float = 0.5, **kwargs: Any):
        super().__init__(**kwargs)
        self.rate = rate
        start = np.clip(rate, 1e-4, 1 - 1e-4)
        self._offset = float(np.log(start / (1 - start)))

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        user, item = (tf.cast(part, tf.float32) for part in inputs)
        user += self._offset
        log_item = tf.nn.log_softmax(item)
        log_product = tf.math.log_sigmoid(user) + log_item
        log_rest = tf.math.log_sigmoid(-user) + log_item
        logit = tf.reduce_logsumexp(log_product, axis=1, keepdims=True) - tf.reduce_logsumexp(
            log_rest, axis=1, keepdims=True
        )
        return {"relevance": logit, "interests": tf.exp(log_product)}

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"rate": self.rate}
