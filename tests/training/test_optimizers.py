"""The optimizer of the tables, against Keras' own and by hand."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.training.optimizers import RowAdagrad
from dlen_cam2.training.optimizers.rows import once

RNG = np.random.default_rng(0)


def stepped(kind, table, batches, inside_a_function):
    """The table and its accumulator after a step on each batch of (rows, their gradients)."""
    variable = tf.Variable(table)
    optimizer = kind(0.1, initial_accumulator_value=1e-8, epsilon=1e-8)
    optimizer.build([variable])

    def step(rows, values):
        optimizer.apply_gradients([(tf.IndexedSlices(values, rows, variable.shape), variable)])

    step = tf.function(step, autograph=False) if inside_a_function else step
    for rows, values in batches:
        step(tf.constant(rows), tf.constant(values))
    return variable.numpy(), optimizer.variables[-1].numpy()


@pytest.mark.parametrize("how", [{"xla": True}, {"xla": False}, {"alone": False}], ids=str)
def test_rows_move_as_under_keras_adagrad_and_no_others_do(how):
    table = RNG.normal(size=(40, 3)).astype(np.float32)
    batches = [(RNG.integers(0, 30, 25), RNG.normal(size=(25, 3)).astype(np.float32)) for _ in range(4)]  # with repeats
    for inside in (False, True):
        found = stepped(functools.partial(RowAdagrad, **how), table, batches, inside)
        wanted = stepped(tf.keras.optimizers.Adagrad, table, batches, inside)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)
        np.testing.assert_array_equal(found[0][30:], table[30:])


def test_rows_that_are_summed_already_move_alike(monkeypatch):
    """What the training step hands on has each row once, and is not summed again."""
    rows, values = tf.constant(RNG.integers(0, 9, 25)), tf.constant(RNG.normal(size=(25, 3)), tf.float32)
    tables = [tf.Variable(tf.ones((9, 3))) for _ in range(2)]
    summed = once(tf.IndexedSlices(values, rows, (9, 3)))
    for table, gradient in zip(tables, (tf.IndexedSlices(values, rows, (9, 3)), summed), strict=True):
        if gradient is summed:
            monkeypatch.setattr(tf, "unique", None)
        RowAdagrad(0.1).apply_gradients([(gradient, table)])
    np.testing.assert_array_equal(tables[1], tables[0])


def test_a_step_by_hand():
    """Two gradients of row 1 are one, their sum: a = 1e-8 + 5², w = 1 - .1 * 5 / √(a + 1e-8)."""
    table, accumulator = stepped(RowAdagrad, np.ones((3, 1), np.float32), [([1, 1], np.float32([[2], [3]]))], False)
    np.testing.assert_allclose(accumulator[:, 0], [1e-8, 25, 1e-8], rtol=1e-6)
    np.testing.assert_allclose(table[:, 0], [1, 0.9, 1], rtol=1e-6)
