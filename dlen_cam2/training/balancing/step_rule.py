"""`StepRule`, the base class of the step rules."""

import dataclasses
from typing import ClassVar

import tensorflow as tf

from dlen_cam2.parts import Part
from dlen_cam2.schema import Schema
from dlen_cam2.training.balancing.balancer import Balancer
from dlen_cam2.utils.errors import UserError


@dataclasses.dataclass
class StepRule(Part):
    """What a training step does about tasks that pull in different directions.

    Attributes:
        by_task: whether the rule needs the gradients of each task, for weights that are whole on each device.
    """

    by_task: ClassVar[bool] = False

    def __call__(
        self, schema: Schema, network: tf.keras.Model, optimizer: tf.keras.optimizers.Optimizer
    ) -> Balancer | None:
        """Create the balancer with its state, in the scope of the strategy; None: the rule changes nothing.

        Raises:
            UserError: a value does not fit the tasks or the network, or the rule needs the gradients of each task and
                the strategy is that of parameter servers, which shard the weights.
        """
        if self.by_task and isinstance(tf.distribute.get_strategy(), tf.distribute.ParameterServerStrategy):
            raise UserError(
                "config.train.step_rule must not need the gradient of each task with --strategy=parameter_server, "
                f"which shards the weights. Received: {self.name!r}."
            )
        return self.balancer(schema, network, optimizer)

    def balancer(
        self, schema: Schema, network: tf.keras.Model, optimizer: tf.keras.optimizers.Optimizer
    ) -> Balancer | None:
        """The balancer itself, see `__call__`."""
        raise NotImplementedError
