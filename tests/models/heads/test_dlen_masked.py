"""DLEN of a task that follows another: eq 1 as printed, and the exact form."""

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.models import DLEN
from dlen_cam2.models.context import Context
from dlen_cam2.models.heads.dlen import CappedHead, capped_probability
from dlen_cam2.schema import Schema, Task
from dlen_cam2.utils.errors import UserError
from tests.support.builders import numpy_sigmoid


def test_a_task_that_follows_another_by_the_exact_form():
    """methods.md, section 19: P(UP) = .5, click .8 and .05, buy .2 and .02 of the clicked; by hand."""
    def logit(p):
        return np.log(p / (1 - p))

    a, b = logit(np.array([[0.8, 0.2]])), logit(np.array([[0.05 / 0.5, 0.02 / 0.5]]))
    given = (tf.constant(a, tf.float32), tf.constant(b, tf.float32), tf.zeros((1, 1)), (0.5, 0.5))
    p_click = 0.5 * 0.8 + 0.5 * 0.05
    up = 0.5 * 0.8 / p_click  # P(UP | click), by Bayes
    exact = capped_probability(*given, parents=(None, 0))
    np.testing.assert_allclose(tf.sigmoid(exact["logits"]), [[p_click, 0.2 * up + 0.02 * (1 - up)]], rtol=1e-5)
    np.testing.assert_allclose(tf.sigmoid(exact["latent_given"]), [[0.5, up]], rtol=1e-5)
    assert round(float(tf.sigmoid(exact["logits"])[0, 1]), 3) == 0.189
    printed = capped_probability(*given)
    np.testing.assert_allclose(tf.sigmoid(printed["logits"]), [[p_click, 0.11]], rtol=1e-5)


def test_the_exact_form_of_a_chain_is_the_joint_of_all_paths():
    """P(click, cart, buy) = Σ_UP P(UP) Π_k P(k | UP, those before), in float64; extreme logits stay finite."""
    rng = np.random.default_rng(5)
    a, b, u = rng.normal(0, 2, (200, 3)), rng.normal(0, 2, (200, 3)), rng.normal(0, 2, (200, 1))
    alphas = np.array([0.3, 1.0, 0.05])
    found = capped_probability(*(tf.constant(v, tf.float32) for v in (a, b, u)), alphas, parents=(None, 0, 1))
    product = np.prod(numpy_sigmoid(found["logits"].numpy()), axis=1)
    p_up = numpy_sigmoid(u[:, 0])
    whole = p_up * np.prod(numpy_sigmoid(a), axis=1) + (1 - p_up) * np.prod(alphas * numpy_sigmoid(b), axis=1)
    np.testing.assert_allclose(product, whole, rtol=2e-4)
    far = [tf.constant(np.full((4, 3), v), tf.float32) for v in (80.0, -80.0)]
    with tf.GradientTape() as tape:
        tape.watch(far)
        latent = tf.constant(np.full((4, 1), -80.0), tf.float32)
        logits = capped_probability(*far, latent, alphas, (None, 0, 1))["logits"]
        total = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(tf.ones_like(logits), logits))
    assert np.isfinite(total) and all(np.isfinite(g).all() for g in tape.gradient(total, far))


@pytest.mark.parametrize("masked", ["exposure", "parent"])
def test_a_masked_task_starts_at_its_rate(masked):
    schema = Schema("served", (), (Task("click", positive_rate=0.3), Task("buy", mask="click", positive_rate=0.2)))
    context = Context(schema, {})
    found = DLEN(latent_units=(4,), masked=masked)(tf.zeros((2, 2, 3)), tf.zeros((2, 5)), context)
    np.testing.assert_allclose(tf.sigmoid(found["logits"]), [[0.3, 0.2]] * 2, rtol=1e-4)
    assert ("latent_given" in found) == (masked == "parent")
    scores = DLEN(latent_units=(4,), masked=masked).scores(found, schema)
    assert float(scores["buy_up"][0]) <= 0.2


def test_a_masked_task_starts_at_its_rate_after_a_rare_one_without_a_cap():
    """The rate 1e-6 of the uncapped task is clipped to 1e-4 in both of its networks, so it says nothing of UP."""
    layer = CappedHead([1.0, 0.03], [1e-6, 0.1], 0.5, parents=(None, 0))
    found = layer([tf.zeros((1, 2, 3)), tf.zeros((1, 1))])
    np.testing.assert_allclose(tf.sigmoid(found["logits"]), [[1e-4, 0.1]], rtol=1e-4)


def test_a_task_must_follow_what_it_followed_to_grow():
    click, buy = Task("click", positive_rate=0.3), Task("buy", mask="click", positive_rate=0.2)
    before, now = Schema("s", (), (buy,)), Schema("s", (), (click, buy))
    DLEN().check_grown(before, now, (), {})
    DLEN(masked="parent").check_grown(now, Schema("s", (), (Task("like"), buy, click)), (), {})
    with pytest.raises(UserError, match=r"must have \['buy'\] follow .*Received: \['click'\] in place of \[None\]"):
        DLEN(masked="parent").check_grown(before, now, (), {})
