"""The loss by hand, its sample spaces, and two replicas against one."""

import json

import numpy as np
import pytest
import tensorflow as tf
from dlen_cam2.models.losses import TaskCrossentropy, sample_weights, targets

from dlen_cam2.models import build
from dlen_cam2.models.causal.cam2.losses import CausalLoss
from dlen_cam2.models.causal.cam2.threshold import LabelThreshold
from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.training.step import Ranker
from tests.support.builders import (
    branches,
    numpy_sigmoid,
    raw_batch,
    reported_by,
    tiny_batch,
    tiny_config,
    tiny_schema,
    two_replicas,
)

SCHEMA = Schema(
    "hand", (Feature("x", "float", "user", "statistical"),),
    (Task("click"), Task("finish", label="is_finish", mask="played", weight=0.5)),
)


class Given(tf.keras.layers.Layer):
    """A network whose logits are its one weight, (B, T)."""

    def __init__(self, logits):
        super().__init__()
        self.logits = self.add_weight(name="logits", shape=np.shape(logits), initializer="zeros")
        self.logits.assign(logits)

    def call(self, features, training=False):
        return {"logits": tf.identity(self.logits)}


def loss_and_gradient(logits, schema=SCHEMA, **labels):
    network = Given(logits)
    labels = {name: tf.constant(column, tf.float32) for name, column in labels.items()}
    with tf.GradientTape() as tape:
        loss = Ranker(network, schema).compute_loss(({}, labels), training=True)
    return float(loss), tape.gradient(loss, network.logits).numpy()


def test_each_task_is_averaged_over_its_own_sample_space():
    # click: P = 1/2 in each of 4 rows; finish: only rows 0 and 3 count, with P = 3/4 and 1/4.
    log3 = np.log(3)
    logits = [[0.0, log3], [0.0, 9.0], [0.0, -9.0], [0.0, -log3]]
    loss, gradient = loss_and_gradient(
        logits, click=[1, 0, 1, 0], is_finish=[1, 1, 0, 1], played=[1, 0, 0, 1]
    )
    assert loss == pytest.approx(np.log(2) + 0.5 * (-np.log(0.75) - np.log(0.25)) / 2, rel=1e-6)
    np.testing.assert_allclose(
        gradient, [[-1 / 8, -1 / 16], [1 / 8, 0], [-1 / 8, 0], [1 / 8, -3 / 16]], rtol=1e-6
    )


def test_full_sample_spaces_give_the_mean_cross_entropy():
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(50, 2)), rng.integers(0, 2, (50, 2))
    loss, _ = loss_and_gradient(logits, click=y[:, 0], is_finish=y[:, 1], played=np.ones(50))
    p = numpy_sigmoid(logits)
    means = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p), axis=0)
    assert loss == pytest.approx(means[0] + 0.5 * means[1], rel=1e-6)


def test_a_task_without_rows_has_no_loss_and_no_gradient():
    labels = {"click": [1, 0], "is_finish": [1, 0], "played": [0, 0]}
    loss, gradient = loss_and_gradient([[0.0, 5.0], [0.0, 5.0]], **labels)
    assert loss == pytest.approx(np.log(2), rel=1e-6)
    np.testing.assert_array_equal(gradient[:, 1], 0)
    assert np.all(gradient[:, 0] != 0)


def test_a_weight_of_zero_switches_a_task_off():
    schema = SCHEMA.weigh([0.0, 2.0])
    loss, gradient = loss_and_gradient([[3.0, 0.0]], schema, click=[0], is_finish=[1], played=[1])
    assert loss == pytest.approx(2 * np.log(2), rel=1e-6)
    np.testing.assert_allclose(gradient, [[0, -1]], rtol=1e-6)


def test_targets_follow_the_tasks():
    labels = {name: tf.constant([value]) for name, value in (("is_finish", 0.25), ("click", 1.0), ("played", 0.0))}
    y, mask = targets(labels, SCHEMA)
    assert y.numpy().tolist() == [[1.0, 0.25]] and mask.numpy().tolist() == [[1.0, 0.0]]
    assert sample_weights(tf.constant([[1.0, 1], [1, 0], [1, 1], [1, 0]]), SCHEMA).numpy().tolist() == [
        [0.25, 0.25], [0.25, 0.0], [0.25, 0.25], [0.25, 0.0]
    ]


def test_extreme_logits_have_a_finite_loss():
    loss, gradient = loss_and_gradient([[1e4, -1e4]], click=[0], is_finish=[1], played=[1])
    assert loss == pytest.approx(1.5e4, rel=1e-6) and np.all(np.isfinite(gradient))


def test_loss_config():
    loss = TaskCrossentropy.from_config(TaskCrossentropy(name="ce").get_config())
    assert loss.name == "ce" and loss.reduction == tf.keras.losses.Reduction.NONE


# === Two replicas ===

ROWS = {"even": 8, "uneven": 7, "one_empty": 1}  # two replicas share them as 4 + 4, 4 + 3 and 1 + 0
MODELS = {
    "logistic": {}, "l2": {"embedding_l2": 0.1},
    "cam2": {"cam2": branches("proposed", statistic="ctr", heads="gated", units=4, blocks=1, embedding=3)},
}
SPLIT = LabelThreshold("any_positive", "ctr", 0.5, rows=100, rows_above=40, engaged=50, engaged_above=25)


def batch(rows):
    features, labels = tiny_batch(rows)
    return features, labels | {"ctr": tf.constant(raw_batch(rows)["ctr"])}


def trained(strategy, model):
    """For each batch of `ROWS` one step's loss and how the weights moved. (Adam would blow up rounding errors.)"""
    tf.keras.utils.set_random_seed(7)
    with strategy.scope():
        settings = tiny_config(**model).model
        network = build(settings, tiny_schema(), SPLIT)
        causal = CausalLoss(settings.causal, tiny_schema(), SPLIT) if "cam2" in model else None
        ranker = Ranker(network, tiny_schema(), causal)
        ranker.compile(optimizer=tf.keras.optimizers.SGD(0.5))
    start, losses, moves = network.get_weights(), [], []
    for rows in ROWS.values():
        network.set_weights(start)
        history = ranker.fit(tf.data.Dataset.from_tensor_slices(batch(rows)).batch(8), verbose=0).history
        losses.append(history["loss"][0])
        moves.append(np.concatenate([(a - b).ravel() for a, b in zip(network.get_weights(), start, strict=True)]))
    return losses, moves


def compare_replicas():
    """Run in a process of its own, because logical devices must be set before TensorFlow starts."""
    mirrored = two_replicas()
    report = {}
    for model, fields in MODELS.items():
        one, two = trained(tf.distribute.get_strategy(), fields), trained(mirrored, fields)
        for name, loss, other_loss, move, other in zip(ROWS, one[0], two[0], one[1], two[1], strict=True):
            report[f"{name}_{model}"] = {
                "loss": loss, "other_loss": other_loss, "moved": float(np.abs(move).max()),
                "difference": float(np.abs(move - other).max()),
            }
    print(json.dumps(report))


@pytest.fixture(scope="module")
def replicas():
    return reported_by("tests.models.test_losses")


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("rows", ROWS)
def test_two_replicas_equal_one_device(replicas, rows, model):
    got = replicas[f"{rows}_{model}"]
    assert got["moved"] > 0.01
    assert got["difference"] < 1e-6  # weights of about 1; float32 sums in another order
    assert got["other_loss"] == pytest.approx(got["loss"], rel=1e-5)
