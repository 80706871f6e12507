"""Task weights from the tasks' uncertainty (Kendall et al., 2018)."""

import dataclasses

import tensorflow as tf

from dlen_cam2.parts import option, step_rule
from dlen_cam2.schema import Schema
from dlen_cam2.training.balancing.balancer import Balancer, _state
from dlen_cam2.training.balancing.step_rule import StepRule


@step_rule("uncertainty")
@dataclasses.dataclass
class Uncertainty(StepRule):
    """Weights each task by its uncertainty (Kendall et al., 2018), see `UncertaintyBalancer`.

    Attributes:
        learning_rate: learning rate of the learned weights.
    """

    learning_rate: float = option(0.025, above=0)

    def balancer(
        self, schema: Schema, network: tf.keras.Model, optimizer: tf.keras.optimizers.Optimizer
    ) -> "UncertaintyBalancer":
        return UncertaintyBalancer(len(schema.tasks), self.learning_rate)


class UncertaintyBalancer(Balancer):
    """Lowers the weight of an uncertain task: `Σ_k L_k e^{-s_k} + s_k / 2`, with s learned along with the network.

        w_k = e^{-s_k}        s_k ← s_k - η (1/2 - L_k e^{-s_k})

    CERTAIN (Kendall et al., 2018): the classification form; the regression form has L_k / 2 (LibMTL). s_k rests at
    log 2 L_k, where w_k = 1 / (2 L_k). DESIGN: plain gradient descent from s = 0. DESIGN: L_k is the given ω_k L_k, so
    that in the end ω_k cancels and only sets where training starts. DESIGN: s_k stays where the loss is 0; otherwise,
    the weight of a task without rows would grow without bound.

    Args:
        tasks: number of tasks T.
        learning_rate: η.
    """

    def __init__(self, tasks: int, learning_rate: float):
        super().__init__()
        self.learning_rate = learning_rate
        self.s = _state(tf.zeros(tasks), "s")

    def weights(self) -> tf.Tensor:
        return tf.exp(-self.s)

    def update(self, losses: tf.Tensor) -> None:
        slope = tf.where(losses > 0, 0.5 - losses * tf.exp(-self.s), 0.0)
        self.s.assign_sub(self.learning_rate * slope)
