"""CAM2's causal losses against numpy, and where they must stay finite."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.config import TrainConfig
from dlen_cam2.data.preprocessing import Indexer
from dlen_cam2.models import CAM2, ReadOut
from dlen_cam2.models.causal.cam2.branches import interest_feature
from dlen_cam2.models.causal.cam2.losses import CausalLoss
from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.training.step import Ranker
from tests.support.builders import numpy_sigmoid, raw_batch, tiny_schema
from tests.support.cam2 import THRESHOLD, batch, built, causal_loss, config


@pytest.mark.parametrize("heads", ["joint", "conditional"])
@pytest.mark.parametrize("kind", ["logistic", "norm"])
@pytest.mark.parametrize("relevance", ["probability", "interests"])
def test_causal_losses_against_numpy(heads, kind, relevance):
    settings = config(
        heads=heads, conformity=kind, relevance=relevance, interest_feature="author", engagement="finish",
        conformity_weight=0.5, relevance_weight=2.0,
    ).model.causal
    rows, rng = 60, np.random.default_rng(1)
    y, mask, x = rng.integers(0, 2, rows), rng.integers(0, 2, rows), rng.random(rows).astype(np.float32)
    raw = raw_batch(rows)
    labels = {"is_finish": y, "played": mask, "click": y, "hate": y}
    labels = {n: tf.constant(v, tf.float32) for n, v in labels.items()} | {"ctr": tf.constant(x)}
    c, r, products, p = rng.normal(size=rows), rng.normal(size=rows), rng.random((rows, 4)), rng.random(rows)
    column = {name: tf.constant(v[:, None], tf.float32) for name, v in
              {"conformity": c, "conformity_norm": c, "relevance": r, "engagement": p}.items()}
    outputs = column | {"interests": tf.constant(products, tf.float32)}
    fitted = dataclasses.replace(THRESHOLD, engagement="finish")
    interests = interest_feature(tiny_schema(), settings) if relevance == "interests" else None
    features = Indexer(tiny_schema())({n: tf.constant(v) for n, v in raw.items()})
    found = CausalLoss(settings, tiny_schema(), fitted, interests)(features, labels, outputs)

    above = x >= 0.5
    def cross_entropy(label, probability):
        return -np.where(label == 1, np.log(probability), np.log(1 - probability))
    label_c, label_r = y * above, y * ~above
    loss_c = (label_c - c) ** 2 if kind == "norm" else cross_entropy(label_c, numpy_sigmoid(c))
    known = np.ones(rows)
    if relevance == "interests":
        place = {"ann": 1, "bob": 2, "cy": 3}
        has = np.eye(4)[[place.get(a, 0) for a in raw["author"]]] * [0, 1, 1, 1]
        known = has.sum(axis=1)
        assert 0 < known.sum() < rows  # authors that are no known interest among them
        loss_r = ((label_r[:, None] * has - products) ** 2).sum(axis=1)
    else:
        loss_r = cross_entropy(label_r, numpy_sigmoid(r))
    def mean(values, keep):
        return (values * keep).sum() / keep.sum()
    joint = heads == "joint"
    wanted = 0.5 * mean(loss_c, mask if joint else mask * above)
    wanted += 2 * mean(loss_r, known * (mask if joint else mask * ~above))
    wanted += 0 if joint else mean(cross_entropy(y, p), mask)
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_an_item_of_two_interests_shares_the_label_between_them():
    schema = Schema("tags", (
        Feature("u", "float", "user", "content"), Feature("us", "float", "user", "statistical"),
        Feature("tags", "int", "item", "content", size=3, width=2, max_length=3),
        Feature("x", "float", "item", "statistical"),
    ), (Task("click"),))
    settings = CAM2(relevance="interests", interest_feature="tags", statistic="x", engagement="click",
                    conformity_weight=0.0)
    loss = CausalLoss(settings, schema, dataclasses.replace(THRESHOLD, engagement="click", statistic="x"),
                      interest_feature(schema, settings))
    features = {"item_content": {"tags": tf.constant([[1, 3, -1], [-1, -1, -1]], tf.int64)}}
    labels = {"click": tf.constant([1.0, 1.0]), "x": tf.constant([0.0, 0.0])}
    outputs = {"conformity": tf.zeros((2, 1)), "interests": tf.constant([[0.1, 0.2, 0.3, 0.4], [9.0, 9, 9, 9]])}
    # The first item has 1 and 3, half each; the second has none that is known and does not count.
    assert float(loss(features, labels, outputs)) == pytest.approx(0.01 + 0.09 + 0.09 + 0.01)


def test_a_mixture_above_one_comes_down():
    """The clip keeps the loss finite and must not take the gradient away."""
    settings = config(heads="conditional").model.causal
    loss = CausalLoss(settings, tiny_schema(), THRESHOLD)
    _, labels = batch()
    labels |= {name: tf.zeros(16) for name in ("click", "is_finish")}
    p = tf.Variable(tf.fill((16, 1), 1.7))
    with tf.GradientTape() as tape:
        value = loss({}, labels, {"conformity": tf.zeros((16, 1)), "relevance": tf.zeros((16, 1)), "engagement": p})
    assert np.isfinite(value) and np.all(tape.gradient(value, p) > 0)


def test_a_batch_with_one_side_empty_has_a_finite_loss():
    settings = config(heads="gated").model.causal
    features, labels = batch()
    labels |= {"ctr": tf.zeros(16)}
    x = tf.zeros((16, 1))
    loss = CausalLoss(settings, tiny_schema(), THRESHOLD)(features, labels, {
        "conformity": x, "relevance": x, "engagement": x + 0.5})
    assert np.isfinite(loss)


@pytest.mark.slow
@pytest.mark.parametrize("fields", [
    {"heads": "conditional"}, {"heads": "gated", "relevance": "interests", "interest_feature": "author"},
], ids=str)
def test_parts_of_a_batch_give_the_gradient_of_the_whole(fields):
    """Also where the means are over the rows of one side, of which the parts have different shares."""
    settings = config(trunk="mmoe", head="logistic", **fields)
    moves = []
    for parts in (1, 3):
        tf.keras.utils.set_random_seed(5)
        network = built(settings)
        read_out = ReadOut(settings.model, tiny_schema())
        ranker = Ranker(network, read_out, [causal_loss(settings)], train=TrainConfig(accumulate=parts))
        ranker.compile(optimizer=tf.keras.optimizers.SGD(1.0), run_eagerly=True)
        before = network.get_weights()
        ranker.train_on_batch(*batch())
        moves.append(np.concatenate([(a - b).ravel() for a, b in zip(before, network.get_weights(), strict=True)]))
    np.testing.assert_allclose(moves[1], moves[0], atol=1e-5)
