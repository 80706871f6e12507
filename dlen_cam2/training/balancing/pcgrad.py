"""PCGrad (Yu et al., 2020)."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from dlen_cam2.layers.axes import shared_weights
from dlen_cam2.parts import step_rule
from dlen_cam2.schema import Schema
from dlen_cam2.training.balancing.balancer import _state
from dlen_cam2.training.balancing.gradients import Shared, gram
from dlen_cam2.training.balancing.shared_gradients import SharedGradients
from dlen_cam2.training.balancing.step_rule import StepRule


@step_rule("pcgrad")
@dataclasses.dataclass
class PCGrad(StepRule):
    """Gradient surgery (Yu et al., 2020), see `PCGradBalancer`."""

    by_task = True

    def balancer(
        self, schema: Schema, network: tf.keras.Model, optimizer: tf.keras.optimizers.Optimizer
    ) -> "PCGradBalancer":
        return PCGradBalancer(len(schema.tasks), shared_weights(network))


class PCGradBalancer(SharedGradients):
    """Gradient surgery: removes from a task's gradient the component that opposes another task's.

        for each task i, for each j ≠ i in random order:
            if g_i · g_j < 0:  g_i ← g_i - (g_i · g_j / ‖g_j‖²) g_j        with the original g_j
        g = Σ_i g_i

    CERTAIN (Yu et al., 2020; LibMTL): the equations, and that all dense shared weights are one vector. DESIGN: each row
    of an embedding table that the batch touches is a separate vector, since two tasks may agree about one video and not
    about another. DESIGN: the orders are drawn from a seed and a step counter, both in the checkpoint, so that every
    replica draws the same ones.

    All g_i remain sums of the original gradients, so the loop only needs the inner products of these.
    """

    def __init__(self, tasks: int, masks: Sequence[np.ndarray | None]):
        super().__init__(tasks, masks)
        # numpy's seed is set by tf.keras.utils.set_random_seed, together with TensorFlow's.
        self.seed_and_step = _state(tf.constant([np.random.randint(2**31), 0], tf.int64), "seed_and_step")

    def update(self, losses: tf.Tensor) -> None:
        self.seed_and_step.assign_add(tf.constant([0, 1], tf.int64))

    def factors(self, shared: Mapping[int, Shared]) -> Mapping[int, tf.Tensor]:
        draws = tf.random.stateless_uniform((self.tasks, self.tasks), self.seed_and_step)
        orders = tf.argsort(draws, axis=1)
        grams = {n: gram(weight.vectors()) for n, weight in shared.items()}
        dense = [n for n, weight in shared.items() if weight.rows is None]
        factors = {n: projected(each, orders) for n, each in grams.items() if n not in dense}
        if dense:
            of_all = projected(tf.add_n([grams[n] for n in dense]), orders)
            factors |= dict.fromkeys(dense, of_all)
        return factors


def projected(products: tf.Tensor, orders: tf.Tensor) -> tf.Tensor:
    """Run PCGrad's loop for many groups of T vectors at once.

    Args:
        products: (R, T, T), the products g_i · g_j in each group.
        orders: (T, T), for each i all tasks in the order in which the loop visits them.

    Returns:
        (T, R), the factors of the original gradients in Σ_i g_i.
    """
    tasks = products.shape[-1]
    # g_i = Σ_m made[i, m] (original g_m)
    made = tf.eye(tasks, batch_shape=tf.shape(products)[:1])
    squares = tf.linalg.diag_part(products)
    for met in tf.unstack(orders, axis=1):
        dots = tf.reduce_sum(made * tf.gather(products, met, axis=1), axis=2)
        opposed = (dots < 0) & (met != tf.range(tasks))
        share = tf.where(opposed, tf.math.divide_no_nan(dots, tf.gather(squares, met, axis=1)), 0.0)
        made -= share[:, :, None] * tf.one_hot(met, tasks)
    return tf.transpose(tf.reduce_sum(made, axis=1))
