"""CGC, customized gate control (Tang et al., RecSys 2020): one extraction layer of PLE."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2.layers.axes import Axes, Axis, Reached
from dlen_cam2.layers.experts import Experts
from dlen_cam2.layers.gates import Gates, Mixture
from dlen_cam2.models.context import Context
from dlen_cam2.models.trunks.mmoe import MMOE
from dlen_cam2.parts import option, trunk

_SHARED = "shared"


@trunk("cgc")
@dataclasses.dataclass
class CGC(MMOE):
    """Customized gate control: one `ExtractionLayer` (Tang et al., 2020, eqs 1-3).

    CERTAIN: DLEN's base has 5 shared experts and 2 for each task (Ali-CCP: 2 and 1).

    Attributes:
        units: layer sizes of an expert; ReLU after each.
        experts: number of experts that all tasks share.
        task_experts: number of experts that belong to each task.
    """

    task_experts: int = option(2, least=1, search=(1, 4))

    title = "CGC"

    def __call__(self, x: tf.Tensor, context: Context) -> tf.Tensor:
        return self.extract(x, context, levels=1)

    def extract(self, x: tf.Tensor, context: Context, levels: int) -> tf.Tensor:
        """Stack `levels` extraction layers (eqs 4-5)."""
        for level in range(1, levels + 1):
            x = ExtractionLayer(
                context.tasks, self.task_experts, self.experts, self.units, last=level == levels, name=f"cgc_{level}"
            )(x)
        return x


@tf.keras.utils.register_keras_serializable(package="dlen_cam2")
class ExtractionLayer(tf.keras.layers.Layer):
    """Customized gate control: tasks own some experts and share others; a task's gate sees its own and the shared ones.

        g^k = softmax(W_k s^k) · [E_k,1 … E_k,m ; E_s,1 … E_s,n]        k = 1..T
        g^s = softmax(W_s s^s) · [all T·m + n experts]                  not in the last layer

    The selector s and the experts' input are the previous layer's fused output of the same module, or in the first
    layer the network's input x. (In public code, the shared gate often sees only shared experts; in the paper, it sees
    all of them.)

    Args:
        tasks: number of tasks T.
        task_experts: experts of each task, m.
        shared_experts: shared experts, n.
        units: layer sizes of an expert.
        last: whether this is the last layer, which has no shared output.

    Input: (B, d) in the first layer (also as `Candidates`), later (B, T + 1, d) with the shared module last.
    Output: (B, T, units[-1]) if `last`, else (B, T + 1, units[-1]).

    Example:
        >>> ExtractionLayer(2, 1, 3, (8,), last=True)(tf.ones((4, 10))).shape
        TensorShape([4, 2, 8])

    References:
        PLE (Tang et al., RecSys 2020), eqs 1-5.
    """

    def __init__(
        self, tasks: int, task_experts: int, shared_experts: int, units: Sequence[int], last: bool, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.tasks = tasks
        self.task_experts = task_experts
        self.shared_experts = shared_experts
        self.units = tuple(units)
        self.last = last
        own = tasks * task_experts
        self._module_of_expert = [k for k in range(tasks) for _ in range(task_experts)] + [tasks] * shared_experts
        self.experts = Experts(own + shared_experts, units, name="experts", dtype=self.dtype_policy)
        self.task_gates = Gates(
            tasks, task_experts + shared_experts, name="task_gates", dtype=self.dtype_policy
        )
        self.shared_gate = None if last else Gates(
            1, own + shared_experts, name="shared_gate", dtype=self.dtype_policy
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        first = inputs.shape.rank == 2
        experts = self.experts(inputs if first else tf.gather(inputs, self._module_of_expert, axis=1))
        # Zeros for the experts of other tasks cost less than to take experts apart and put outputs together again.
        return tf.matmul(self.gate_weights(inputs), experts)

    def gate_weights(self, inputs: tf.Tensor) -> tf.Tensor:
        """The weights of the experts in `call`, (B, T, T·m + n), with the shared gate, unless `last`, as row T + 1.

        The experts are the tasks' in task order, then the shared ones; an expert that a gate does not see has weight 0.
        """
        gates, shared_gate = self._gates(inputs)
        # A split and not slices: the gradient of a split is one concatenation, that of slices a padded copy for each.
        own, shared = tf.split(gates, [self.task_experts, self.shared_experts], axis=2)
        own = own[:, :, None] * tf.eye(self.tasks, dtype=gates.dtype)[:, :, None]
        weights = tf.concat([tf.reshape(own, (-1, self.tasks, self.tasks * self.task_experts)), shared], axis=2)
        return weights if shared_gate is None else tf.concat([weights, shared_gate], axis=1)

    def _gates(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The tasks' gates, (B, T, m + n), and the shared one, (B, 1, T·m + n)."""
        first = inputs.shape.rank == 2
        gates = self.task_gates(inputs if first else inputs[:, : self.tasks])
        if self.shared_gate is None:
            return gates, None
        return gates, self.shared_gate(inputs if first else inputs[:, self.tasks :])

    def mixture(self, tasks: Sequence[str]) -> Mixture:
        """The names of the gates and experts, for introspection."""
        counts = [self.task_experts] * self.tasks + [self.shared_experts]
        owners = zip((*tasks, _SHARED), counts, strict=True)
        experts = tuple(f"{owner} {i + 1}" for owner, count in owners for i in range(count))
        gates = tuple(tasks) if self.last else (*tasks, _SHARED)
        gate, owner = np.arange(len(gates))[:, None], np.repeat(np.arange(len(counts)), counts)
        return Mixture(gates, experts, (owner == gate) | (owner == self.tasks) | (gate == self.tasks))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "tasks": self.tasks, "task_experts": self.task_experts, "shared_experts": self.shared_experts,
            "units": self.units, "last": self.last,
        }

    def axes(self, read: Axis | None, tasks: Axis) -> Axes:
        own = tuple((("task", *key), self.task_experts) for key, _ in tasks.segments)
        experts = Axis("experts", (*own, (("shared",), self.shared_experts)))
        found = [*self.experts.axes_along(experts, read), *self.task_gates.axes_along(read, tasks, None)]
        return found if self.shared_gate is None else [*found, *self.shared_gate.axes_along(read, None, experts)]

    def shared_weights(self) -> Reached:
        """The experts, which are fused in one weight. Through the shared gate all tasks reach all of them, but in the
        last layer a task's own experts are reached by that task alone."""
        own = self.tasks * self.task_experts
        reached = np.ones(own + self.shared_experts, np.float32)
        reached[:own] = not self.last
        return self.experts.shared_along(reached)
