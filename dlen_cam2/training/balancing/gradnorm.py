"""GradNorm (Chen et al., 2018)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2.parts import option, step_rule
from dlen_cam2.schema import Schema
from dlen_cam2.training.balancing.balancer import Balancer, _state
from dlen_cam2.training.balancing.gradients import added, last_kernel, side_by_side
from dlen_cam2.training.balancing.step_rule import StepRule


@step_rule("gradnorm")
@dataclasses.dataclass
class GradNorm(StepRule):
    """Makes all tasks pull equally hard on the last shared layer (Chen et al., 2018), see `GradNormBalancer`.

    Attributes:
        alpha: α, how strongly tasks that learn slowly are favoured.
        learning_rate: learning rate of the learned weights.
    """

    alpha: float = option(1.5, least=0)
    learning_rate: float = option(0.025, above=0)

    by_task = True

    def balancer(
        self, schema: Schema, network: tf.keras.Model, optimizer: tf.keras.optimizers.Optimizer
    ) -> "GradNormBalancer":
        return GradNormBalancer(len(schema.tasks), *last_kernel(network), self.alpha, self.learning_rate)


class GradNormBalancer(Balancer):
    """Weights under which all tasks pull equally hard on the last shared layer, and slow learners harder.

        w = T softmax(s)                  G_k = ‖∇_W w_k L_k‖
        r_k = L̃_k / mean L̃               L̃_k = L_k(t) / L_k(0)
        L_grad = Σ_k |G_k - c_k|          c_k = mean G · r_k^α, a constant
        ∂L_grad/∂s_m = a_m - w_m / T · Σ_k a_k,     a_k = sign(G_k - c_k) G_k

    CERTAIN (Chen et al., 2018, in LibMTL's form): the equations; gradients of L_grad go to s only. DESIGN: W is the
    kernel of the last layer of the trunk's (last) experts; in PLE's last level, the part of the shared experts. DESIGN:
    L_k(0) is a task's first loss that is not 0 (LibMTL: the mean of the first epoch). DESIGN: plain gradient descent
    from s = 0. DESIGN: means are over the tasks whose loss is not 0; otherwise, the weight of a task without rows would
    grow.

    Args:
        tasks: number of tasks T.
        kernel: index of W among the network's trainable variables.
        mask: which elements of W more than one task reaches, 1 or 0.
        alpha: α.
        learning_rate: learning rate of s.
    """

    by_task = True

    def __init__(self, tasks: int, kernel: int, mask: np.ndarray, alpha: float, learning_rate: float):
        super().__init__()
        self.kernel = kernel
        self.mask = mask
        self.alpha = alpha
        self.learning_rate = learning_rate
        self.s = _state(tf.zeros(tasks), "s")
        self.first_losses = _state(tf.zeros(tasks), "first_losses")

    def weights(self) -> tf.Tensor:
        return self.s.shape[0] * tf.nn.softmax(self.s)

    def combine(
        self, gradients: Sequence[Sequence[Any]], losses: tf.Tensor, variables: Sequence[tf.Variable]
    ) -> list[Any]:
        pulls = side_by_side([each[self.kernel] for each in gradients[:-1]], self.mask)
        self._learn(tf.norm(pulls.vectors()[:, 0], axis=1), losses[:-1])
        return [added(each) for each in zip(*gradients, strict=True)]

    def _learn(self, norms: tf.Tensor, losses: tf.Tensor) -> None:
        """Update s by one step, from G and L, (T,)."""
        here = tf.cast(losses > 0, tf.float32)
        self.first_losses.assign(tf.where(self.first_losses > 0, self.first_losses, losses))
        progress = tf.math.divide_no_nan(losses, self.first_losses)
        rates = tf.math.divide_no_nan(progress, _mean(progress, here))
        wanted = _mean(norms, here) * rates**self.alpha
        a = tf.sign(norms - wanted) * norms
        self.s.assign_sub(self.learning_rate * (a - tf.nn.softmax(self.s) * tf.reduce_sum(a)))


def _mean(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(tf.reduce_sum(values * mask), tf.reduce_sum(mask))
