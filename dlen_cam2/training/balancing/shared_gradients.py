"""The base class of the methods that change gradients of shared weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2.training.balancing.balancer import Balancer
from dlen_cam2.training.balancing.gradients import Shared, side_by_side, total


class SharedGradients(Balancer):
    """Sums the tasks' gradients; those of shared weights are multiplied by factors that a subclass computes.

    DESIGN: the shared weights are the trunk's embeddings and experts, except PLE's task experts of the last level, as
    their layers declare, see `dlen_cam2.layers.axes`. The gradients of all other weights (gates, towers, heads, the
    latent state, CAM2's branches), and those of all other losses, are added unchanged.

    Args:
        tasks: number of tasks T.
        masks: the result of `shared_weights`.
    """

    by_task = True

    def __init__(self, tasks: int, masks: Sequence[np.ndarray | None]):
        super().__init__()
        self.tasks = tasks
        self.masks = tuple(masks)

    def weights(self) -> tf.Tensor:
        return tf.ones(self.tasks)

    def factors(self, shared: Mapping[int, Shared]) -> Mapping[int, tf.Tensor]:
        """The factors by the index of a shared weight: (T, 1), or (T, rows) for a table."""
        raise NotImplementedError

    def combine(
        self, gradients: Sequence[Sequence[Any]], losses: tf.Tensor, variables: Sequence[tf.Variable]
    ) -> list[Any]:
        by_weight = list(zip(*gradients, strict=True))
        shared = {
            n: side_by_side(of_tasks, mask) for n, ((*of_tasks, _), mask)
            in enumerate(zip(by_weight, self.masks, strict=True))
            if mask is not None and any(g is not None for g in of_tasks)
        }
        factors = self.factors(shared)
        return [
            total([shared[n].total(factors[n]), each[-1]] if n in shared else each) for n, each in enumerate(by_weight)
        ]
