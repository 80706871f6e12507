"""GradNorm by hand and against its loss."""

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.models import build
from dlen_cam2.training.balancing import GradNorm
from dlen_cam2.training.balancing.gradnorm import GradNormBalancer
from tests.support.balancing import ALL
from tests.support.builders import tiny_config, tiny_schema


def grad_norm(alpha, rate=0.1, tasks=2):
    return GradNormBalancer(tasks, 0, ALL, alpha, rate)


def feed(method, losses, *gradients):
    """One step with gradients of L_k, on one weight, and of one other loss, which has none."""
    weights = method.weights().numpy()
    pulls = [[tf.constant(w * np.asarray(g, np.float32))] for w, g in zip(weights, gradients, strict=True)]
    return method.combine([*pulls, [None]], tf.constant([*losses, 7.0]), [])


def test_gradnorm_has_no_gradient_where_all_is_equal():
    method = grad_norm(alpha=1.5)
    feed(method, [0.7, 0.7], [3.0, 4.0], [-5.0, 0.0])
    feed(method, [0.6, 0.6], [3.0, 4.0], [-5.0, 0.0])
    assert method.s.numpy().tolist() == [0, 0]
    np.testing.assert_allclose(method.weights(), [1, 1])


def test_gradnorm_steps_by_hand():
    method = grad_norm(alpha=1.0)
    # G = (5, 1), mean 3, all rates 1: a = (5, -1); ∂L/∂s = a - softmax(s) · Σ a = (5 - 2, -1 - 2)
    found = feed(method, [1.0, 2.0], [3.0, 4.0], [1.0, 0.0])
    np.testing.assert_allclose(found[0], [4, 4])
    np.testing.assert_allclose(method.s, [-0.3, 0.3], rtol=1e-6)
    np.testing.assert_allclose(method.first_losses, [1, 2])
    # L̃ = (1, 0.25), r = (1.6, 0.4); equal G: the first task must pull harder, the second less.
    method = grad_norm(alpha=1.0)
    feed(method, [1.0, 2.0], [2.0], [2.0])
    feed(method, [1.0, 0.5], [2.0], [2.0])
    np.testing.assert_allclose(method.s, [0.2, -0.2], rtol=1e-6)  # a = (-2, 2), whose sum is 0


def test_gradnorm_follows_its_loss():
    """The closed form is the derivative of Σ |T softmax(s)_k ‖∇L_k‖ - c_k|."""
    norms, s = tf.constant([3.0, 0.5, 1.0]), tf.Variable([0.1, -0.4, 0.3])
    losses, first = tf.constant([0.5, 0.9, 0.2]), tf.constant([1.0, 1.0, 0.7])
    with tf.GradientTape() as tape:
        pulls = 3 * tf.nn.softmax(s) * norms
        progress = losses / first
        wanted = tf.stop_gradient(tf.reduce_mean(pulls) * (progress / tf.reduce_mean(progress)) ** 1.5)
        loss = tf.reduce_sum(tf.abs(pulls - wanted))
    method = grad_norm(1.5, rate=0.1, tasks=3)
    method.s.assign(s)
    method.first_losses.assign(first)
    feed(method, losses.numpy(), *[[n] for n in norms.numpy()])
    np.testing.assert_allclose(method.s, s - 0.1 * tape.gradient(loss, s), rtol=1e-5)


@pytest.mark.slow
def test_gradnorm_drives_the_weight_of_a_large_loss_down():
    method = grad_norm(alpha=0.0, rate=0.03)
    for _ in range(500):
        feed(method, [50.0, 0.5], [100.0], [1.0])
    weights = method.weights().numpy()
    # w_1 · 100 = w_2 · 1 and w_1 + w_2 = 2
    np.testing.assert_allclose(weights, [2 / 101, 200 / 101], rtol=0.05)


def test_gradnorm_ignores_a_task_without_rows():
    method = grad_norm(alpha=1.5, tasks=3)
    for _ in range(20):
        feed(method, [0.5, 0.5, 0.0], [2.0], [-2.0], [0.0])
    assert method.s.numpy().tolist() == [0, 0, 0]
    feed(method, [0.5, 0.5, 0.3], [2.0], [2.0], [2.0])
    np.testing.assert_allclose(method.first_losses, [0.5, 0.5, 0.3])


def test_it_has_the_values_of_the_configuration():
    network = build(tiny_config().model, tiny_schema())
    made = GradNorm(alpha=0.5, learning_rate=0.1)(tiny_schema(), network, None)
    assert (made.alpha, made.learning_rate) == (0.5, pytest.approx(0.1)) and made.s.shape == (3,)
    assert network.trainable_variables[made.kernel].name == "experts/kernel_1:0"
