"""Weights that fall from step to step (PLE)."""

from collections.abc import Sequence

import tensorflow as tf

from dlen_cam2.training.balancing.balancer import Balancer, _state


class Decay(Balancer):
    """Weights that fall from step to step: `ω_k,t = ω_k,0 γ_k^t`.

    CERTAIN (PLE, Tang et al., 2020): γ_k^t at update t. ω_k,0 is the schema's weight, which the losses have already.

    Args:
        gammas: γ of each task.
    """

    def __init__(self, gammas: Sequence[float]):
        super().__init__()
        self.gammas = tuple(gammas)
        self.step = _state(tf.zeros((), tf.int64), "step")

    def weights(self) -> tf.Tensor:
        return tf.pow(tf.constant(self.gammas, tf.float32), tf.cast(self.step, tf.float32))

    def update(self, losses: tf.Tensor) -> None:
        self.step.assign_add(1)
