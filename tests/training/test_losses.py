"""The loss by hand, its sample spaces, and two replicas against one."""

import json

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.config import ModelConfig
from dlen_cam2.models import CAM2, ReadOut, build
from dlen_cam2.models.causal.cam2.cam2 import STATE
from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.training.step import Ranker, sample_weights
from tests.support.builders import numpy_sigmoid, reported_by, tiny_config, tiny_schema, two_replicas
from tests.support.cam2 import THRESHOLD, batch

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
        loss = Ranker(network, ReadOut(ModelConfig(), schema)).compute_loss(({}, labels), training=True)
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


def test_weights_of_rows():
    assert sample_weights(tf.constant([[1.0, 1], [1, 0], [1, 1], [1, 0]]), SCHEMA).numpy().tolist() == [
        [0.25, 0.25], [0.25, 0.0], [0.25, 0.25], [0.25, 0.0]
    ]


def test_extreme_logits_have_a_finite_loss():
    loss, gradient = loss_and_gradient([[1e4, -1e4]], click=[0], is_finish=[1], played=[1])
    assert loss == pytest.approx(1.5e4, rel=1e-6) and np.all(np.isfinite(gradient))


# === Two replicas ===

ROWS = {"even": 8, "uneven": 7, "one_empty": 1}  # two replicas share them as 4 + 4, 4 + 3 and 1 + 0
# All that a loss can have, in one model: a part that is summed wrongly over replicas moves its weights elsewhere. Few
# layers: on two replicas TensorFlow takes turns between two threads for every weight.
MODEL = {"trunk": "shared_bottom", "units": (6,), "tower_units": (), "embedding_l2": 0.1,
         "causal": CAM2(statistic="ctr", heads="gated", units=4, blocks=1, embedding=3)}


def trained(strategy):
    """For each batch of `ROWS` one step's loss and how the weights moved. (Adam would blow up rounding errors.)"""
    tf.keras.utils.set_random_seed(7)
    with strategy.scope():
        settings = tiny_config(**MODEL).model
        fitted, read_out = {STATE: THRESHOLD}, ReadOut(settings, tiny_schema())
        network = build(settings, tiny_schema(), fitted)
        ranker = Ranker(network, read_out, read_out.losses(fitted))
        sgd = tf.keras.optimizers.SGD(0.5)
        sgd.build(network.trainable_variables)  # in its first step, it would have TensorFlow trace that twice
        ranker.compile(optimizer=sgd)
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
    one, two = trained(tf.distribute.get_strategy()), trained(mirrored)
    for name, loss, other_loss, move, other in zip(ROWS, one[0], two[0], one[1], two[1], strict=True):
        report[name] = {
            "loss": loss, "other_loss": other_loss, "moved": float(np.abs(move).max()),
            "difference": float(np.abs(move - other).max()),
        }
    print(json.dumps(report))


@pytest.fixture(scope="module")
def replicas():
    return reported_by("tests.training.test_losses")


@pytest.mark.slow
@pytest.mark.parametrize("rows", ROWS)
def test_two_replicas_equal_one_device(replicas, rows):
    got = replicas[rows]
    assert got["moved"] > 0.01
    assert got["difference"] < 1e-6  # weights of about 1; float32 sums in another order
    assert got["other_loss"] == pytest.approx(got["loss"], rel=1e-5)
