"""Multi-task loss balancing: what a training step does about tasks that pull in different directions.

The losses that reach a balancer are ω_k L_k, with the schema's weights, over the rows of all replicas. A task without
rows in a batch, or with the weight 0, has the loss 0. CERTAIN and DESIGN say where a choice is from
(CONTRIBUTING.md).
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


class Balancer(tf.Module):
    """What `Ranker.train_step` asks. Variables are part of the checkpoint.

    Attributes:
        by_task: whether `combine` is called, with the gradients of each task.
    """

    by_task = False

    def weights(self) -> tf.Tensor:
        """(T,): factors of the tasks' losses in this step."""
        raise NotImplementedError

    def combine(
        self, gradients: Sequence[Sequence[Any]], losses: tf.Tensor, variables: Sequence[tf.Variable]
    ) -> list[Any]:
        """One gradient for each variable. Called if `by_task`.

        Args:
            gradients: for each task, and at the end for all other losses (CAM2's, regularisers), one gradient for each
                of `variables`: a dense tensor, `tf.IndexedSlices` (rows of embedding tables) or None. They are summed
                over all replicas, and are of the losses times `weights()`.
            losses: (T + 1,), without `weights()`; the last of all other losses.
            variables: the network's.
        """
        raise NotImplementedError

    def update(self, losses: tf.Tensor) -> None:
        """Called at the end of a step with the tasks' losses (T,) over all replicas, without `weights()`."""
        return  # AutoGraph cannot read a function without a body


def _state(value: tf.Tensor, name: str) -> tf.Variable:
    """A variable of which every replica computes the same value."""
    return tf.Variable(value, trainable=False, name=name, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)
