"""Conformity: CAM2's prediction that a user engages because others do."""

from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2.layers.axes import Axes, Axis, Reached

CONFORMITY = ("logistic", "norm")


@tf.keras.utils.register_keras_serializable(package="dlen_cam2")
class Conformity(tf.keras.layers.Layer):
    """The conformity prediction from the user's part û and the item's part î:

        logistic: c = σ(w · (û + î) + b)        DESIGN, the output is the logit
        norm:     c = ‖û + î‖                   CERTAIN (section 2.3), the output is the norm

    The norm may exceed 1, so it is not a probability. It is trained with a squared loss, and the logistic read-out with
    cross-entropy (see `CausalLoss`).

    Args:
        kind: "logistic" or "norm".
        rate: the initial logistic prediction (DESIGN, see `TaskLogits`); the norm starts where û and î do.
        seed: seed of the initial values; None: they are drawn after those of the layers built before.

    Input: û and î, (B, e) each. Output: (B, 1), float32 even under mixed precision.

    Raises:
        ValueError: `kind` is neither of these.

    References:
        CAM2 (Raul et al., 2023), section 2.3, L_C.
    """

    def __init__(self, kind: str = "logistic", rate: float = 0.5, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if kind not in CONFORMITY:
            raise ValueError(f"kind must be one of {CONFORMITY}. Received: kind={kind!r}.")
        self.kind = kind
        self.rate = rate
        self.seed = seed
        start = np.clip(rate, 1e-4, 1 - 1e-4)
        self.read_out = tf.keras.layers.Dense(
            1, kernel_initializer=tf.keras.initializers.GlorotUniform(seed),
            bias_initializer=tf.keras.initializers.Constant(np.log(start / (1 - start))), name="read_out",
            dtype="float32",  # as in `TaskLogits`
        ) if kind == "logistic" else None

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        user, item = (tf.cast(part, tf.float32) for part in inputs)
        total = user + item
        if self.read_out is not None:
            return self.read_out(total)
        squares = tf.reduce_sum(tf.square(total), axis=1, keepdims=True)
        return tf.sqrt(squares + 1e-12)  # the norm has no gradient at 0

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"kind": self.kind, "rate": self.rate, "seed": self.seed}

    def axes(self, read: Axis | None, tasks: Axis) -> Axes:
        return [(weight, (None,) * len(weight.shape)) for weight in self.weights]

    def shared_weights(self) -> Reached:
        return []
