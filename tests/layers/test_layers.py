"""Every layer through one harness, what stays float32 under mixed precision, and the small layers by hand."""

import json

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.layers import Dropout, Embeddings, Experts, Gates, Repeat, Residual, TaskLogits
from dlen_cam2.models.causal.cam2.cause_mixture import CauseMixture
from dlen_cam2.models.causal.cam2.conformity import Conformity
from dlen_cam2.models.causal.cam2.relevance import Relevance
from dlen_cam2.models.heads.dlen import CappedHead, LatentState
from dlen_cam2.models.heads.esmm import EntireSpace
from dlen_cam2.models.trunks.cgc import ExtractionLayer
from tests.support.builders import tiny_batch, tiny_schema
from tests.support.layers import assert_close, flat, normal


def functional(layer, inputs):
    keras_inputs = tf.nest.map_structure(lambda t: tf.keras.Input(t.shape[1:], dtype=t.dtype), inputs)
    return tf.keras.Model(keras_inputs, layer(keras_inputs))


def run_layer_test(make_layer, inputs, expected_shape, tmp_path):
    """Shape, get_config, save and load, bfloat16, jit, and a gradient for every weight."""
    tf.keras.utils.set_random_seed(1)
    layer = make_layer()
    outputs = layer(inputs)
    assert tf.nest.map_structure(lambda t: tuple(t.shape), outputs) == expected_shape

    copy = type(layer).from_config(json.loads(json.dumps(layer.get_config())))
    copy(inputs)
    copy.set_weights(layer.get_weights())
    assert copy.get_config() == layer.get_config()
    assert_close(copy(inputs), outputs, rtol=0)

    model = functional(make_layer(), inputs)
    model.set_weights(layer.get_weights())
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    assert_close(loaded(inputs), outputs, rtol=0)

    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        low = make_layer()
        rounded = low(inputs)
        low.set_weights(layer.get_weights())
        rounded = low(inputs)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    assert all(w.dtype == tf.float32 for w in low.weights)
    scale = max(np.abs(o).max() for o in flat(outputs))
    assert_close(rounded, outputs, rtol=0, atol=0.03 * scale)  # a few roundings to 8 bits, 0.4% each

    assert_close(tf.function(layer, jit_compile=True)(inputs), outputs, rtol=1e-5, atol=1e-5)

    with tf.GradientTape() as tape:  # random factors, because softmax outputs have a constant sum
        loss = tf.add_n([tf.reduce_sum(o * normal(*o.shape, seed=9)) for o in tf.nest.flatten(layer(inputs))])
    for weight, gradient in zip(
        layer.trainable_weights, tape.gradient(loss, layer.trainable_weights), strict=True
    ):
        assert gradient is not None, weight.name
        assert np.any(tf.convert_to_tensor(gradient)), weight.name


CASES = {
    "embeddings": (lambda: Embeddings(tiny_schema(), stddev=0.5), tiny_batch()[0], (8, 22)),
    "embeddings_l2": (lambda: Embeddings(tiny_schema(), l2=0.1, stddev=0.5), tiny_batch()[0], (8, 22)),
    "dropout": (lambda: Dropout(0.5), normal(8, 5), (8, 5)),
    "repeat": (lambda: Repeat(3), normal(8, 1, 5), (8, 3, 5)),
    "residual": (lambda: Residual(6, 2, 4), normal(8, 5), (8, 4)),
    "conformity": (Conformity, [normal(8, 5), normal(8, 5, seed=1)], (8, 1)),
    "conformity_norm": (lambda: Conformity("norm"), [normal(8, 5), normal(8, 5, seed=1)], (8, 1)),
    "relevance": (Relevance, [normal(8, 5), normal(8, 5, seed=1)], {"relevance": (8, 1), "interests": (8, 5)}),
    "cause_mixture": (
        lambda: CauseMixture(share=0.3), [tf.sigmoid(normal(8, 1)), tf.sigmoid(normal(8, 1, seed=1)), normal(8, 5)],
        (8, 1),
    ),
    "cause_gate": (
        lambda: CauseMixture(gated=True), [tf.sigmoid(normal(8, 1)), tf.sigmoid(normal(8, 1, seed=1)), normal(8, 5)],
        (8, 1),
    ),
    "experts_shared": (lambda: Experts(3, (8, 6)), normal(8, 5), (8, 3, 6)),
    "experts_one_each": (lambda: Experts(3, (8, 6)), normal(8, 3, 5), (8, 3, 6)),
    "experts_no_layer": (lambda: Experts(3, ()), normal(8, 5), (8, 3, 5)),
    "gates_shared": (lambda: Gates(2, 4), normal(8, 5), (8, 2, 4)),
    "gates_one_each": (lambda: Gates(2, 4), normal(8, 2, 5), (8, 2, 4)),
    "cgc_only": (lambda: ExtractionLayer(2, 1, 3, (8,), last=True), normal(8, 5), (8, 2, 8)),
    "cgc_first": (lambda: ExtractionLayer(2, 3, 1, (8, 6), last=False), normal(8, 5), (8, 3, 6)),
    "cgc_middle": (lambda: ExtractionLayer(2, 2, 2, (8,), last=False), normal(8, 3, 5), (8, 3, 8)),
    "cgc_last": (lambda: ExtractionLayer(2, 2, 1, (8,), last=True), normal(8, 3, 5), (8, 2, 8)),
    "task_logits": (TaskLogits, normal(8, 3, 5), (8, 3)),
    "entire_space": (lambda: EntireSpace([None, None, 0]), normal(8, 3), (8, 3)),
    "latent_state": (lambda: LatentState((8, 6)), normal(8, 5), (8, 1)),
    "capped_head": (
        lambda: CappedHead((0.1, 0.5, 1.0)), [normal(8, 3, 5), normal(8, 1)],
        {"logits": (8, 3), "preferred": (8, 3), "not_preferred": (8, 3)},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_layer(case, tmp_path):
    run_layer_test(*CASES[case], tmp_path)


@pytest.mark.parametrize("size", [0.5, 20.0])
def test_capped_head_stays_float32_under_mixed_precision(size):
    towers, latent = tf.cast(normal(8, 3, 5), tf.bfloat16), size * normal(8, 1, seed=1)
    whole, low = CappedHead((0.1, 0.5, 1.0)), CappedHead((0.1, 0.5, 1.0), dtype="mixed_bfloat16")
    wanted = whole([tf.cast(towers, tf.float32), latent])
    low([towers, latent])
    low.set_weights(whole.get_weights())
    found = low([towers, latent])
    assert {name: (value.dtype, value.shape) for name, value in found.items()} == {
        name: (tf.float32, (8, 3)) for name in ("logits", "preferred", "not_preferred")}
    # Nothing is rounded to 8 bits but the towers on the way in, not even a large latent logit.
    for name in found:
        assert_close(found[name], wanted[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_a_layer_hands_its_dtype_on(case):
    """To the layers in it, so that it is the same one where another policy is set, as when it is loaded."""
    make_layer, inputs, _ = CASES[case]
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        layer = make_layer()
        wanted = layer(inputs)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    copy = type(layer).from_config(layer.get_config())
    copy(inputs)
    copy.set_weights(layer.get_weights())
    assert_close(copy(inputs), wanted, rtol=0)
    assert [part.compute_dtype for part in copy.submodules if isinstance(part, tf.keras.layers.Layer)] == [
        part.compute_dtype for part in layer.submodules if isinstance(part, tf.keras.layers.Layer)]


# x (8, 3, 5) to the layer's inputs, the layer, its part that is a product x W + b, and x W in float64.
READ_OUTS = {
    "task_logits": (
        lambda x: x, TaskLogits, lambda layer: layer, lambda x, kernel: np.einsum("bkd,kd->bk", x, kernel)),
    "latent_state": (
        lambda x: x[:, 0], lambda: LatentState(()), lambda layer: layer.logit, lambda x, kernel: x[:, 0] @ kernel.T),
    "conformity": (
        lambda x: [x[:, 0], x[:, 1]], Conformity, lambda layer: layer.read_out,
        lambda x, kernel: (x[:, 0] + x[:, 1]) @ kernel),
}


@pytest.mark.parametrize("case", READ_OUTS)
def test_read_outs_are_float32_under_mixed_precision(case):
    inputs, make_layer, part, product = READ_OUTS[case]
    x = tf.cast(normal(8, 3, 5), tf.bfloat16)
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        layer = make_layer()
        layer(inputs(x))
        shape = part(layer).kernel.shape
        bias = np.full(part(layer).bias.shape, -5.29, np.float32)  # bfloat16 has -5.28125 and -5.3125
        part(layer).kernel.assign(normal(*shape, seed=1))
        part(layer).bias.assign(bias)
        found = layer(inputs(x))
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    assert found.dtype == tf.float32
    wanted = product(np.asarray(x, np.float64), np.asarray(normal(*shape, seed=1), np.float64)) + bias
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=2e-6)


# === Dropout ===

def test_dropout_keeps_the_mean_and_its_state(tmp_path):
    tf.keras.utils.set_random_seed(2)
    layer, x = Dropout(0.3), tf.ones((2000, 20))
    np.testing.assert_array_equal(layer(x), x)
    first = layer(x, training=True).numpy()
    assert set(np.unique(first.round(4))) == {0.0, np.float32(1.4286)}
    assert abs((first == 0).mean() - 0.3) < 0.01
    path = tf.train.Checkpoint(layer=layer).write(str(tmp_path / "state"))
    second = layer(x, training=True).numpy()
    assert np.any(first != second)
    other = Dropout(0.3)
    tf.train.Checkpoint(layer=other).read(path).assert_consumed()
    np.testing.assert_array_equal(other(x, training=True), second)
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\). Received: rate=1"):
        Dropout(1.0)


# === Residual ===

def test_residual_by_hand():
    layer = Residual(2, 1, 1)
    layer(tf.zeros((1, 2)))
    by_name = {w.name.split("/")[-2] + "/" + w.name.split("/")[-1]: w for w in layer.weights}
    by_name["into/kernel:0"].assign([[1.0, 0.0], [0.0, -1.0]])
    by_name["inner_1/kernel:0"].assign([[2.0, 0.0], [0.0, 1.0]])
    by_name["outer_1/kernel:0"].assign([[1.0, 0.0], [1.0, 1.0]])
    by_name["out/kernel:0"].assign([[1.0], [10.0]])
    # h0 = (3, -4); relu (3, 0); inner (6, 0); outer (6, 0); h1 = (9, -4); relu (9, 0); out 9
    assert float(layer(tf.constant([[3.0, 4.0]]))[0, 0]) == 9.0
    # h0 = (3, 4); inner (6, 4); outer (6 + 4, 4); h1 = (13, 8); out 13 + 80
    assert float(layer(tf.constant([[3.0, -4.0]]))[0, 0]) == 93.0
