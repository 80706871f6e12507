"""CAM2's layers by hand."""

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.models.causal.cam2.cause_mixture import CauseMixture
from dlen_cam2.models.causal.cam2.conformity import Conformity
from dlen_cam2.models.causal.cam2.relevance import Relevance
from tests.support.builders import numpy_sigmoid, numpy_softmax
from tests.support.cam2 import largest

RNG = np.random.default_rng(3)


def test_conformity_by_hand():
    user, item = tf.constant([[1.0, 2.0]]), tf.constant([[2.0, 2.0]])
    assert float(Conformity("norm")([user, item])[0, 0]) == pytest.approx(5.0)  # ‖(3, 4)‖
    layer = Conformity("logistic", rate=0.25)
    layer([user, item])
    layer.read_out.kernel.assign([[0.5], [-1.0]])
    assert float(layer([user, item])[0, 0]) == pytest.approx(np.log(1 / 3) + 1.5 - 4.0)
    with pytest.raises(ValueError, match="kind must be one of.*Received: kind='cubic'"):
        Conformity("cubic")


def test_norm_has_a_finite_gradient_at_zero():
    x = tf.Variable(tf.zeros((1, 3)))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(Conformity("norm")([x, x]))
    assert np.all(np.isfinite(tape.gradient(loss, x)))


def test_relevance_by_hand_and_at_extremes():
    a, b = RNG.normal(size=(50, 4)) * 3, RNG.normal(size=(50, 4)) * 3
    found = Relevance()([tf.constant(a, tf.float32), tf.constant(b, tf.float32)])
    product = numpy_sigmoid(a) * numpy_softmax(b)
    np.testing.assert_allclose(found["interests"], product, rtol=1e-5)
    np.testing.assert_allclose(tf.sigmoid(found["relevance"])[:, 0], product.sum(axis=1), rtol=1e-5)
    extreme = Relevance()([tf.constant([[-80.0, -90.0], [80.0, 90.0]]), tf.constant([[100.0, 0.0], [0.0, -50.0]])])
    np.testing.assert_allclose(extreme["relevance"][:, 0], [-80.0, 80.0], rtol=1e-5)


def test_relevance_starts_at_its_rate():
    found = Relevance(rate=0.02)([tf.zeros((3, 5)), tf.constant(RNG.normal(size=(3, 5)), tf.float32)])
    np.testing.assert_allclose(tf.sigmoid(found["relevance"]), np.full((3, 1), 0.02), rtol=1e-5)
    np.testing.assert_allclose(tf.reduce_sum(found["interests"], axis=1), [0.02] * 3, rtol=1e-5)


def test_mixture_starts_at_the_shares_and_learns_only_its_weights():
    c, r, z = tf.constant([[0.8], [0.1]]), tf.constant([[0.2], [0.4]]), tf.constant([[1.0, 2.0], [0.0, 1.0]])
    for gated in (False, True):
        layer = CauseMixture(gated, share=0.3)
        np.testing.assert_allclose(layer([c, r, z]), 0.3 * c + 0.7 * r, rtol=1e-5)
        with tf.GradientTape() as tape:
            tape.watch([c, r, z])
            loss = tf.reduce_sum(layer([c, r, z]))
        gradients = tape.gradient(loss, [c, r, z, *layer.weights])
        assert gradients[:3] == [None] * 3 and all(largest(g) > 0 for g in gradients[3:])


def fitted_mixture(c, r, y, z, gated):
    layer = CauseMixture(gated, share=0.5)
    inputs = [tf.constant(v, tf.float32) for v in (c[:, None], r[:, None], z)]
    label = tf.constant(y, tf.float32)
    optimizer = tf.keras.optimizers.Adam(0.05)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            p = tf.clip_by_value(layer(inputs)[:, 0], 1e-6, 1 - 1e-6)
            loss = -tf.reduce_mean(label * tf.math.log(p) + (1 - label) * tf.math.log1p(-p))
        optimizer.minimize(loss, layer.trainable_weights, tape)

    layer(inputs)
    for _ in range(400):
        step()
    return layer, inputs


@pytest.mark.parametrize("depends", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_mixing_weights_are_recovered(depends):
    """Joint heads give (1, 1); conditional heads the shares of X, if X does not depend on the input."""
    rng = np.random.default_rng(0)
    n = 60_000
    z = rng.normal(size=n)
    share = numpy_sigmoid(1.6 * z - 0.8) if depends else np.full(n, 0.3)
    above = rng.random(n) < share
    given_above, given_below = numpy_sigmoid(0.5 + 0.5 * z), numpy_sigmoid(-1.0 - 0.8 * z)
    y = rng.random(n) < np.where(above, given_above, given_below)

    joint, _ = fitted_mixture(share * given_above, (1 - share) * given_below, y, z[:, None], gated=False)
    np.testing.assert_allclose(tf.math.softplus(joint.bias), [1, 1], atol=0.03)
    scalars, _ = fitted_mixture(given_above, given_below, y, z[:, None], gated=False)
    weights = tf.math.softplus(scalars.bias).numpy()
    if depends:  # scalars are not the shares then, and the gate is
        assert abs(weights - [share.mean(), 1 - share.mean()]).max() > 0.05
        gated, inputs = fitted_mixture(given_above, given_below, y, z[:, None], gated=True)
        gate = numpy_sigmoid(tf.matmul(inputs[2], gated.kernel) + gated.bias)[:, 0]
        assert np.abs(gate - share).mean() < 0.04
    else:
        np.testing.assert_allclose(weights, [0.3, 0.7], atol=0.03)
