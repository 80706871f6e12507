"""LatentState: DLEN's hidden state network."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from dlen_cam2.layers.axes import Axes, Axis, Reached
from dlen_cam2.layers.experts import Experts
from dlen_cam2.layers.task_logits import TaskLogits


class LatentState(tf.keras.layers.Layer):
    """The latent "user prefers this" state: `P(UP) = σ(w · mlp(x) + b)`, shared by all tasks.

    It has its own ReLU network on the shared input and no label of its own: it learns only through the
    tasks' losses. CERTAIN (DLEN, section 3.2 and 4.1.1): three layers [256, 128, 64], ReLU, one output.

    Args:
        units: layer sizes.
        rate: where P(UP) starts.

    Input: (B, d). Output: (B, 1), the logit of P(UP).

    References:
        DLEN (Zhang et al., Tencent), figure 2, eqs 1-2.
    """

    def __init__(self, units: Sequence[int] = (256, 128, 64), rate: float = 0.5, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = tuple(units)
        self.rate = rate
        self.network = Experts(1, units, name="network", dtype=self.dtype_policy)
        self.logit = TaskLogits([rate], name="logit", dtype=self.dtype_policy)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.logit(self.network(inputs))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"units": self.units, "rate": self.rate}

    def axes(self, read: Axis | None, tasks: Axis) -> Axes:
        return [*self.network.axes_along(None, read), (self.logit.kernel, (None, None)), (self.logit.bias, (None,))]

    def shared_weights(self) -> Reached:
        """None. DESIGN: balancing is about the trunk; gradients of the latent state are added as they are."""
        return []
