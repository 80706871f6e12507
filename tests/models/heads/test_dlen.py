"""DLEN: closed forms of its probabilities and gradients, the caps, and what is served."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.layers import TaskLogits
from dlen_cam2.layers.log_space import log_not_capped
from dlen_cam2.models import DLEN, Logistic
from dlen_cam2.models.heads.dlen import CappedHead, capped_probability
from dlen_cam2.schema import Schema, Task
from dlen_cam2.utils.errors import UserError
from tests.support.builders import numpy_sigmoid, tiny_schema

ALPHAS = (0.003, 0.1, 0.7, 1.0)
RNG = np.random.default_rng(0)
A, B, U = (RNG.normal(0, 3, shape) for shape in ((500, 4), (500, 4), (500, 1)))


def outputs(a, b, u, alphas=ALPHAS):
    return capped_probability(*(tf.constant(np.asarray(v), tf.float32) for v in (a, b, u)), alphas)


def probabilities(found):
    """Of the head, of as many tasks as there are logits."""
    return DLEN().predictions(found, of_tasks(*(Task(str(k)) for k in range(found["logits"].shape[1]))))


def probability(*logits_and_alphas):
    return probabilities(outputs(*logits_and_alphas)).numpy()


def of_tasks(*tasks):
    return Schema("served", (), tasks)


def reference(a, b, u, alphas=ALPHAS):
    """Eqs 1, 9 and 10 in probability space and float64: P(k|UP), P(k|not UP), P(UP), P(k)."""
    a, b, not_u, u = numpy_sigmoid(a), np.asarray(alphas) * numpy_sigmoid(b), numpy_sigmoid(-u), numpy_sigmoid(u)
    return a, b, u, a * u + b * not_u


def cross_entropy_gradients(a, b, u, label, alphas=ALPHAS):
    """Gradients of every element's own cross-entropy by its logits a, b and u."""
    with tf.GradientTape() as tape:
        # u is repeated for each task, so that its gradient is not summed over the tasks.
        logits = [tf.constant(np.broadcast_to(v, np.shape(a)), tf.float32) for v in (a, b, u)]
        tape.watch(logits)
        out = capped_probability(*logits, alphas)["logits"]
        loss = tf.nn.sigmoid_cross_entropy_with_logits(tf.fill(out.shape, float(label)), out)
    return [g.numpy() for g in tape.gradient(loss, logits)]


def test_log_space_equals_probability_space():
    a, b, _, p = reference(A, B, U)
    out = outputs(A, B, U)
    np.testing.assert_allclose(probabilities(out), p, rtol=1e-5)  # a float32 log of size 10 is exact to 1e-6
    np.testing.assert_allclose(tf.sigmoid(-out["logits"]), 1 - p, rtol=1e-5)
    np.testing.assert_allclose(tf.sigmoid(out["preferred"]), a, rtol=1e-6)
    np.testing.assert_allclose(tf.exp(out["not_preferred"]), b, rtol=1e-5)


def test_by_hand():
    # a = 3/4, b = 0.4 * 1/2, P(UP) = 1/5: p = 0.75 * 0.2 + 0.2 * 0.8 = 0.31
    log3, log4 = np.log(3), np.log(4)
    assert probability([[log3]], [[0.0]], [[-log4]], [0.4])[0, 0] == pytest.approx(0.31, rel=1e-6)


def test_certain_preference_leaves_one_branch():
    a, b, _, _ = reference(A, B, U)
    np.testing.assert_allclose(probability(A, B, np.full_like(U, 80)), a, rtol=1e-5)
    without = probability(A, B, np.full_like(U, -80))
    np.testing.assert_allclose(without, b, rtol=2e-5)  # float32 logs of size 80
    assert np.all(without <= np.float32(ALPHAS) * (1 + 2e-5))


def test_bounds():
    a, _, u, _ = reference(A, B, U)
    p = probability(A, B, U)
    assert np.all(p >= u * a * (1 - 1e-5))
    assert np.all(p <= (u * a + np.array(ALPHAS) * (1 - u)) * (1 + 1e-5))
    assert not np.all(p <= (u * a + 0.5 * np.array(ALPHAS) * (1 - u)))  # the bound is the cap, not less


@pytest.mark.parametrize("label", [0, 1])
def test_cross_entropy_gradients_by_hand(label):
    a, b, u, p = reference(A, B, U)
    by_a, by_b, by_u = cross_entropy_gradients(A, B, U, label)
    by_p = -1 / p if label else 1 / (1 - p)  # dCE/dp
    share = np.asarray(b / ALPHAS)
    # From probabilities to logits by dσ(x)/dx = σ (1 - σ). For P(UP): -(a - b)/p, or (a - b)/(1 - p).
    # The terms of each gradient are at most 1, so 2e-6 is some roundings of float32.
    np.testing.assert_allclose(by_u, by_p * (a - b) * u * (1 - u), rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(by_a, by_p * u * a * (1 - a), rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(by_b, by_p * (1 - u) * b * (1 - share), rtol=1e-5, atol=2e-6)


def test_rare_tasks_keep_their_precision():
    # p runs from 3e-10 to 1e-8: below float32's resolution at 1, which the logits must not feel.
    a, b, u, alphas = np.array([[-20.0, -21.0, -18.0]]), np.array([[0.5, -1.0, 1.5]]), np.array([[0.7]]), [1e-9] * 3
    *_, p = reference(a, b, u, alphas)
    assert np.all((p > 1e-10) & (p < 2e-8))
    np.testing.assert_allclose(probability(a, b, u, alphas), p, rtol=1e-5)
    pa, pb, pu, _ = reference(a, b, u, alphas)
    negatives = cross_entropy_gradients(a, b, u, 0, alphas)
    np.testing.assert_allclose(negatives[0], pu * pa * (1 - pa) / (1 - p), rtol=1e-4)
    np.testing.assert_allclose(negatives[1], (1 - pu) * pb * (1 - pb / alphas) / (1 - p), rtol=1e-4)


@pytest.mark.parametrize("alpha", [1e-8, 1e-6, 1e-4, 0.01, 0.3, 0.9, 0.999, 1.0])
def test_the_complement_of_a_capped_probability_keeps_its_precision(alpha):
    """log(1 - α σ(b)) and its gradient against float64, in a form that does not cancel there."""
    b = np.linspace(-90, 90, 721, dtype=np.float32)
    with tf.GradientTape() as tape:
        x = tf.constant(b)
        tape.watch(x)
        found = log_not_capped(x, [alpha])
    a, b = float(np.float32(alpha)), b.astype(float)
    one, other = numpy_sigmoid(b), numpy_sigmoid(-b)
    rest = other + (1 - a) * one
    wanted = np.where(a * one < 0.5, np.log1p(-np.minimum(a * one, 0.5)), np.log(rest))
    # Some roundings of logs up to 100; float32 flushes what is below its smallest normal number to 0.
    tolerance = {"rtol": 1e-5, "atol": np.finfo(np.float32).tiny}
    np.testing.assert_allclose(found, wanted, **tolerance)
    np.testing.assert_allclose(tape.gradient(found, x), -a * one * other / rest, **tolerance)


@pytest.mark.parametrize("label", [0, 1])
def test_extreme_logits_stay_finite(label):
    grid = np.array(list(itertools.product((-100.0, -60.0, 0.0, 60.0, 100.0), repeat=3)))
    a, b, u = (np.repeat(column[:, None], 3, axis=1) for column in grid.T)
    alphas = (1e-6, 0.3, 1.0)
    assert all(np.all(np.isfinite(v)) for v in outputs(a, b, u[:, :1], alphas).values())
    assert all(np.all(np.isfinite(g)) for g in cross_entropy_gradients(a, b, u, label, alphas))
    *_, p = reference(a, b, u, alphas)
    np.testing.assert_allclose(probability(a, b, u[:, :1], alphas), p, rtol=2e-5, atol=1e-30)


def test_equal_branches_have_the_right_gradient():
    # a = b and P(UP) = 1/2: both terms of the mixture are the same number, where a careless max would go wrong.
    by_a, by_b, by_u = cross_entropy_gradients([[0.3]], [[0.3]], [[0.0]], 1, [1.0])
    half = (numpy_sigmoid(0.3) - 1) / 2
    np.testing.assert_allclose([by_a[0, 0], by_b[0, 0], by_u[0, 0]], [half, half, 0], rtol=1e-5, atol=1e-7)


def test_only_the_product_is_identified():
    # With a tiny cap, (a s, u / s) is as likely as (a, u): P(UP) is known by rank, not by level.
    a, u, s = RNG.uniform(0.05, 0.4, (50, 1)), RNG.uniform(0.5, 0.9, (50, 1)), 2.0
    def logit(p):
        return np.log(p / (1 - p))
    def difference(alpha):
        b = np.zeros_like(a)
        return np.abs(probability(logit(a), b, logit(u), [alpha])
                      - probability(logit(a * s), b, logit(u / s), [alpha])).max()
    assert difference(1e-5) <= 1e-5
    assert difference(0.5) > 0.05


# === The caps ===

@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.1, float("nan")])
def test_a_cap_outside_its_range(alpha):
    with pytest.raises(ValueError, match=r"alphas must be in \(0, 1\].*Received: alphas="):
        CappedHead([0.5, alpha])


def test_one_cap_for_each_task():
    with pytest.raises(ValueError, match="one cap for each of 3 tasks. Received"):
        CappedHead([0.5, 0.5])([tf.ones((2, 3, 4)), tf.ones((2, 1))])


def test_caps_are_a_share_of_the_positive_rate():
    # click 0.4, hate negative, finish 0.2
    assert DLEN(alpha=0.3).caps(tiny_schema()) == pytest.approx([0.12, 1.0, 0.06], rel=1e-12)
    assert DLEN(alpha_constant=0.05).caps(tiny_schema()) == [0.05, 1.0, 0.05]


def test_a_task_without_positives_needs_a_constant_cap():
    schema = tiny_schema()
    empty = [dataclasses.replace(t, positive_rate=0.0) for t in schema.tasks]
    with pytest.raises(UserError, match="'click' has no positives.*config.model.head.alpha_constant"):
        DLEN().caps(dataclasses.replace(schema, tasks=tuple(empty)))
    assert DLEN(alpha_constant=0.2).caps(dataclasses.replace(schema, tasks=tuple(empty))) == [0.2, 1, 0.2]
    only_negative = dataclasses.replace(schema, tasks=(empty[1],))
    assert DLEN().caps(only_negative) == [1.0]


def test_notes_and_use_of_the_caps():
    head, found = DLEN(alpha=0.3), outputs(A, B, U, (0.12, 0.5, 0.06, 1.0))
    assert head.notes(tiny_schema()) == {"cap_use": {"click": "α = 0.12", "hate": "no cap", "finish": "α = 0.06"}}
    assert set(head.notes(tiny_schema())) == set(head.captions)
    not_preferred = tf.gather(found["not_preferred"], [0, 3, 2], axis=1)
    use = head.telemetry({"not_preferred": not_preferred}, tiny_schema())["cap_use"]
    np.testing.assert_allclose(use, numpy_sigmoid(B[:, [0, 3, 2]]), rtol=1e-5)


# === Serving ===

def test_serving_scores_by_hand():
    # P(UP) = 1/4; P(click|UP) = 1/2; P(hate) = σ(1)
    out = {
        "logits": tf.constant([[0.3, 1.0]]), "preferred": tf.constant([[0.0, 2.0]]),
        "not_preferred": tf.constant([[-3.0, -3.0]]), "latent": tf.constant([[-np.log(3.0)]], tf.float32),
    }
    schema = of_tasks(Task("click"), Task("hate", negative=True))
    scores = DLEN().scores(out, schema)
    assert list(scores) == DLEN().score_names(schema)
    assert DLEN().preference(out).numpy() == pytest.approx([0.25])
    assert {name: float(v[0]) for name, v in scores.items()} == pytest.approx(
        {"click": float(numpy_sigmoid(0.3)), "hate": float(numpy_sigmoid(1.0)), "click_up": 0.125, "p_up": 0.25},
        rel=1e-6,
    )
    assert all(v.shape == (1,) for v in scores.values())


def test_calibration_is_of_the_trained_probability_only():
    out = {n: v[:, :2] for n, v in outputs(A, B, U).items()} | {"latent": tf.constant(U, tf.float32)}
    schema = of_tasks(Task("click"), Task("hate", negative=True))
    plain = DLEN().scores(out, schema)
    calibrated = DLEN().scores(out, schema, lambda z, names: z + tf.constant([float(len(name)) for name in names]))
    for name, z, shift in (("click", 0, 5), ("hate", 1, 4)):
        np.testing.assert_allclose(calibrated[name], numpy_sigmoid(out["logits"][:, z] + shift), rtol=1e-5)
    for name in ("click_up", "p_up"):
        np.testing.assert_array_equal(calibrated[name], plain[name])


def test_a_logistic_head_serves_its_probabilities():
    schema = of_tasks(Task("click"), Task("hate", negative=True))
    scores = Logistic().scores({"logits": tf.constant([[0.0, 1.0]])}, schema)
    assert list(scores) == Logistic().score_names(schema) and Logistic().preference({}) is None
    assert {name: float(v[0]) for name, v in scores.items()} == pytest.approx(
        {"click": 0.5, "hate": float(numpy_sigmoid(1.0))}, rel=1e-6
    )


def test_served_score_is_below_the_trained_probability():
    out = outputs(A, B, U) | {"latent": tf.constant(U, tf.float32)}
    scores = DLEN().scores(out, of_tasks(*(Task(str(k)) for k in range(4))))
    a, b, u, p = reference(A, B, U)
    for k in range(4):
        np.testing.assert_allclose(scores[f"{k}_up"], (a * u)[:, k], rtol=1e-5)
        # eq 1 less eq 4 is the term of those who do not prefer the item
        np.testing.assert_allclose(p[:, k] - scores[f"{k}_up"], (b * (1 - u))[:, k], atol=2e-7)


@pytest.mark.parametrize("head", ["logistic", "dlen"])
def test_every_task_starts_at_its_positive_rate(head):
    """With nothing in the towers and P(UP) at one half, p_k is the rate: for common, rare and negative tasks."""
    rates, alphas = (0.4, 0.001, 0.02), (0.12, 0.0003, 1.0)
    towers, latent = tf.zeros((2, 3, 4)), tf.zeros((2, 1))
    outputs = TaskLogits(rates)(towers) if head == "logistic" else CappedHead(alphas, rates)([towers, latent])["logits"]
    np.testing.assert_allclose(tf.sigmoid(outputs), [rates, rates], rtol=1e-5)


@pytest.mark.parametrize("rate, alpha, preferred_rate, start", [
    (0.3, 0.12, 0.4, 0.3),                               # a = (0.3 - 0.6 * 0.06) / 0.4 = 0.66
    (1e-3, 3e-4, 0.9, 1e-3),                             # a = 0.0011
    (0.95, 0.2, 0.9, 0.9 * (1 - 1e-4) + 0.1 * 0.1),      # a would be 1.04
    (0.1, 0.6, 0.5, 0.5 * 1e-4 + 0.5 * 0.3),             # a would be -0.1
    (1e-5, 1e-6, 0.5, 0.5 * 1e-4 + 0.5 * 0.5e-6),        # a would be 2e-5
    (1e-5, 1.0, 0.5, 1e-4),                              # uncapped
], ids=["within", "rare", "above", "negative", "below", "uncapped"])
def test_where_a_capped_task_starts(rate, alpha, preferred_rate, start):
    latent = tf.fill((1, 1), np.float32(np.log(preferred_rate / (1 - preferred_rate))))
    outputs = CappedHead([alpha], [rate], preferred_rate)([tf.zeros((1, 1, 4)), latent])
    assert probabilities(outputs).numpy() == pytest.approx(start, rel=1e-5)


def test_rates_of_zero_and_one_start_at_finite_logits():
    outputs = TaskLogits((0.0, 1.0))(tf.zeros((1, 2, 4)))
    np.testing.assert_allclose(tf.sigmoid(outputs), [[1e-4, 1 - 1e-4]], rtol=1e-3)
    with pytest.raises(ValueError, match="one probability for each of 3 tasks. Received"):
        TaskLogits((0.5,))(tf.zeros((1, 3, 4)))
