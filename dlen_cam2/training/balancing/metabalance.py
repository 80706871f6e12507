"""MetaBalance (He et al., 2022)."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from dlen_cam2.layers.axes import shared_weights
from dlen_cam2.parts import option, step_rule
from dlen_cam2.schema import Schema
from dlen_cam2.training.balancing.balancer import _state
from dlen_cam2.training.balancing.gradients import Shared
from dlen_cam2.training.balancing.shared_gradients import SharedGradients
from dlen_cam2.training.balancing.step_rule import StepRule
from dlen_cam2.utils.errors import UserError


@step_rule("metabalance")
@dataclasses.dataclass
class MetaBalance(StepRule):
    """Brings auxiliary gradients near the norm of the main task's (He et al., 2022), see `MetaBalanceBalancer`.

    Attributes:
        relax: r; 0 changes nothing, 1 gives the auxiliary gradients the norm of the main one.
        beta: decay of the moving averages of gradient norms.
        main: the main task; empty: the first.
    """

    relax: float = option(0.7, least=0, most=1)
    beta: float = option(0.9, least=0, below=1)
    main: str = ""

    by_task = True

    def balancer(
        self, schema: Schema, network: tf.keras.Model, optimizer: tf.keras.optimizers.Optimizer
    ) -> "MetaBalanceBalancer":
        names = list(schema.task_names)
        if self.main and self.main not in names:
            raise UserError(
                f"config.train.step_rule.main must be one of the tasks {names}, or empty for the first. "
                f"Received: {self.main!r}."
            )
        main = names.index(self.main) if self.main else 0
        return MetaBalanceBalancer(len(names), shared_weights(network), main, self.relax, self.beta)


class MetaBalanceBalancer(SharedGradients):
    """Brings the gradients of auxiliary tasks near the norm of the main task's, in each shared weight.

        n_k ← β n_k + (1 - β) ‖g_k‖
        g = g_main + Σ_{k ≠ main} (r n_main / n_k + 1 - r) g_k

    CERTAIN (He et al., 2022; equations of the official code, re-implemented): a moving norm for each weight tensor and
    task, from 0; gradients are scaled up as well as down. DESIGN: an embedding table is one tensor, with the norm over
    the rows that the batch touches (the official code has dense gradients only).

    Args:
        tasks, masks: see `SharedGradients`.
        main: index of the main task.
        relax: r.
        beta: β.
    """

    def __init__(self, tasks: int, masks: Sequence[np.ndarray | None], main: int, relax: float, beta: float):
        super().__init__(tasks, masks)
        self.main = main
        self.relax = relax
        self.beta = beta
        self.norms = _state(tf.zeros((len(self.masks), tasks)), "norms")

    def factors(self, shared: Mapping[int, Shared]) -> Mapping[int, tf.Tensor]:
        found = [
            tf.norm(shared[n].vectors(), axis=(1, 2)) if n in shared else tf.zeros(self.tasks)
            for n in range(len(self.masks))
        ]
        new = tf.stack(found)
        # DESIGN: the norm of a task that is absent from a batch stays; the official code lets it fall.
        norms = self.norms.assign(tf.where(new > 0, self.beta * self.norms + (1 - self.beta) * new, self.norms))
        ratios = tf.math.divide_no_nan(norms[:, self.main, None], norms)
        return {n: self.relax * ratios[n][:, None] + (1 - self.relax) for n in shared}
