"""CauseMixture: engagement as a mixture of its causes."""

from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2.layers.axes import Axes, Axis, Reached


@tf.keras.utils.register_keras_serializable(package="dlen_cam2")
class CauseMixture(tf.keras.layers.Layer):
    """Mixes the conditional heads c = Pr(t | X >= thresh) and r = Pr(t | X < thresh):

        Pr(t) = w1 c + w2 r

    CERTAIN: the formula, w1 = Pr(Conformity) and w2 = Pr(Relevance), learnt. DESIGN: w1 and w2 are scalars
    w = softplus(·), which equal the shares only where X does not depend on the input; or a gate for each row,
    w1(x) = σ(v · z + b) and w2 = 1 - w1, which is exact if heads and gate know the same x and Pr(X >= thresh | x) has
    that form. No gradient flows back into the heads or z: only the mixing weights learn here.

    Args:
        gated: use a gate for each row instead of two scalars.
        share: Pr(X >= thresh) over the training rows, the initial value of w1; w2 starts at 1 - share.

    Input: c and r, (B, 1) each, and z (B, e), the input of the gate. Output: (B, 1), float32; with scalars, it may
    exceed 1 while they learn.

    References:
        CAM2 (Raul et al., 2023), section 2.3, the decomposition of Pr(t).
    """

    def __init__(self, gated: bool = False, share: float = 0.5, **kwargs: Any):
        # The heads are float32 and must stay so under mixed precision: Keras would round them on the way in.
        super().__init__(autocast=False, **kwargs)
        self.gated = gated
        self.share = share

    def build(self, input_shape: Any) -> None:
        share = np.clip(self.share, 1e-4, 1 - 1e-4)
        if self.gated:
            self.kernel = self.add_weight(
                name="kernel", shape=(input_shape[-1][-1], 1), initializer="zeros", experimental_autocast=False
            )
            start: Any = np.log(share / (1 - share))
        else:
            start = np.log(np.expm1([share, 1 - share]))  # the inverse of softplus
        self.bias = self.add_weight(
            name="bias", shape=np.shape(start), initializer=tf.keras.initializers.Constant(start),
            experimental_autocast=False,
        )
        super().build(input_shape)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        conformity, relevance, z = (tf.stop_gradient(t) for t in inputs)
        if self.gated:
            gate = tf.sigmoid(tf.matmul(tf.cast(z, tf.float32), self.kernel) + self.bias)
            return gate * conformity + (1 - gate) * relevance
        weights = tf.math.softplus(self.bias)
        return weights[0] * conformity + weights[1] * relevance

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"gated": self.gated, "share": self.share}

    def axes(self, read: Axis | None, tasks: Axis) -> Axes:
        return [(weight, (None,) * len(weight.shape)) for weight in self.weights]

    def shared_weights(self) -> Reached:
        return []
