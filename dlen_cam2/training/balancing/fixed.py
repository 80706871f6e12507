"""Fixed weights: those of `config.model.task_weights`."""

import dataclasses

import tensorflow as tf

from dlen_cam2.parts import step_rule
from dlen_cam2.schema import Schema
from dlen_cam2.training.balancing.step_rule import StepRule


@step_rule("fixed")
@dataclasses.dataclass
class Fixed(StepRule):
    """Every step uses the weights ω_k of `config.model.task_weights`; the other rules start from them."""

    def balancer(self, schema: Schema, network: tf.keras.Model, optimizer: tf.keras.optimizers.Optimizer) -> None:
        return None
