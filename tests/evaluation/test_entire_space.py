"""Tasks that follow others, measured over all rows: by hand, of every head, in metrics, tables and suites."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2 import evaluation, metrics
from dlen_cam2.evaluation import Predictions, entire_space, report
from dlen_cam2.experiments import comparison
from dlen_cam2.experiments.rows import COSTS, Measured
from dlen_cam2.models import ReadOut, build
from dlen_cam2.schema import Task
from tests.support.builders import tiny_batch, tiny_config, tiny_schema

# Purchases follow carts, which follow clicks among what was seen; a like follows nothing.
SHOP = dataclasses.replace(tiny_schema(), tasks=(
    Task("purchase", mask="cart"), Task("click", mask="seen"), Task("like"), Task("cart", mask="click")))
LABELS = np.array([[1, 1, 0, 1], [0, 1, 1, 1], [1, 1, 0, 0],
                   [0, 0, 1, 1], [1, 1, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]], float)
SEEN = np.array([1, 1, 1, 1, 0, 1, 1], float)
MASK = np.stack([LABELS[:, 3], SEEN, np.ones(7), LABELS[:, 1]], axis=1)
P = np.random.default_rng(0).random((7, 4))


def test_a_chain_by_hand():
    found = entire_space(SHOP, LABELS, MASK, P)
    assert list(found) == ["purchase", "cart"]
    y, space, p = found["purchase"]
    assert y.tolist() == [1, 0, 0, 0, 0, 0, 0] and space.tolist() == SEEN.tolist()  # 2 has no cart, 4 was not seen
    np.testing.assert_allclose(p, P[:, 0] * P[:, 3] * P[:, 1])
    y, space, p = found["cart"]
    assert y.tolist() == [1, 1, 0, 0, 0, 0, 0] and space.tolist() == SEEN.tolist()
    np.testing.assert_allclose(p, P[:, 3] * P[:, 1])
    of_seeds = entire_space(SHOP, LABELS, MASK, np.stack([P, P / 2]))["purchase"][2]
    np.testing.assert_allclose(of_seeds[1], of_seeds[0] / 8)


def test_metrics_have_both_spaces():
    users = np.arange(7) % 3
    shown = Predictions(LABELS, MASK, P, None, {}, {}, {}, {"user": users})
    found = evaluation.evaluate(shown, SHOP, bootstrap=0)
    assert "entire_space" not in found["click"] and "entire_space" not in found["like"]
    y, space, p = entire_space(SHOP, LABELS, MASK, P)["cart"]
    assert found["cart"]["entire_space"] == metrics.task_metrics(y[space == 1], p[space == 1], users[space == 1], 0)
    assert (found["cart"]["rows"], found["cart"]["entire_space"]["rows"]) == (5, 6)
    text = report.table({"day": found})
    assert "| day | purchase (entire space) | 6 | 1 |" in text and "| day | purchase | 4 |" in text
    assert "click (entire space)" not in text


@pytest.mark.parametrize("head", ["logistic", "dlen", "esmm"])
def test_every_head_is_measured_by_the_product(head):
    schema = tiny_schema("esmm")  # finish follows click
    tf.keras.utils.set_random_seed(1)
    config = tiny_config(head=head).model
    network = build(config, schema)
    features, labels = tiny_batch(64)
    scored = evaluation.scorer(network, ReadOut(config, schema))(features, labels)
    y, mask, p = (t.numpy() for t in scored[:3])
    found = entire_space(schema, y, mask, p)["finish"]
    np.testing.assert_allclose(found[2], p[:, 0] * p[:, 2], rtol=1e-6)
    np.testing.assert_array_equal(found[0], labels["click"] * labels["is_finish"])
    assert found[1].all()
    if head == "esmm":  # what is trained is what is measured
        np.testing.assert_allclose(found[2], scored[4]["finish_joint"], rtol=1e-5)


def test_tables_have_a_column_more_for_each_task_that_follows():
    rows, seeds, rng = 300, 2, np.random.default_rng(1)
    labels = np.cumprod(rng.random((rows, 2)) < 0.6, axis=1).astype(float)
    mask = np.stack([np.ones(rows), labels[:, 0]], axis=1)
    probabilities = {m: rng.random((seeds, rows, 2)) for m in ("MMOE", "PLE")}
    plain = Measured(("click", "finish"), labels, mask, np.arange(rows) % 30, probabilities,
                     {m: {c: np.ones(seeds) for c in COSTS} for m in probabilities}, {m: {} for m in probabilities})
    schema = tiny_schema("esmm").select(tasks=["click", "finish"])
    wide = plain.with_entire_space(schema)
    assert wide.tasks == ("click", "finish", "finish (entire space)")
    found = comparison.compare(wide, "MMOE", resamples=5)
    for seed, p in enumerate(probabilities["PLE"]):
        assert found.level("PLE", "finish (entire space)", "auc")[seed] == pytest.approx(
            metrics.auc(labels[:, 1], p.prod(axis=1)))
    assert plain.with_entire_space(schema.select(tasks=["click"])) is plain
