"""Embeddings against numbers by hand, and how lists become vectors."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.layers import Embeddings
from dlen_cam2.layers.axes import axes_of, of_tasks, shared_weights
from dlen_cam2.layers.candidates import rows
from dlen_cam2.layers.mean_pooling import MeanPooling
from dlen_cam2.models import Mean
from dlen_cam2.models.parts import Encoder
from tests.support.layers import EMBEDDED, SCHEMA, hand_tables


def test_embeddings_by_hand():
    # user | history: mean of its known and unknown values | ctr | author | video | history * video
    np.testing.assert_array_equal(hand_tables()(EMBEDDED), [
        [2, 20, 4.5, 45, 0.5, 8, 6, 60, 27, 2700],
        [0, 0, 3, 30, -1.5, 7, 4, 40, 12, 1200],
        [1, 10, 0, 0, 0, 8, 3, 30, 0, 0],
    ])


def test_one_table_for_each_width():
    assert [tuple(w.shape) for w in hand_tables().weights] == [(2, 1), (7, 2)]


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_embedding_gradient_touches_only_the_rows_of_the_batch(policy):
    layer = Embeddings(SCHEMA, dtype=policy)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.cast(layer(EMBEDDED), tf.float32))
    authors, rows = tape.gradient(loss, layer.tables)
    assert isinstance(authors, tf.IndexedSlices) and isinstance(rows, tf.IndexedSlices)
    assert authors.values.shape == (3, 1)
    assert rows.values.shape == (3 * 5, 2)  # 3 rows, each of a user, a video and 3 places of history


def test_padding_has_no_gradient():
    layer = hand_tables()
    empty = {**EMBEDDED, "user_content": {**EMBEDDED["user_content"], "history": -tf.ones((3, 3), tf.int64)}}
    known = {**EMBEDDED["item_content"], "video": tf.constant([3, 1, 2], tf.int64)}
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer({**empty, "item_content": known}))
    gradient = tf.convert_to_tensor(tape.gradient(loss, layer.tables[1]))
    np.testing.assert_array_equal(gradient, [[1, 1], [1, 1], [1, 1], [0, 0], [1, 1], [1, 1], [1, 1]])


def test_embedding_l2_by_hand():
    layer = hand_tables(l2=0.01)
    layer(EMBEDDED)
    authors = (8**2 + 7**2 + 8**2) / 3
    rows = [2, 6, 4, 5, 0, 4, 3, 1, 3]  # user, video and each history entry that is not padding, row by row
    videos = sum(101 * i**2 for i in rows) / 3
    assert float(sum(layer.losses)) == pytest.approx(0.01 * (authors + videos), rel=1e-6)


# === Lists ===

def test_mean_pooling_by_hand():
    events, present = tf.constant([[[1.0, 10], [3, 30]], [[5, 50], [7, 70]]]), tf.constant([[1.0, 1], [0, 0]])
    layer = MeanPooling()
    np.testing.assert_array_equal(layer(events, present, None), [[2, 20], [0, 0]])
    np.testing.assert_array_equal(layer(events, tf.constant([[0.0, 1], [1, 0]])), [[3, 30], [5, 50]])
    copy = MeanPooling.from_config(MeanPooling(dtype="mixed_bfloat16").get_config())
    assert copy(tf.cast(events, tf.bfloat16), tf.cast(present, tf.bfloat16)).dtype == tf.bfloat16


class Nearness(tf.keras.layers.Layer):
    """Sum of the events, each times its product with the candidate, with a factor for each column."""

    def build(self, input_shape):
        self.factor = self.add_weight(name="factor", shape=(input_shape[-1],), initializer="ones")

    def call(self, events, present, candidate):
        near = tf.reduce_sum(events * candidate[:, None], axis=2) * present
        return self.factor * tf.reduce_sum(near[:, :, None] * events, axis=1)

    def axes(self, read, tasks):
        return [(self.factor, (None,))]

    def shared_weights(self):
        return [(self.factor, np.ones(1, np.float32))]


class Near(Encoder):
    """An encoder that reads the row's item; it is in no registry."""

    reads_candidate = True

    def layer(self, feature, name, dtype):
        return Nearness(name=name, dtype=dtype)


def test_an_encoder_reads_the_candidate_that_shares_the_table():
    # user | ctr | author | video | history, which comes with the others; no product of what an encoder reads already
    by_hand = [[2, 20], [0, 0], [1, 10]], [[0.5], [-1.5], [0]], [[8], [7], [8]], [[6, 60], [4, 40], [3, 30]]
    events, videos = [[4, 5], [3], []], [6, 4, 3]
    history = [[sum(101 * v * e * e for e in es), sum(1010 * v * e * e for e in es)]
               for es, v in zip(events, videos, strict=True)]
    layer = hand_tables_of(Near())
    # within a width single values come first; author's is the narrower
    user, ctr, author, video = by_hand
    np.testing.assert_array_equal(layer(EMBEDDED), np.concatenate([user, ctr, author, video, history], axis=1))
    assert [key for key, _ in layer.columns().segments] == [("user",), ("ctr",), ("author",), ("video",), ("history",)]
    once = {name: index[:1] for name, index in EMBEDDED["user_content"].items()}
    items = {group: features for group, features in EMBEDDED.items() if group != "user_content"}
    x = layer.candidates({"user_content": once, **items}, tf.constant(3))
    assert x.once.shape == (1, 2) and not x.products  # the list is computed for each candidate
    for_each = {name: tf.repeat(index, 3, axis=0) for name, index in once.items()}
    np.testing.assert_array_equal(rows(x), layer({"user_content": for_each, **items}))


def test_a_list_that_reads_the_candidate_may_be_all_that_is_known_of_the_user():
    schema = dataclasses.replace(SCHEMA, features=tuple(f for f in SCHEMA.features if f.name in ("history", "video")))
    layer = Embeddings(schema, encoder=Near())
    inputs = {group: {n: i for n, i in of.items() if n in ("history", "video")} for group, of in EMBEDDED.items()}
    inputs = {group: of for group, of in inputs.items() if of}
    once = {"history": EMBEDDED["user_content"]["history"][:1]}
    expected = layer({**inputs, "user_content": {"history": tf.repeat(once["history"], 3, axis=0)}})
    assert expected.shape == (3, 4)
    np.testing.assert_array_equal(layer.candidates({**inputs, "user_content": once}, tf.constant(3)), expected)


def hand_tables_of(encoder):
    layer = Embeddings(SCHEMA, encoder=encoder)
    layer(EMBEDDED)
    layer.tables[0].assign([[7.0], [8.0]])
    layer.tables[1].assign([[i, 10 * i] for i in range(7)])
    return layer


def test_an_encoders_weights_are_the_layers():
    layer = hand_tables_of(Near())
    assert len(layer.weights) == 3 and any("encoder_history" in weight.name for weight in layer.weights)
    inputs = tf.nest.map_structure(lambda t: tf.keras.Input(t.shape[1:], dtype=t.dtype), EMBEDDED)
    network = tf.keras.Model(inputs, layer(inputs))
    assert len(axes_of(network, of_tasks(["click"]))) == 3
    assert all(mask is not None for mask in shared_weights(network))
    alone = Embeddings(SCHEMA, encoder=Near(), shared=False)
    alone(EMBEDDED)
    assert alone.shared_weights() == []


def test_an_encoder_is_configured_and_copied():
    config = Embeddings(SCHEMA, encoder=Mean()).get_config()
    assert config["encoder"] == Embeddings(SCHEMA).get_config()["encoder"] == {"kind": "mean"}
    assert Embeddings.from_config(config).encoder == Mean()
    with pytest.raises(ValueError, match="encoder must be 'mean' with backend='tpu'"):
        Embeddings(SCHEMA, backend="tpu", encoder=Near())
