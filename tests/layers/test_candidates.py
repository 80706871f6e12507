"""Candidates, one user with many items, against their rows."""

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.layers import Experts, Gates, Residual
from dlen_cam2.layers.candidates import Candidates, Product, project, rows
from dlen_cam2.models.heads.dlen import LatentState
from dlen_cam2.models.trunks.cgc import ExtractionLayer
from tests.support.layers import EMBEDDED, assert_close, hand_tables, normal, randomise


def test_project_by_hand():
    kernel, bias = tf.constant([[1.0], [10.0], [100.0]]), tf.constant([0.5])
    x = Candidates(tf.constant([[1.0, 2.0]]), tf.constant([[5.0], [6.0]]))
    np.testing.assert_array_equal(project(x, kernel), [[521], [621]])
    np.testing.assert_array_equal(project(x, kernel, bias), [[521.5], [621.5]])
    np.testing.assert_array_equal(rows(x), [[1, 2, 5], [1, 2, 6]])
    np.testing.assert_array_equal(project(rows(x), kernel, bias), [[521.5], [621.5]])


def test_project_of_products_by_hand():
    # x = [2 | v, 3 | 4 v] for v = 5, 6, with the weights 1, 10, 100, 1000
    kernel = tf.constant([[1.0], [10.0], [100.0], [1000.0]])
    x = Candidates(tf.constant([[2.0]]), tf.constant([[5.0, 3.0], [6.0, 3.0]]), (Product(tf.constant([[4.0]]), 0),))
    np.testing.assert_array_equal(rows(x), [[2, 5, 3, 20], [2, 6, 3, 24]])
    np.testing.assert_array_equal(project(x, kernel), [[20352], [24362]])
    np.testing.assert_array_equal(project(rows(x), kernel), [[20352], [24362]])


@pytest.mark.parametrize("layer", [
    tf.keras.layers.Dense(3, activation="relu"), tf.keras.layers.LayerNormalization(), tf.keras.layers.RepeatVector(2)])
def test_a_layer_that_knows_nothing_of_candidates_reads_their_rows(layer):
    x = Candidates(tf.constant([[1.0, 2.0]]), tf.constant([[5.0], [-6.0]]), (Product(tf.constant([[4.0]]), 0),))
    network = tf.keras.Model(inputs := tf.keras.Input((4,)), layer(inputs))
    np.testing.assert_array_equal(layer(x), network(rows(x)))


def test_candidates_are_the_rows_with_the_user_once():
    items = {group: features for group, features in EMBEDDED.items() if group != "user_content"}
    once = {name: index[:1] for name, index in EMBEDDED["user_content"].items()}
    for_each = {name: tf.repeat(index, 3, axis=0) for name, index in once.items()}
    layer = hand_tables()
    x = layer.candidates({"user_content": once, **items}, tf.constant(3))
    assert x.once.shape == (1, 4) and x.each.shape == (3, 4) and tuple(x.shape) == (None, 10)
    np.testing.assert_array_equal(rows(x), layer({"user_content": for_each, **items}))


@pytest.mark.parametrize("make_layer", [
    lambda: Experts(3, (4, 2)), lambda: Experts(2, ()), lambda: Gates(3, 4), lambda: LatentState((4,)),
    lambda: ExtractionLayer(2, 2, 1, (4, 3), last=False), lambda: Residual(4, 1, 2),
], ids=["experts", "no_experts", "gates", "latent_state", "cgc", "residual"])
def test_layers_of_candidates_are_those_of_their_rows(make_layer):
    products = tuple(Product(normal(1, 2, seed=seed), start) for seed, start in ((2, 3), (3, 0), (4, 3)))
    layer, x = make_layer(), Candidates(normal(1, 5), normal(6, 6, seed=1), products)
    wanted = layer(rows(x))
    randomise(layer)
    # Outputs are up to 20 here, and a sum in another order is 1e-6 of that off.
    assert_close(layer(x), layer(rows(x)), rtol=1e-5, atol=2e-5)
    assert wanted.shape == layer(x).shape
