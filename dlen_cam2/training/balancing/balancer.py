"""Multi-task loss balancing: what a training step does about tasks that pull in different directions.

A balancer receives the losses ω_k L_k, with the schema's weights, over the rows of all replicas. A task without rows in
a batch, or with the weight 0, has the loss 0. CERTAIN and DESIGN say where a choice comes from (CONTRIBUTING.md).
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


class Balancer(tf.Module):
    """The interface that `Ranker.train_step` calls. Variables are part of the checkpoint.

    Attributes:
        by_task: whether `combine` is called with the gradients of each task.
    """

    by_task = False

    def weights(self) -> tf.Tensor:
        """The factors (T,) of the tasks' losses in this step."""
        raise NotImplementedError

    def combine(
        self, gradients: Sequence[Sequence[Any]], losses: tf.Tensor, variables: Sequence[tf.Variable]
    ) -> list[Any]:
        """Combine the gradients into one for each variable. Called if `by_task`.

        Args:
            gradients: for each task, and last for all other losses (CAM2's, regularisers), one gradient for each of
                `variables`: a dense tensor, `tf.IndexedSlices` (rows of embedding tables) or None. They are summed over
                all replicas, and are gradients of the losses times `weights()`.
            losses: (T + 1,), without `weights()`; the last is that of all other losses.
            variables: the variables of the network.
        """
        raise NotImplementedError

    def update(self, losses: tf.Tensor) -> None:
        """Called at the end of a step with the tasks' losses (T,) over all replicas, without `weights()`."""
        return  # AutoGraph cannot read a function without a body


def _state(value: tf.Tensor, name: str) -> tf.Variable:
    """A variable for which every replica computes the same value."""
    return tf.Variable(value, trainable=False, name=name, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)
