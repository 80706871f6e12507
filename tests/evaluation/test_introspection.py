"""What the inspection of a network says, against numbers worked out by hand."""

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2 import parts
from dlen_cam2.evaluation import introspection
from dlen_cam2.evaluation.introspection_report import draw, tables
from dlen_cam2.models import ReadOut, build
from dlen_cam2.models.trunks.cgc import ExtractionLayer
from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.utils.errors import UserError
from tests.support.builders import tiny_batch, tiny_config, tiny_schema

# One numeric feature x, so that a gate with the kernel log w has the weights w where x = 1, and is uniform where x = 0.
SCHEMA = Schema(
    "hand",
    (Feature("x", "float", "item", "statistical"),),
    (Task("click", positive_rate=0.4), Task("hate", negative=True, positive_rate=0.1),
     Task("finish", mask="played", positive_rate=0.2)),
)
ROWS = (
    {"item_statistical": {"x": tf.constant([1.0, 1.0, 1.0, 0.0])}},
    {
        "click": tf.constant([1.0, 0, 1, 0]), "hate": tf.constant([1.0, 1, 0, 0]),
        "finish": tf.constant([1.0, 0, 1, 0]), "played": tf.constant([1.0, 1, 0, 1]),
    },
)
ONES = ({"item_statistical": {"x": tf.ones(4)}}, ROWS[1])


def hand(**model):
    """A network of `SCHEMA` and one of its layers by name."""
    network = build(tiny_config(**model).model, SCHEMA)
    return network, network.get_layer


def read_out(head="logistic", schema=SCHEMA):
    return ReadOut(tiny_config(head=head).model, schema)


def inspected(network, batches=(ROWS,), schema=SCHEMA, head="logistic"):
    return introspection.inspect(network, read_out(head, schema), batches)


def entropy(*weights):
    return -sum(w * np.log(w) for w in weights if w) / np.log(len(weights))


def logit(p):
    return np.log(p / (1 - p))


def assign_weights(gates, weights):
    gates.kernel.assign(np.log(np.maximum(np.array(weights, np.float32), 1e-30))[None])


# === Gates ===

def test_mmoe_by_hand():
    network, layer = hand(trunk="mmoe", experts=3)
    assign_weights(layer("gates"), [[0.5, 0.25, 0.25], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])
    (found,) = inspected(network).gates
    assert (found.level.name, found.level.gates) == ("gates", ("click", "hate", "finish"))
    assert found.level.experts == ("expert 1", "expert 2", "expert 3") and found.level.sees.all()
    # A quarter of the rows is uniform over three experts.
    expected = 0.75 * np.array([[0.5, 0.25, 0.25], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3]]) + 0.25 / 3
    np.testing.assert_allclose(found.weights, expected, rtol=1e-5)
    np.testing.assert_allclose(found.entropy, [0.25 + 0.75 * entropy(0.5, 0.25, 0.25), 0.25, 1], rtol=1e-5)
    np.testing.assert_allclose(found.use, expected.mean(axis=0), rtol=1e-5)
    assert found.dead == []


def test_an_expert_that_no_gate_listens_to_is_dead():
    network, layer = hand(trunk="mmoe", experts=3)
    # The third has less than 1% of every gate, the second of all but one.
    assign_weights(layer("gates"), [[0.991, 0.002, 0.007], [0.5, 0.498, 0.002], [0.996, 0.002, 0.002]])
    (found,) = inspected(network, [ONES]).gates
    assert found.dead == ["expert 3"]
    text = tables(inspected(network, [ONES]))
    assert "Dead experts (below 1% for every gate): expert 3." in text


def test_one_expert_has_no_entropy():
    network, _ = hand(trunk="mmoe", experts=1)
    (found,) = inspected(network).gates
    np.testing.assert_allclose(found.weights, np.ones((3, 1)), atol=1e-6)  # TensorFlow's softmax of one is 1 - 6e-8
    np.testing.assert_allclose(found.entropy, np.zeros(3), atol=1e-6)  # without AVX-512


def test_ple_by_hand():
    """Two levels, one expert of each task's own and two shared ones; the second level's gates are uniform."""
    network, layer = hand(trunk="ple", experts=2, task_experts=1, levels=2)
    first, second = layer("cgc_1"), layer("cgc_2")
    assign_weights(first.task_gates, [[0.5, 0.25, 0.25], [0.2, 0.8, 0], [1, 0, 0]])
    assign_weights(first.shared_gate, [[0.6, 0.1, 0.1, 0.2, 0]])
    second.task_gates.kernel.assign(tf.zeros_like(second.task_gates.kernel))
    one, two = inspected(network, [ONES]).gates
    assert one.level.experts == two.level.experts == ("click 1", "hate 1", "finish 1", "shared 1", "shared 2")
    assert one.level.gates == ("click", "hate", "finish", "shared") and two.level.gates == ("click", "hate", "finish")
    np.testing.assert_allclose(one.weights, [
        [0.5, 0, 0, 0.25, 0.25], [0, 0.2, 0, 0.8, 0], [0, 0, 1, 0, 0], [0.6, 0.1, 0.1, 0.2, 0],
    ], atol=1e-6)
    np.testing.assert_array_equal(one.level.sees, [[1, 0, 0, 1, 1], [0, 1, 0, 1, 1], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    wanted = [entropy(0.5, 0.25, 0.25), entropy(0.2, 0.8, 0), 0, entropy(0.6, 0.1, 0.1, 0.2, 0)]
    np.testing.assert_allclose(one.entropy, wanted, atol=1e-5)
    np.testing.assert_allclose(one.use, [1.1 / 2, 0.3 / 2, 1.1 / 2, 1.25 / 4, 0.25 / 4], atol=1e-6)
    np.testing.assert_allclose(two.weights, np.array(two.level.sees) / 3, atol=1e-6)
    np.testing.assert_allclose(two.entropy, np.ones(3), atol=1e-5)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_the_weights_of_a_cgc_are_those_it_mixes_by(first, last):
    layer, rng = ExtractionLayer(3, 2, 1, (4,), last=last), np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(6, 5) if first else (6, 4, 5)), tf.float32)
    mixed = layer(x)
    experts = layer.experts(x if first else tf.gather(x, [0, 0, 1, 1, 2, 2, 3], axis=1))
    weights = layer.gate_weights(x)
    assert weights.shape == (6, 3 if last else 4, 7)
    np.testing.assert_allclose(tf.matmul(weights, experts), mixed, rtol=1e-5, atol=1e-6)


# === DLEN ===

def dlen_by_hand(**model):
    """b/α is .95, .2 and .5 in every row; P(UP) is .82 where x = 1 and .22 where x = 0."""
    network, layer = hand(head="dlen", latent_units=(1,), **model)
    b = layer("capped_head").not_preferred
    b.kernel.assign(tf.zeros_like(b.kernel))
    b.bias.assign([logit(0.95), logit(0.2), logit(0.5)])
    latent = layer("latent_state")
    latent.network.kernels[0].assign([[[1.0]]])
    latent.logit.kernel.assign([[logit(0.82) - logit(0.22)]])
    latent.logit.bias.assign([logit(0.22)])
    return network


@pytest.mark.parametrize("trunk", parts.classes("trunk"))
def test_dlen_by_hand(trunk):
    network = dlen_by_hand(trunk=trunk)
    found = inspected(network, head="dlen")
    (caps,) = found.telemetry
    assert found.rows == 4 and caps.name == "cap_use" and caps.tasks == ("click", "hate", "finish")
    assert caps.notes == ("α = 0.12", "no cap", "α = 0.06")
    np.testing.assert_allclose(network.get_layer("capped_head").alphas, [0.3 * 0.4, 1, 0.3 * 0.2])
    np.testing.assert_allclose(caps.mean, [0.95, 0.2, 0.5], rtol=1e-5)
    np.testing.assert_array_equal(caps.near, [1, 0, 0])
    np.testing.assert_allclose(found.latent.p_up, [0.82, 0.82, 0.82, 0.22], rtol=1e-5)
    # "hate" is no positive behaviour, and "finish" only counts where it was played.
    np.testing.assert_array_equal(found.latent.behaviours, [2, 0, 1, 0])
    groups = {count: list(np.round(p, 4)) for count, p in found.latent.by_behaviours.items()}
    assert groups == {0: pytest.approx([0.82, 0.22]), 1: pytest.approx([0.82]), 2: pytest.approx([0.82])}
    assert {int(b): int(n) for b, n in enumerate(found.latent.histogram) if n} == {4: 1, 16: 3}
    text = tables(found)
    assert "| hate | no cap | 0.200 | 0.0% |" in text and "| click | α = 0.12 | 0.950 | 100.0% |" in text
    assert "| 0 | 2 | 0.5200 |" in text and "| 0.80 to 0.85 | 3 | 75.0% |" in text
    assert "The mean is 0.6700 over 4 rows" in text


# === Any network ===

def built(**model):
    tf.keras.utils.set_random_seed(3)
    return build(tiny_config(**model).model, tiny_schema(model.get("head", "logistic")))


@pytest.mark.slow
@pytest.mark.parametrize(("trunk", "head"), [  # what a trunk and what a head shows have nothing in common
    *((trunk, "dlen") for trunk in parts.classes("trunk")),
    *(("ple", head) for head in parts.classes("head") if head != "dlen"),
])
def test_every_trunk_and_every_head(trunk, head, tmp_path):
    network, features = built(trunk=trunk, head=head), tiny_batch(8)[0]
    layers, weights = len(network.layers), network.get_weights()
    shown_by = read_out(head, tiny_schema(head))
    found = introspection.inspect(network, shown_by, [tiny_batch(8)])
    assert [g.level.name for g in found.gates] == {
        "shared_bottom": [], "mmoe": ["gates"], "cgc": ["cgc_1"], "ple": ["cgc_1", "cgc_2"],
    }[trunk]
    for gates in found.gates:
        np.testing.assert_allclose(gates.weights.sum(axis=1), 1, rtol=1e-5)
        assert np.all(gates.weights[~gates.level.sees] == 0) and np.all((gates.entropy > 0) & (gates.entropy <= 1))
    assert (found.latent is not None) == bool(found.telemetry) == (head == "dlen")
    assert "nan" not in tables(found)
    pictures = draw(tmp_path, found)
    assert pictures == ["gates.png"] * bool(found.gates) + ["latent.png"] * (head == "dlen")

    probe = introspection.probe(network)
    assert (probe is None) == (trunk == "shared_bottom")
    if probe is not None:
        outputs = probe(features)
        for name, value in network(features).items():
            np.testing.assert_array_equal(outputs[name], value)
        for gates in found.gates:
            np.testing.assert_allclose(tf.reduce_mean(outputs[f"gate/{gates.level.name}"], 0), gates.weights, atol=1e-6)
    assert len(network.layers) == layers
    for before, after in zip(weights, network.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)

    expected = {}
    for gates in found.gates:
        name = gates.level.name
        expected |= {f"gate_entropy/{name}/{g}": h for g, h in zip(gates.level.gates, gates.entropy, strict=True)}
        expected |= {f"expert_use/{name}/{e}": u for e, u in zip(gates.level.experts, gates.use, strict=True)}
    if head == "dlen":
        (caps,) = found.telemetry
        expected |= {f"cap_use/{t}": m for t, m in zip(caps.tasks, caps.mean, strict=True)}
        expected["p_up"] = found.latent.p_up
    values = introspection.Watcher(network, shown_by)(features)
    assert list(values) == list(expected)
    for name, value in values.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, err_msg=name)


def test_batches_of_any_size_are_one():
    network = built(trunk="ple", head="dlen")
    whole = tiny_batch(12)
    parts = [tf.nest.map_structure(lambda t, a=a, b=b: t[a:b], whole) for a, b in ((0, 5), (5, 6), (6, 12))]
    one, many = (inspected(network, batches, tiny_schema(), "dlen") for batches in ([whole], parts))
    for a, b in zip(one.gates, many.gates, strict=True):
        np.testing.assert_allclose(a.weights, b.weights, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(a.entropy, b.entropy, rtol=1e-5)
    np.testing.assert_allclose(one.telemetry[0].mean, many.telemetry[0].mean, rtol=1e-5)
    np.testing.assert_allclose(one.latent.p_up, many.latent.p_up, rtol=1e-5)
    np.testing.assert_array_equal(one.latent.behaviours, many.latent.behaviours)


def test_caps_that_hold_a_task_down_are_counted_row_by_row():
    network, (features, labels) = built(trunk="mmoe", head="dlen"), tiny_batch(40)
    b = network.get_layer("capped_head").not_preferred
    b.kernel.assign(b.kernel * 1000)
    share = np.exp(network(features)["not_preferred"]) / network.get_layer("capped_head").alphas
    (found,) = inspected(network, [(features, labels)], tiny_schema(), "dlen").telemetry
    assert 0 < found.near.max() < 1
    np.testing.assert_allclose(found.near, (share > 0.9).mean(axis=0), atol=1e-6)


def test_summaries_are_traced_once_and_follow_the_weights():
    network, features = built(trunk="mmoe", head="dlen"), tiny_batch(8)[0]
    watch = introspection.Watcher(network, read_out("dlen", tiny_schema()))
    first = watch(features)
    network.get_layer("gates").kernel.assign(tf.zeros_like(network.get_layer("gates").kernel))
    for seed in range(3):
        second = watch(tiny_batch(8, seed)[0])
    assert watch._read.experimental_get_tracing_count() == 1
    for rows in (5, 6, 7):
        watch(tiny_batch(rows)[0])
    assert watch._read.experimental_get_tracing_count() == 2
    assert first["gate_entropy/gates/click"] < 0.9999 and abs(second["gate_entropy/gates/click"] - 1) < 1e-5
    assert second["p_up"].shape == (8,)


def test_bfloat16_weights_add_up():
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        found = inspected(built(trunk="ple", head="dlen"), [tiny_batch(8)], tiny_schema(), "dlen")
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    for gates in found.gates:
        np.testing.assert_allclose(gates.weights.sum(axis=1), 1, atol=0.02)


def test_no_rows_are_an_error():
    with pytest.raises(UserError, match="at least one row"):
        inspected(built(), [], tiny_schema())
