"""Gates: how much each task listens to each expert."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2.layers.axes import Axes, Axis, Reached
from dlen_cam2.layers.candidates import Candidates, project


@dataclasses.dataclass(frozen=True)
class Mixture:
    """The names of the gates and experts of a layer of gates.

    Attributes:
        gates: G names: the tasks, then "shared" if the layer has a shared gate.
        experts: E names: "expert 1" in MMOE; in CGC, "click 1" for a task's own expert and "shared 1".
        sees: (G, E), which experts each gate weights.
    """

    gates: tuple[str, ...]
    experts: tuple[str, ...]
    sees: np.ndarray


@tf.keras.utils.register_keras_serializable(package="dlen_cam2")
class Gates(tf.keras.layers.Layer):
    """Computes `g^k(x) = softmax(W_k x)` for `count` gates at once; the gates are linear and have no bias.

    Args:
        count: number of gates K, usually one for each task.
        experts: number of experts that each gate weights.

    Input: (B, d), shared by all gates (also as `Candidates`), or (B, K, d), one for each. Output: (B, K, experts); each
    row sums to 1.

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
        self._shared_input = len(input_shape) == 2
        # The limit is that of one gate: fan-in d, fan-out `experts`.
        limit = (6 / (input_shape[-1] + self.experts)) ** 0.5
        # A shared input meets all gates in one product, so there the gates lie side by side.
        self.kernel = self.add_weight(
            name="kernel", initializer=tf.keras.initializers.RandomUniform(-limit, limit),
            shape=(input_shape[-1], self.count, self.experts) if self._shared_input else
            (self.count, input_shape[-1], self.experts),
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor | Candidates) -> tf.Tensor:
        if inputs.shape.rank == 3:
            return tf.nn.softmax(tf.einsum("bkd,kde->bke", inputs, self.kernel))
        logits = project(inputs, tf.reshape(self.kernel, (self.kernel.shape[0], -1)))
        return tf.nn.softmax(tf.reshape(logits, (-1, self.count, self.experts)))

    def gate_weights(self, inputs: tf.Tensor) -> tf.Tensor:
        """The weights with which the experts are mixed, (B, K, experts)."""
        return self(inputs)

    def mixture(self, tasks: Sequence[str]) -> Mixture:
        """The names of the gates and experts, for introspection."""
        experts = tuple(f"expert {i + 1}" for i in range(self.experts))
        return Mixture(tuple(tasks), experts, np.ones((self.count, self.experts), bool))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"count": self.count, "experts": self.experts}

    def axes(self, read: Axis | None, tasks: Axis) -> Axes:
        return self.axes_along(read, tasks, None)

    def axes_along(self, read: Axis | None, count: Axis | None, experts: Axis | None) -> Axes:
        """`axes`, given the axes of the gates and of the experts."""
        return [(self.kernel, (read, count, experts) if self._shared_input else (count, read, experts))]

    def shared_weights(self) -> Reached:
        return []
