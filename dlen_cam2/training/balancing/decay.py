"""Weights that fall from step to step (PLE)."""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from dlen_cam2.parts import option, step_rule
from dlen_cam2.schema import Schema
from dlen_cam2.training.balancing.balancer import Balancer, _state
from dlen_cam2.training.balancing.step_rule import StepRule
from dlen_cam2.utils.errors import UserError


@step_rule("decay")
@dataclasses.dataclass
class Decay(StepRule):
    """PLE's loss weights, `ω_k,0 γ_k^step`, see `DecayBalancer`.

    Attributes:
        gammas: γ of each task, in the order of the tasks used; a single value holds for all of them.
    """

    gammas: tuple[float, ...] = option((0.9999,), above=0, most=1, some=True)

    def balancer(
        self, schema: Schema, network: tf.keras.Model, optimizer: tf.keras.optimizers.Optimizer
    ) -> "DecayBalancer":
        names = schema.task_names
        if len(self.gammas) not in (1, len(names)):
            raise UserError(
                f"config.train.step_rule.gammas must hold one value, or one for each of the tasks {list(names)}. "
                f"Received: {self.gammas!r}."
            )
        return DecayBalancer(self.gammas if len(self.gammas) == len(names) else self.gammas * len(names))


class DecayBalancer(Balancer):
    """Weights that fall from step to step: `ω_k,t = ω_k,0 γ_k^t`.

    CERTAIN (PLE, Tang et al., 2020): γ_k^t at update t. ω_k,0 is the schema's weight, which the losses already include.

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
