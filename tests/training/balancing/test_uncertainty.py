"""Weights by the tasks' own uncertainty, by hand."""

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.training.balancing import Uncertainty
from dlen_cam2.training.balancing.uncertainty import UncertaintyBalancer
from tests.support.builders import tiny_schema


def test_uncertainty_rests_where_the_weight_is_one_over_twice_the_loss():
    losses = np.array([0.1, 0.5, 4.0])
    uncertainty = UncertaintyBalancer(3, learning_rate=0.1)
    assert uncertainty.weights().numpy().tolist() == [1, 1, 1]
    for _ in range(500):
        uncertainty.update(tf.constant(losses, tf.float32))
    s = uncertainty.s.numpy()
    np.testing.assert_allclose(s, np.log(2 * losses), atol=1e-5)
    np.testing.assert_allclose(uncertainty.weights(), 1 / (2 * losses), rtol=1e-5)
    # Σ ½ + ½ log 2 L_k
    assert np.sum(losses * np.exp(-s) + s / 2) == pytest.approx(1.5 + 0.5 * np.log(0.2 * 1.0 * 8.0), rel=1e-6)


def test_uncertainty_steps_by_hand_and_leaves_a_task_without_rows_alone():
    uncertainty = UncertaintyBalancer(3, learning_rate=0.1)
    uncertainty.update(tf.constant([2.0, 0.25, 0.0]))
    np.testing.assert_allclose(uncertainty.s, [0.15, -0.025, 0.0], rtol=1e-6)
    uncertainty.update(tf.constant([2.0, 0.25, 0.0]))
    expected = [0.15 - 0.1 * (0.5 - 2 * np.exp(-0.15)), -0.025 - 0.1 * (0.5 - 0.25 * np.exp(0.025)), 0.0]
    np.testing.assert_allclose(uncertainty.s, expected, rtol=1e-5)


def test_it_has_the_rate_of_the_configuration():
    made = Uncertainty(0.5)(tiny_schema(), None, None)
    assert made.learning_rate == 0.5 and made.s.shape == (3,)
