"""MetaBalance (He et al., 2022)."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from dlen_cam2.training.balancing.balancer import _state
from dlen_cam2.training.balancing.gradients import Shared
from dlen_cam2.training.balancing.shared_gradients import SharedGradients


class MetaBalance(SharedGradients):
    """Auxiliary tasks' gradients are brought near the norm of the main task's, in each shared weight.

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
