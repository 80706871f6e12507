"""Gradients of several tasks: side by side and added up."""

import pytest
import tensorflow as tf

from dlen_cam2.training.balancing.gradients import side_by_side, total
from tests.support.balancing import ALL, rows


def test_lookups_must_be_the_same():
    with pytest.raises(tf.errors.InvalidArgumentError, match="the same rows of a table"):
        side_by_side([rows([1, 2], [[1], [1]]), rows([2, 1], [[1], [1]])], ALL)


def test_gradients_add_up():
    assert total([None, None]) is None
    assert total([None, tf.constant([1.0]), tf.constant([2.0])]).numpy().tolist() == [3]
    found = total([rows([1], [[1]], 3), None, rows([1, 2], [[2], [3]], 3)])
    assert found.indices.numpy().tolist() == [1, 1, 2]
    mixed = total([rows([1], [[1]], 3), tf.ones((3, 1))])
    assert mixed.numpy().ravel().tolist() == [1, 2, 1]
    assert side_by_side([None, rows([1], [[4]], 3), tf.ones((3, 1))], ALL).values.numpy()[..., 0].tolist() == [
        [0, 0, 0], [0, 4, 0], [1, 1, 1]]
