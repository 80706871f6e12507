"""Every layer through one harness, then each against numbers by hand or a naive reference."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.layers import Dropout, Embeddings, Experts, Gates, Residual, TaskLogits
from dlen_cam2.layers.candidates import Candidates, Product, project, rows
from dlen_cam2.models import trunks
from dlen_cam2.models.causal.cam2.cause_mixture import CauseMixture
from dlen_cam2.models.causal.cam2.conformity import Conformity
from dlen_cam2.models.causal.cam2.relevance import Relevance
from dlen_cam2.models.heads.dlen import CappedHead, LatentState
from dlen_cam2.models.heads.esmm import EntireSpace
from dlen_cam2.models.trunks.cgc import CGC
from dlen_cam2.schema import Feature, Schema
from tests.support.builders import numpy_mlp, numpy_softmax, tiny_batch, tiny_schema


def normal(*shape, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


def flat(outputs):
    return [np.asarray(tf.cast(o, tf.float32)) for o in tf.nest.flatten(outputs)]


def assert_close(left, right, **tolerance):
    for a, b in zip(flat(left), flat(right), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


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
    loaded = tf.keras.models.load_model(tmp_path / "model.keras", {type(layer).__name__: type(layer)})
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
    "cgc_only": (lambda: CGC(2, 1, 3, (8,), last=True), normal(8, 5), (8, 2, 8)),
    "cgc_first": (lambda: CGC(2, 3, 1, (8, 6), last=False), normal(8, 5), (8, 3, 6)),
    "cgc_middle": (lambda: CGC(2, 2, 2, (8,), last=False), normal(8, 3, 5), (8, 3, 8)),
    "cgc_last": (lambda: CGC(2, 2, 1, (8,), last=True), normal(8, 3, 5), (8, 2, 8)),
    "task_logits": (TaskLogits, normal(8, 3, 5), (8, 3)),
    "entire_space": (lambda: EntireSpace([None, None, 0]), normal(8, 3), (8, 3)),
    "latent_state": (lambda: LatentState((8, 6)), normal(8, 5), (8, 1)),
    "capped_head": (
        lambda: CappedHead((0.1, 0.5, 1.0)), [normal(8, 3, 5), normal(8, 1)],
        {"logits": (8, 3), "preferred": (8, 3), "not_preferred": (8, 3)},
    ),
}


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


# === Embeddings ===

SCHEMA = Schema("hand", (
    Feature("user", "int", "user", "content", size=2, width=2),
    Feature("history", "int", "user", "content", size=3, width=2, table="video", max_length=3),
    Feature("video", "int", "item", "content", size=3, width=2, table="video"),
    Feature("author", "string", "item", "content", vocabulary=("ann",), width=1),
    Feature("ctr", "float", "item", "statistical"),
), ())
INPUTS = {
    "user_content": {
        "user": tf.constant([2, 0, 1], tf.int64),
        "history": tf.constant([[1, 2, -1], [0, -1, -1], [-1, -1, -1]], tf.int64),
    },
    "item_content": {"video": tf.constant([3, 1, 0], tf.int64), "author": tf.constant([1, 0, 1], tf.int64)},
    "item_statistical": {"ctr": tf.constant([0.5, -1.5, 0.0])},
}


def hand_tables(**kwargs):
    layer = Embeddings(SCHEMA, **kwargs)
    layer(INPUTS)
    # Width 2: user's rows 0..2, the videos' rows 3..6; row i holds (i, 10 i).
    layer.set_weights([np.array([[7.0], [8.0]]), np.array([[i, 10 * i] for i in range(7)])])
    return layer


def test_embeddings_by_hand():
    # user | history: mean of its known and unknown values | ctr | author | video | history * video
    np.testing.assert_array_equal(hand_tables()(INPUTS), [
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
        loss = tf.reduce_sum(tf.cast(layer(INPUTS), tf.float32))
    authors, rows = tape.gradient(loss, layer.tables)
    assert isinstance(authors, tf.IndexedSlices) and isinstance(rows, tf.IndexedSlices)
    assert authors.values.shape == (3, 1)
    assert rows.values.shape == (3 * 5, 2)  # 3 rows, each of a user, a video and 3 places of history


def test_padding_has_no_gradient():
    layer = hand_tables()
    empty = {**INPUTS, "user_content": {**INPUTS["user_content"], "history": -tf.ones((3, 3), tf.int64)}}
    known = {**INPUTS["item_content"], "video": tf.constant([3, 1, 2], tf.int64)}
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer({**empty, "item_content": known}))
    gradient = tf.convert_to_tensor(tape.gradient(loss, layer.tables[1]))
    np.testing.assert_array_equal(gradient, [[1, 1], [1, 1], [1, 1], [0, 0], [1, 1], [1, 1], [1, 1]])


def test_embedding_l2_by_hand():
    layer = hand_tables(l2=0.01)
    layer(INPUTS)
    authors = (8**2 + 7**2 + 8**2) / 3
    rows = [2, 6, 4, 5, 0, 4, 3, 1, 3]  # user, video and each history entry that is not padding, row by row
    videos = sum(101 * i**2 for i in rows) / 3
    assert float(sum(layer.losses)) == pytest.approx(0.01 * (authors + videos), rel=1e-6)


# === Candidates: one user, many items ===

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


def test_candidates_are_the_rows_with_the_user_once():
    items = {group: features for group, features in INPUTS.items() if group != "user_content"}
    once = {name: index[:1] for name, index in INPUTS["user_content"].items()}
    for_each = {name: tf.repeat(index, 3, axis=0) for name, index in once.items()}
    layer = hand_tables()
    x = layer.candidates({"user_content": once, **items}, tf.constant(3))
    assert x.once.shape == (1, 4) and x.each.shape == (3, 4) and tuple(x.shape) == (None, 10)
    np.testing.assert_array_equal(rows(x), layer({"user_content": for_each, **items}))


@pytest.mark.parametrize("make_layer", [
    lambda: Experts(3, (4, 2)), lambda: Experts(2, ()), lambda: Gates(3, 4), lambda: LatentState((4,)),
    lambda: CGC(2, 2, 1, (4, 3), last=False), lambda: Residual(4, 1, 2),
], ids=["experts", "no_experts", "gates", "latent_state", "cgc", "residual"])
def test_layers_of_candidates_are_those_of_their_rows(make_layer):
    products = tuple(Product(normal(1, 2, seed=seed), start) for seed, start in ((2, 3), (3, 0), (4, 3)))
    layer, x = make_layer(), Candidates(normal(1, 5), normal(6, 6, seed=1), products)
    wanted = layer(rows(x))
    randomise(layer)
    # Outputs are up to 20 here, and a sum in another order is 1e-6 of that off.
    assert_close(layer(x), layer(rows(x)), rtol=1e-5, atol=2e-5)
    assert wanted.shape == layer(x).shape


# === Experts and gates ===

def randomise(layer, seed=0):
    """Draw all weights from N(0, 1), so that biases count too."""
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])


def expert_weights(layer, e, shared):
    """The kernels and biases of one expert; with a shared input the first kernel holds them side by side."""
    kernels = [k.numpy()[:, e] if shared and level == 0 else k.numpy()[e] for level, k in enumerate(layer.kernels)]
    return kernels, [b.numpy()[e] for b in layer.biases]


@pytest.mark.parametrize("x", [normal(9, 5), normal(9, 3, 5)], ids=["shared", "one_each"])
def test_experts_equal_separate_dense_networks(x):
    """Outputs, and the gradients of the input, the kernels and the biases."""
    layer, shared = Experts(3, (7, 6, 4)), len(x.shape) == 2
    layer(x)
    randomise(layer)
    weight = normal(9, 3, 4)  # of the outputs in what is differentiated
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x)
        loss = tf.reduce_sum(weight * outputs)
    of_x, of_kernels, of_biases = tape.gradient(loss, (x, layer.kernels, layer.biases))
    of_input = np.zeros(x.shape)
    for e in range(3):
        own = x if shared else x[:, e]
        reference = tf.keras.Sequential([tf.keras.layers.Dense(u, "relu") for u in (7, 6, 4)])
        reference(own)
        for dense, *weights in zip(reference.layers, *expert_weights(layer, e, shared), strict=True):
            dense.set_weights(weights)
        with tf.GradientTape() as tape:
            tape.watch(own)
            loss = tf.reduce_sum(weight[:, e] * reference(own))
        wanted, *of_dense = tape.gradient(loss, (own, *reference.trainable_weights))
        assert_close(outputs[:, e], reference(own), rtol=1e-5, atol=1e-5)
        for level, (kernel, bias) in enumerate(zip(of_kernels, of_biases, strict=True)):
            assert_close(kernel[:, e] if shared and level == 0 else kernel[e], of_dense[2 * level], atol=1e-4)
            assert_close(bias[e], of_dense[2 * level + 1], atol=1e-4)
        of_input[... if shared else (slice(None), e)] += wanted
    assert_close(of_x, of_input, atol=1e-4)


@pytest.mark.parametrize("shape", [(64,), (4, 64)], ids=["shared", "one_each"])
def test_experts_start_apart_and_each_with_its_own_glorot_limit(shape):
    tf.keras.utils.set_random_seed(3)
    layer = Experts(4, (32, 16))
    layer.build((None, *shape))
    for level, (fan_in, fan_out) in enumerate([(64, 32), (32, 16)]):
        kernels = np.stack([expert_weights(layer, e, len(shape) == 1)[0][level].ravel() for e in range(4)])
        limit = math.sqrt(6 / (fan_in + fan_out))
        # The largest of n uniform draws is below 0.98 of the limit with probability 0.98^n, n >= 512.
        assert np.all(np.abs(kernels).max(axis=1) > 0.98 * limit) and np.abs(kernels).max() <= limit
        correlation = np.corrcoef(kernels) - np.eye(4)
        assert np.abs(correlation).max() < 5 / math.sqrt(kernels.shape[1])  # 5 standard deviations


def test_a_seed_repeats_the_experts():
    drawn = []
    for _ in range(2):
        tf.keras.utils.set_random_seed(3)
        layer = Experts(2, (4,))
        drawn.append(layer(tf.ones((1, 3))))
    assert_close(drawn[0], drawn[1], rtol=0)


def gate_kernel(gates, k):
    """Of a shared input the gates lie side by side."""
    kernel = gates.kernel.numpy()
    return kernel[k] if kernel.shape[0] == gates.count else kernel[:, k]


@pytest.mark.parametrize("shape", [(6, 5), (6, 2, 5)], ids=["shared", "one_each"])
def test_gates_are_a_softmax_without_bias(shape):
    layer, x = Gates(2, 3), normal(*shape)
    got = layer(x).numpy()
    np.testing.assert_allclose(got.sum(axis=-1), 1, rtol=1e-6)
    assert len(layer.weights) == 1
    for k in range(2):
        own = x.numpy() if len(shape) == 2 else x.numpy()[:, k]
        np.testing.assert_allclose(got[:, k], numpy_softmax(own @ gate_kernel(layer, k)), rtol=1e-5)


@pytest.mark.parametrize("layer", [Experts(3, (4,)), Gates(3, 2)], ids=["experts", "gates"])
def test_one_input_each_must_match_the_count(layer):
    with pytest.raises(ValueError, match=r"count=3.*Received: shape=\(6, 2, 5\)"):
        layer(normal(6, 2, 5))


# === CGC ===

def numpy_cgc(layer, inputs, first):
    """The paper's equations one by one: `inputs` holds T + 1 selectors, the shared module's last."""
    tasks, m, n = layer.tasks, layer.task_experts, layer.shared_experts
    module = [k for k in range(tasks) for _ in range(m)] + [tasks] * n
    outputs = [numpy_mlp(inputs[module[e]], *expert_weights(layer.experts, e, first)) for e in range(tasks * m + n)]
    fused = []
    for k in range(tasks):
        gate = numpy_softmax(inputs[k] @ gate_kernel(layer.task_gates, k))
        seen = outputs[k * m : (k + 1) * m] + outputs[tasks * m :]
        fused.append(sum(gate[:, [i]] * e for i, e in enumerate(seen)))
    if not layer.last:
        gate = numpy_softmax(inputs[tasks] @ gate_kernel(layer.shared_gate, 0))
        fused.append(sum(gate[:, [i]] * e for i, e in enumerate(outputs)))
    return np.stack(fused, axis=1)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("m, n", [(1, 3), (3, 1)])
def test_cgc_equals_the_papers_equations(first, last, m, n):
    layer, x = CGC(2, m, n, (6, 4), last=last), normal(7, 5) if first else normal(7, 3, 5)
    layer(x)
    randomise(layer)
    selectors = [x.numpy()] * 3 if first else list(x.numpy().transpose(1, 0, 2))
    # float32 sums of a few dozen products against float64
    np.testing.assert_allclose(layer(x), numpy_cgc(layer, selectors, first), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("levels, reaches_others", [(1, False), (2, True)])
def test_a_tasks_own_experts_reach_other_tasks_only_through_a_shared_gate(levels, reaches_others):
    x = tf.keras.Input(5)
    model = tf.keras.Model(x, trunks.ple(x, 3, 2, 1, (8,), levels))
    before = model(normal(7, 5)).numpy()
    experts = model.get_layer("cgc_1").experts
    bias = experts.biases[0].numpy()
    bias[0:2] += 1.0  # both experts of task 0
    experts.biases[0].assign(bias)
    changed = np.any(model(normal(7, 5)).numpy() != before, axis=(0, 2))
    assert changed.tolist() == [True, reaches_others, reaches_others]
