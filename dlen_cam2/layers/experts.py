"""Experts: many small networks of one shape, side by side."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf

from dlen_cam2.layers.candidates import Candidates, of_each, project, rows


class Experts(tf.keras.layers.Layer):
    """`count` independent ReLU networks of equal shape: `f_i(x) = relu(… relu(x W_i + b_i) …)`.

    They serve as the experts of MMOE and PLE (one input for all) and as the towers of all tasks (one input
    each). Each has products of its own: TensorFlow works on several at a time, and what an expert hands on stays in the
    cache, while one product for all experts sends it through memory (`benchmarks/NOTES.md`).

    Each expert starts from its own draw, with the Glorot limit of a single expert's fan-in and fan-out, not
    of the stack's.

    Args:
        count: number of networks E.
        units: sizes of the layers; ReLU after each. An empty sequence passes the input on.
        joined: so many of the input's last columns are joined from another network: their weights start at 0 and the
            others as without them, so that the outputs start as if they were not there.

    Input: (B, d) that all share (also as `Candidates`), or (B, E, d), one each. Output: (B, E, units[-1]).

    Example:
        >>> Experts(5, (256, 128, 64))(tf.ones((2, 10))).shape
        TensorShape([2, 5, 64])

    References:
        MMOE (Ma et al., 2018), eq 6: f^k(x) = sum_i g^k(x)_i f_i(x).
    """

    def __init__(self, count: int, units: Sequence[int], joined: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.count = count
        self.units = tuple(units)
        self.joined = joined

    def build(self, input_shape: Any) -> None:
        self._shared_input = len(input_shape) == 2
        if not self._shared_input and input_shape[1] != self.count:
            raise ValueError(f"inputs must be (B, d) or (B, count={self.count}, d). Received: shape={input_shape}.")
        self.kernels, self.biases = [], []
        fan_in = input_shape[-1]
        for level, fan_out in enumerate(self.units):
            joined = self.joined if level == 0 else 0
            limit = math.sqrt(6 / (fan_in - joined + fan_out))
            # A shared input meets all experts in one product, so there the experts lie side by side.
            side_by_side = self._shared_input and level == 0
            uniform = tf.keras.initializers.RandomUniform(-limit, limit)
            self.kernels.append(self.add_weight(
                name=f"kernel_{level}",
                shape=(fan_in, self.count, fan_out) if side_by_side else (self.count, fan_in, fan_out),
                initializer=starts_at_zero(uniform, joined, axis=0 if side_by_side else 1) if joined else uniform,
            ))
            self.biases.append(self.add_weight(
                name=f"bias_{level}", shape=(self.count, fan_out), initializer="zeros"
            ))
            fan_in = fan_out
        super().build(input_shape)

    def call(self, inputs: tf.Tensor | Candidates) -> tf.Tensor:
        if not self.units:
            return tf.repeat(rows(inputs)[:, None], self.count, axis=1) if self._shared_input else inputs
        outputs = self._first(inputs) if self._shared_input else tf.unstack(inputs, axis=1)
        first = 1 if self._shared_input else 0
        for kernel, bias in zip(self.kernels[first:], self.biases[first:], strict=True):
            outputs = _layer(outputs, tf.unstack(kernel), tf.unstack(bias))
        return tf.stack(outputs, axis=1)

    def _first(self, x: tf.Tensor | Candidates) -> Sequence[tf.Tensor]:
        """The first layer of a shared input: each (B, units[0])."""
        kernel, bias = self.kernels[0], self.biases[0]
        if not isinstance(x, Candidates):
            return _layer([x] * self.count, tf.unstack(kernel, axis=1), tf.unstack(bias))
        # The user's part once, for all experts.
        wide, bias = of_each(x, tf.reshape(kernel, (kernel.shape[0], -1)), tf.reshape(bias, (-1,)))
        # Slices and not a split: the first experts need not wait until the last kernel is copied.
        kernels = (wide[:, start : start + self.units[0]] for start in range(0, wide.shape[1], self.units[0]))
        return _layer([x.each] * self.count, kernels, tf.split(bias, self.count))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"count": self.count, "units": self.units, "joined": self.joined}


def _layer(
    inputs: Iterable[tf.Tensor], kernels: Iterable[tf.Tensor], biases: Iterable[tf.Tensor]
) -> Sequence[tf.Tensor]:
    """`relu(x_i W_i + b_i)` of every expert."""
    return [tf.nn.relu(project(x, w, b)) for x, w, b in zip(inputs, kernels, biases, strict=True)]


def starts_at_zero(
    initializer: tf.keras.initializers.Initializer, last: int, axis: int
) -> Callable[..., tf.Tensor]:
    """`initializer` with the `last` places along `axis` at 0 and the others drawn as if these were not there."""

    def draw(shape: Sequence[int], dtype: Any = None, **kwargs: Any) -> tf.Tensor:
        shape = list(shape)
        zeros = [*shape[:axis], last, *shape[axis + 1 :]]
        shape[axis] -= last
        return tf.concat([initializer(shape, dtype=dtype), tf.zeros(zeros, dtype)], axis=axis)

    return draw
