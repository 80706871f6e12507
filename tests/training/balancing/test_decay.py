"""Weights that fall, by hand and in training."""

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.training.balancing import Decay
from dlen_cam2.training.balancing.decay import DecayBalancer
from dlen_cam2.utils.errors import UserError
from tests.support.balancing import make, moved, steps
from tests.support.builders import tiny_schema


def test_decay_is_a_power_of_the_step():
    decay = DecayBalancer([0.5, 1.0])
    found = []
    for _ in range(4):
        found.append(decay.weights().numpy().tolist())
        decay.update(tf.zeros(2))
    assert found == [[1, 1], [0.5, 1], [0.25, 1], [0.125, 1]]


def test_decay_starts_at_the_schemas_weights_and_slows_a_task_down():
    # The third step's gradients of task k are those of fixed weights ω_k γ_k².
    schema = tiny_schema().weigh([1.0, 0.5, 2.0])
    decayed = make(Decay((0.5, 1.0, 0.1)), schema=schema, optimizer=tf.keras.optimizers.SGD(0.0), eagerly=True)
    steps(decayed, [0, 0])
    decayed.optimizer.learning_rate = 0.1
    fixed = make(schema=schema.weigh([0.25, 0.5, 0.02]), optimizer=tf.keras.optimizers.SGD(0.1), eagerly=True)
    for one, other in zip(moved(decayed).values(), moved(fixed).values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("gammas", [(0.9, 0.8), (), (0.9,) * 4])
def test_there_is_one_gamma_or_one_for_each_task(gammas):
    with pytest.raises(UserError) as error:
        Decay(gammas)(tiny_schema(), None, None)
    assert str(error.value) == (
        "config.train.step_rule.gammas must hold one value, or one for each of the tasks ['click', 'hate', 'finish']. "
        f"Received: {gammas!r}."
    )


def test_one_gamma_stands_for_all():
    assert Decay((0.9,))(tiny_schema(), None, None).gammas == (0.9, 0.9, 0.9)
    assert Decay((0.9, 0.8, 0.7))(tiny_schema(), None, None).gammas == (0.9, 0.8, 0.7)
