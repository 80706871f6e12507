"""Experts: many small networks of the same shape, side by side."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2.layers.axes import Axes, Axis, Reached
from dlen_cam2.layers.candidates import Candidates, of_each, project, rows
from dlen_cam2.utils.custom_gradient import custom_gradient


@tf.keras.utils.register_keras_serializable(package="dlen_cam2")
class Experts(tf.keras.layers.Layer):
    """`count` independent ReLU networks of equal shape: `f_i(x) = relu(… relu(x W_i + b_i) …)`.

    They serve as the experts of MMOE and PLE (one input for all of them) and as the towers of all tasks (one input for
    each). Each network has separate matrix products: TensorFlow computes several at a time, and the output of an
    expert's layer stays in the cache, whereas one product for all experts would go through memory
    (`docs/decisions/speed.md`).

    Each expert is initialised by a separate draw, with the Glorot limit of a single expert's fan-in and fan-out, not
    that of the stack.

    Args:
        count: number of networks E.
        units: sizes of the layers; ReLU after each. An empty sequence passes the input on.
        joined: number of the input's last columns that are joined from another network. Their weights start at 0 and
            the others as if they were absent, so that they do not change the initial outputs.
        per_task: whether each network belongs to one task, in the order of the tasks (towers).

    Input: (B, d), shared by all networks (also as `Candidates`), or (B, E, d), one for each. Output: (B, E, units[-1]).

    Example:
        >>> Experts(5, (256, 128, 64))(tf.ones((2, 10))).shape
        TensorShape([2, 5, 64])

    References:
        MMOE (Ma et al., 2018), eq 6: f^k(x) = sum_i g^k(x)_i f_i(x).
    """

    def __init__(self, count: int, units: Sequence[int], joined: int = 0, per_task: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.count = count
        self.units = tuple(units)
        self.joined = joined
        self.per_task = per_task

    def build(self, input_shape: Any) -> None:
        self._shared_input = len(input_shape) == 2
        if not self._shared_input and input_shape[1] != self.count:
            raise ValueError(f"inputs must be (B, d) or (B, count={self.count}, d). Received: shape={input_shape}.")
        self.kernels, self.biases = [], []
        fan_in = input_shape[-1]
        for level, fan_out in enumerate(self.units):
            joined = self.joined if level == 0 else 0
            limit = math.sqrt(6 / (fan_in - joined + fan_out))
            axis = self.axis(level)
            uniform = tf.keras.initializers.RandomUniform(-limit, limit)
            self.kernels.append(self.add_weight(
                name=f"kernel_{level}",
                shape=(fan_in, self.count, fan_out) if axis else (self.count, fan_in, fan_out),
                initializer=starts_at_zero(uniform, joined, axis=1 - axis) if joined else uniform,
            ))
            self.biases.append(self.add_weight(
                name=f"bias_{level}", shape=(self.count, fan_out), initializer="zeros"
            ))
            fan_in = fan_out
        super().build(input_shape)

    def axis(self, level: int) -> int:
        """The axis of the experts in a level's kernel: 1 if they share the input and so lie side by side, else 0."""
        return int(self._shared_input and level == 0)

    def call(self, inputs: tf.Tensor | Candidates) -> tf.Tensor:
        if not self.units:
            return tf.repeat(rows(inputs)[:, None], self.count, axis=1) if self._shared_input else inputs
        first = 0
        if isinstance(inputs, Candidates):
            outputs, first = self._of_candidates(inputs), 1
        else:
            outputs = [inputs] * self.count if self._shared_input else tf.unstack(inputs, axis=1)
        for level in range(first, len(self.units)):
            outputs = _layer(outputs, self.kernels[level], self.biases[level], self.axis(level))
        return tf.stack(outputs, axis=1)

    def _of_candidates(self, x: Candidates) -> Sequence[tf.Tensor]:
        """The first layer: (N, units[0]) for each expert, and the user's part once for all of them."""
        kernel, bias = self.kernels[0], self.biases[0]
        wide, bias = of_each(x, tf.reshape(kernel, (kernel.shape[0], -1)), tf.reshape(bias, (-1,)))
        # Slices and not a split: the first experts need not wait until the last kernel is copied.
        kernels = (wide[:, start : start + self.units[0]] for start in range(0, wide.shape[1], self.units[0]))
        return _outputs([x.each] * self.count, kernels, tf.split(bias, self.count))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "count": self.count, "units": self.units, "joined": self.joined, "per_task": self.per_task,
        }

    def axes(self, read: Axis | None, tasks: Axis) -> Axes:
        return self.axes_along(tasks if self.per_task else None, read)

    def axes_along(self, count: Axis | None, read: Axis | None) -> Axes:
        """`axes`, given the axis along which the networks lie and the columns that they read."""
        found: Axes = []
        for level, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            columns = read if level == 0 else None
            found.append((kernel, (columns, count, None) if self.axis(level) else (count, columns, None)))
            found.append((bias, (count, None)))
        return found

    def shared_weights(self) -> Reached:
        return [] if self.per_task else self.shared_along(np.ones(self.count, np.float32))

    def shared_along(self, reached: np.ndarray) -> Reached:
        """`shared_weights`, for networks that more than one task reaches where `reached`, (E,), is 1."""
        found: Reached = []
        for level, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            found.append((kernel, reached[:, None] if self.axis(level) else reached[:, None, None]))
            found.append((bias, reached[:, None]))
        return found


def _layer(inputs: Sequence[tf.Tensor], kernel: tf.Variable, bias: tf.Variable, axis: int) -> Sequence[tf.Tensor]:
    """Compute `relu(x_i W_i + b_i)` for every expert.

    The gradient is computed for the inputs before the kernels. The tables wait for the input gradients of the first
    layer, and their update, which uses one thread, then runs in parallel with the remaining products.

    Args:
        inputs: E tensors (B, d).
        kernel: (E, d, h), or (d, E, h) if `axis` is 1.
        bias: (E, h).
        axis: the axis of the experts in the kernel.
    """

    @custom_gradient
    def layer(kernel: tf.Tensor, bias: tf.Tensor, *inputs: tf.Tensor) -> tuple[Sequence[tf.Tensor], Callable[..., Any]]:
        outputs = _outputs(inputs, tf.unstack(kernel, axis=axis), tf.unstack(bias))

        def gradient(*of_outputs: tf.Tensor) -> Sequence[tf.Tensor]:
            # TensorFlow adds up gradients in the order of their names, and "g" of its own "gradient_tape" comes before
            # this name in the step as in a loop of steps, so that both give the same bits.
            with tf.name_scope("of_experts"):
                sums = [tf.raw_ops.ReluGrad(gradients=g, features=y) for g, y in zip(of_outputs, outputs, strict=True)]
                # Turned together: of a kernel that is turned alone TensorFlow makes `transpose_b`, which is slower.
                turned = tf.unstack(tf.transpose(kernel, (axis, 2, 1 - axis)))
                of_inputs = [tf.matmul(g, w) for g, w in zip(sums, turned, strict=True)]
                with tf.control_dependencies(of_inputs):
                    of_kernels = [tf.matmul(x, g, transpose_a=True) for x, g in zip(inputs, sums, strict=True)]
                of_biases = [tf.raw_ops.BiasAddGrad(out_backprop=g) for g in sums]
                return tf.stack(of_kernels, axis=axis), tf.stack(of_biases), *of_inputs

        return outputs, gradient

    return layer(tf.convert_to_tensor(kernel), tf.convert_to_tensor(bias), *inputs)


def _outputs(
    inputs: Iterable[tf.Tensor], kernels: Iterable[tf.Tensor], biases: Iterable[tf.Tensor]
) -> Sequence[tf.Tensor]:
    """`relu(x_i W_i + b_i)` for every expert."""
    return [tf.nn.relu(project(x, w, b)) for x, w, b in zip(inputs, kernels, biases, strict=True)]


def starts_at_zero(
    initializer: tf.keras.initializers.Initializer, last: int, axis: int
) -> Callable[..., tf.Tensor]:
    """An initializer with 0 at the `last` places along `axis`; the other places are drawn as if these were absent."""

    def draw(shape: Sequence[int], dtype: Any = None, **kwargs: Any) -> tf.Tensor:
        shape = list(shape)
        zeros = [*shape[:axis], last, *shape[axis + 1 :]]
        shape[axis] -= last
        return tf.concat([initializer(shape, dtype=dtype), tf.zeros(zeros, dtype)], axis=axis)

    return draw
