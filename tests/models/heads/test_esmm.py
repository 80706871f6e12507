"""ESMM: a chain's product, its loss over all impressions, and the errors."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.models import ESMM, Logistic, ReadOut, build
from dlen_cam2.models.heads.esmm import EntireSpace
from dlen_cam2.schema import Task
from dlen_cam2.training.callbacks.tensorboard import TensorBoard
from dlen_cam2.training.step import Ranker
from dlen_cam2.utils.errors import UserError
from tests.support.builders import numpy_sigmoid, tiny_batch, tiny_config, tiny_schema

SCHEMA = tiny_schema("esmm")  # click; hate; finish, which follows click
CHAIN = dataclasses.replace(
    tiny_schema(), tasks=(Task("c", mask="b"), Task("a", mask="seen"), Task("b", mask="a"), Task("d", mask="other"))
)


def network():
    tf.keras.utils.set_random_seed(5)
    return build(tiny_config(head="esmm").model, SCHEMA)


def read_out(schema=SCHEMA, head="esmm"):
    return ReadOut(tiny_config(head=head).model, schema)


def test_the_product_by_hand():
    a = np.random.default_rng(0).normal(0, 3, (50, 4)).astype(np.float32)
    p = numpy_sigmoid(a)
    found = tf.sigmoid(EntireSpace(CHAIN.parents)(tf.constant(a))).numpy()
    wanted = [p[:, 0] * p[:, 1] * p[:, 2], p[:, 1], p[:, 1] * p[:, 2], p[:, 3]]
    np.testing.assert_allclose(found, np.stack(wanted, axis=1), rtol=1e-5)
    assert np.all(found[:, 2] <= found[:, 1]) and np.all(found[:, 0] <= found[:, 2])  # pCTCVR <= pCTR


def test_rare_chains_keep_their_precision():
    a = tf.constant([[-20.0, -25.0], [60.0, 3.0], [60.0, -40.0], [90.0, 90.0]])
    found = EntireSpace([None, 0])(a).numpy()[:, 1]
    # log p = -45; with pCTR = 1 what is left is plain CVR; and where both are certain the odds of a failure add up.
    np.testing.assert_allclose(found, [-45, 3, -40, 90 - np.log(2)], rtol=1e-6)


def test_labels_and_spaces_of_a_chain():
    columns = {
        "seen": [1, 1, 1, 1, 0], "a": [1, 1, 0, 1, 1], "b": [1, 0, 1, 1, 1], "c": [1, 1, 1, 0, 1], "d": [0, 1, 0, 1, 0],
        "other": [1, 0, 1, 0, 1],
    }
    labels = {n: tf.constant(v, tf.float32) for n, v in columns.items()}
    joint, space = ESMM().targets(labels, CHAIN)
    assert tf.transpose(joint).numpy().astype(int).tolist() == [
        [1, 0, 0, 0, 1], [1, 1, 0, 1, 1], [1, 0, 0, 1, 1], [0, 1, 0, 1, 0]]
    assert tf.transpose(space).numpy().astype(int).tolist() == [[1, 1, 1, 1, 0]] * 3 + [[1, 0, 1, 0, 1]]
    y, mask = read_out(CHAIN).targets(labels)  # metrics are of the labels as logged
    assert y[:, 0].numpy().tolist() == columns["c"] and mask[:, 0].numpy().tolist() == columns["b"]
    rated = dataclasses.replace(
        CHAIN, tasks=tuple(dataclasses.replace(t, positive_rate=r)
                           for t, r in zip(CHAIN.tasks, (0.5, 0.2, 0.4, 0.3), strict=True)))
    assert Logistic().start_rates(rated) == [0.5, 0.2, 0.4, 0.3]
    assert ESMM().start_rates(rated) == pytest.approx([0.5 * 0.2 * 0.4, 0.2, 0.2 * 0.4, 0.3])


def test_the_loss_is_over_all_impressions():
    model, (features, labels) = network(), tiny_batch(16)
    outputs = model(features)
    p = tf.sigmoid(outputs["logits"]).numpy().astype(np.float64)
    click, hate, finish = (labels[n].numpy() for n in ("click", "hate", "is_finish"))

    def cross_entropy(y, q):
        return -np.mean(y * np.log(q) + (1 - y) * np.log(1 - q))

    wanted = cross_entropy(click, p[:, 0]) + 0.5 * cross_entropy(hate, p[:, 1])
    wanted += cross_entropy(click * finish, p[:, 0] * p[:, 2])
    assert float(Ranker(model, read_out()).compute_loss((features, labels))) == pytest.approx(wanted, rel=1e-5)
    assert not np.all(click == 1)  # or the conversion's own rows would be all


def test_the_conversions_loss_reaches_the_clicks_tower():
    model, (features, labels) = network(), tiny_batch(16)
    alone = SCHEMA.weigh((0.0, 0.0, 1.0))
    kernel = model.get_layer("logits").kernel
    with tf.GradientTape() as tape:
        loss = Ranker(model, read_out(alone)).compute_loss((features, labels))
    by_task = np.abs(tape.gradient(loss, kernel).numpy()).sum(axis=1)
    assert by_task[0] > 0 and by_task[1] == 0 and by_task[2] > 0
    plain = build(tiny_config().model, SCHEMA)  # without the product it does not
    with tf.GradientTape() as tape:
        loss = Ranker(plain, read_out(alone, "logistic")).compute_loss((features, labels))
    by_task = np.abs(tape.gradient(loss, plain.get_layer("logits").kernel).numpy()).sum(axis=1)
    assert by_task[0] == 0 and by_task[2] > 0


def test_served_are_the_task_and_the_chain():
    outputs = network()(tiny_batch(16)[0])
    scores = read_out().scores(outputs)
    assert list(scores) == read_out().names(causes=False) == ["click", "hate", "finish", "finish_joint"]
    np.testing.assert_allclose(scores["finish"], numpy_sigmoid(outputs["logits"][:, 2]), rtol=1e-5)
    np.testing.assert_allclose(scores["finish_joint"], scores["click"] * scores["finish"], rtol=1e-5)
    calibrated = read_out().scores(outputs, lambda z, names: z + 1.0)  # of P(task); the product stays as trained
    np.testing.assert_allclose(calibrated["finish"], numpy_sigmoid(outputs["logits"][:, 2] + 1), rtol=1e-5)
    np.testing.assert_array_equal(calibrated["finish_joint"], scores["finish_joint"])


def test_tensorboard_measures_against_the_rate_of_the_whole_space(tmp_path):
    constants = TensorBoard(tmp_path, network(), read_out())._constant
    q = 0.4 * 0.2
    assert constants["finish"] == pytest.approx(-(q * np.log(q) + (1 - q) * np.log(1 - q)))


def test_what_esmm_cannot_be_built_of():
    with pytest.raises(UserError, match="needs a task whose mask is the label of another task"):
        build(tiny_config(head="esmm").model, tiny_schema())
    with pytest.raises(UserError, match="needs a task whose mask"):  # its click is no task of the model
        build(tiny_config(head="esmm").model, SCHEMA.select(tasks=["hate", "finish"]))
    ring = dataclasses.replace(tiny_schema(), tasks=(Task("a", mask="b"), Task("b", mask="a")))
    with pytest.raises(UserError, match="masks of tasks must not form a cycle. Received: one through 'a'"):
        build(tiny_config(head="esmm").model, ring)
