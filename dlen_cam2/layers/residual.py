"""Residual: the network inside CAM2's branches."""

from typing import Any

import tensorflow as tf

from dlen_cam2.layers.axes import Axes, Axis, Reached
from dlen_cam2.layers.candidates import Candidates, rows


@tf.keras.utils.register_keras_serializable(package="dlen_cam2")
class Residual(tf.keras.layers.Layer):
    """A residual network of fully connected pre-activation blocks:

        h_0 = W_in x + b_in
        h_n = h_{n-1} + W'_n relu(W_n relu(h_{n-1}) + b_n) + b'_n        n = 1..blocks
        y   = W_out relu(h_blocks) + b_out

    CERTAIN: CAM2's modules are residual networks (its reference 10). DESIGN: sizes, and no normalisation between
    the layers, since inputs are standardised numbers and small embeddings.

    Args:
        units: width of the blocks.
        blocks: number of blocks; 0 leaves one hidden layer.
        outputs: width of y.
        seed: seed of the initial values; None: they are drawn after those of the layers built before.

    Input: (B, d). Output: (B, outputs).

    Example:
        >>> Residual(64, 2, 8)(tf.ones((2, 10))).shape
        TensorShape([2, 8])

    References:
        CAM2 (Raul et al., 2023), section 2.3; pre-activation: He et al., "Identity Mappings", 2016.
    """

    def __init__(self, units: int, blocks: int, outputs: int, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = units
        self.blocks = blocks
        self.outputs = outputs
        self.seed = seed

        def dense(width: int, name: str, place: int) -> tf.keras.layers.Dense:
            start = tf.keras.initializers.GlorotUniform(None if seed is None else seed + place)
            return tf.keras.layers.Dense(width, kernel_initializer=start, name=name, dtype=self.dtype_policy)

        self.into = dense(units, "into", 0)
        self.inner = [dense(units, f"inner_{n}", 2 * n) for n in range(1, blocks + 1)]
        self.outer = [dense(units, f"outer_{n}", 2 * n + 1) for n in range(1, blocks + 1)]
        self.out = dense(outputs, "out", 1)

    def call(self, inputs: tf.Tensor | Candidates) -> tf.Tensor:
        h = self.into(rows(inputs))
        for inner, outer in zip(self.inner, self.outer, strict=True):
            h += outer(tf.nn.relu(inner(tf.nn.relu(h))))
        return self.out(tf.nn.relu(h))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "units": self.units, "blocks": self.blocks, "outputs": self.outputs, "seed": self.seed,
        }

    def axes(self, read: Axis | None, tasks: Axis) -> Axes:
        rest = [weight for dense in (*self.inner, *self.outer, self.out) for weight in dense.weights]
        return [(self.into.kernel, (read, None)), *((w, (None,) * len(w.shape)) for w in (self.into.bias, *rest))]

    def shared_weights(self) -> Reached:
        """No weights: CAM2's branches learn from the causal losses. DESIGN: also without the stop-gradient."""
        return []
