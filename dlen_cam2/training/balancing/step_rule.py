"""What every step rule is."""

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
        by_task: the rule needs the gradients of each task, of weights that lie whole on a device.
    """

    by_task: ClassVar[bool] = False

    def __call__(
        self, schema: Schema, network: tf.keras.Model, optimizer: tf.keras.optimizers.Optimizer
    ) -> Balancer | None:
        """The rule with its state, in the scope of the strategy; None: it changes nothing.

        Raises:
            UserError: a value does not fit the tasks or the network, or the rule needs the gradients of each task and
                the strategy is that of parameter servers, which cut the weights into shards.
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
        """See `__call__`."""
        raise NotImplementedError
