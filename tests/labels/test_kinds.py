"""Kinds of tasks: what is trained of a label, by hand, and what a head makes of tasks of several kinds."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2 import parts
from dlen_cam2.labels.binary import Binary
from dlen_cam2.labels.kind import binary, kind_of, targets
from dlen_cam2.labels.regression import Regression
from dlen_cam2.models import DLEN, ESMM, Logistic, ReadOut, build
from dlen_cam2.schema import Task
from dlen_cam2.utils.errors import UserError
from tests.support.builders import numpy_sigmoid, ranker, tiny_batch, tiny_config, tiny_schema

SECONDS = Task("watch", label="seconds", mask="played", kind="regression", mean=30.0, std=20.0)


def mixed(head="logistic"):
    """A number between the binary tasks of `tiny_schema`."""
    click, hate, finish = tiny_schema(head).tasks
    return dataclasses.replace(tiny_schema(head), tasks=(click, SECONDS, hate, finish))


def mixed_batch(rows=8):
    features, labels = tiny_batch(rows)
    return features, labels | {"seconds": tf.constant(np.random.default_rng(0).exponential(30, rows), tf.float32)}


def test_targets_follow_the_tasks():
    labels = {"is_finish": 0.25, "click": 1.0, "played": 0.0, "hate": 0.5, "seconds": 12.0}
    y, mask = targets({name: tf.constant([value]) for name, value in labels.items()}, mixed())
    assert y.numpy().tolist() == [[1.0, 12.0, 0.5, 0.25]] and mask.numpy().tolist() == [[1.0, 0.0, 1.0, 0.0]]


def test_a_task_names_its_kind():
    assert list(parts.classes("label")) == ["binary", "regression"]
    assert [type(kind_of(task)) for task in mixed().tasks] == [Binary, Regression, Binary, Binary]
    assert binary(mixed()) == [0, 2, 3] and not Regression.binary
    with pytest.raises(UserError, match="the kind of the task 'x'.*Received: 'ranking'"):
        Task("x", kind="ranking")


def test_binary_by_hand():
    kind, task = Binary(), Task("click", positive_rate=0.2)
    # P = 3/4 and 1/4
    z = tf.constant([np.log(3), -np.log(3)], tf.float32)
    np.testing.assert_allclose(kind.losses(tf.constant([1, 1]), z, task), [-np.log(0.75), -np.log(0.25)], rtol=1e-6)
    np.testing.assert_allclose(kind.losses(tf.constant([0.0, 0.0]), z, task), [-np.log(0.25), -np.log(0.75)], rtol=1e-6)
    np.testing.assert_allclose(kind.predictions(z, task), [0.75, 0.25], rtol=1e-6)
    assert kind.start(task) == 0.2
    assert kind.constant_loss(task) == pytest.approx(-(0.2 * math.log(0.2) + 0.8 * math.log(0.8)))
    assert [kind.constant_loss(Task("click", positive_rate=rate)) for rate in (0.0, 1.0)] == [None, None]


def test_the_loss_of_a_row_stays_the_rows():
    """No mean and no sum is taken before the masks and weights: `sample_weights` takes them, over all replicas."""
    z = tf.constant(np.random.default_rng(0).normal(size=(5, 3)), tf.float32)
    y = tf.constant(np.random.default_rng(1).integers(0, 2, (5, 3)), tf.float32)
    p = numpy_sigmoid(z)
    found = Logistic().losses({"logits": z}, y, tiny_schema())
    assert found.shape == (5, 3)
    np.testing.assert_allclose(found, -np.where(y == 1, np.log(p), np.log(1 - p)), rtol=1e-5)


def test_regression_by_hand():
    kind = Regression()
    z = tf.constant([0.0, 1.0, -0.5])  # 30, 50 and 20 seconds
    np.testing.assert_allclose(kind.predictions(z, SECONDS), [30, 50, 20])
    np.testing.assert_allclose(
        kind.losses(tf.constant([40.0, 50.0, 0.0]), z, SECONDS), [100 / 800, 0.0, 400 / 800], rtol=1e-6)
    assert kind.start(SECONDS) == 0.5 and kind.constant_loss(SECONDS) == 0.5  # z = 0, and half of a variance of 1


@pytest.mark.parametrize("head", [Logistic(), DLEN(latent_units=(5,)), ESMM()], ids=lambda head: head.name)
def test_a_number_among_binary_tasks(head):
    """Whatever the head: it starts at the mean, is read in its own unit, trains, and leaves the others alone."""
    schema, (features, labels) = mixed(head.name), mixed_batch()
    settings = dataclasses.replace(tiny_config().model, head=head)
    tf.keras.utils.set_random_seed(5)
    network, read_out = build(settings, schema), ReadOut(settings, schema)
    outputs = network(features)
    z = outputs["logits"].numpy()
    assert z.shape == (8, 4)
    found = read_out.predictions(outputs).numpy()
    np.testing.assert_allclose(found[:, 1], 30 + 20 * z[:, 1], rtol=1e-6)
    np.testing.assert_allclose(found[:, [0, 2, 3]], numpy_sigmoid(z[:, [0, 2, 3]]), rtol=1e-5)
    for weight in network.get_layer("numbers").weights:
        assert "bias" not in weight.name or not np.any(weight)

    y, _ = head.targets(labels, schema)
    losses = head.losses(outputs, y, schema).numpy()
    wanted = (labels["seconds"].numpy() - found[:, 1]) ** 2 / (2 * 20**2)
    np.testing.assert_allclose(losses[:, 1], wanted, rtol=1e-4)
    trained = numpy_sigmoid(head.trained(outputs, schema))[:, [0, 2, 3]]
    y = y.numpy()[:, [0, 2, 3]]
    np.testing.assert_allclose(
        losses[:, [0, 2, 3]], -np.where(y == 1, np.log(trained), np.log(1 - trained)), rtol=1e-4)
    if head.name == "esmm":  # finish follows click, past the number
        np.testing.assert_allclose(trained[:, 2], found[:, 0] * found[:, 3], rtol=1e-5)

    scores = read_out.scores(outputs)
    assert list(scores) == read_out.names(causes=False)
    for k, name in enumerate(schema.task_names):
        np.testing.assert_array_equal(scores[name], found[:, k])

    model = ranker(network, schema, settings)
    before = network.get_layer("numbers").get_weights()
    assert np.isfinite(model.train_on_batch(features, labels)).all()
    assert all(np.any(a != b) for a, b in zip(before, network.get_layer("numbers").get_weights(), strict=True))
    assert np.isfinite(network(features)["logits"]).all()


def test_numbers_alone():
    schema = dataclasses.replace(tiny_schema(), tasks=(SECONDS,))
    settings = tiny_config().model
    network, read_out = build(settings, schema), ReadOut(settings, schema)
    outputs = network(tiny_batch()[0])
    assert set(outputs) == {"logits"} and outputs["logits"].shape == (8, 1)
    assert list(read_out.scores(outputs)) == ["watch"] == read_out.names(causes=False)
    for head in ("dlen", "esmm"):
        with pytest.raises(UserError, match=rf"config.model.head='{head}' needs a binary task. Received: \['watch'\]"):
            build(tiny_config(head=head).model, schema)
