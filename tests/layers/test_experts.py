"""Experts, gates and extraction layers against separate networks and the papers' equations."""

import math

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.layers import Experts, Gates
from dlen_cam2.models import PLE
from dlen_cam2.models.context import Context
from dlen_cam2.models.trunks.cgc import ExtractionLayer
from dlen_cam2.schema import Schema, Task
from tests.support.builders import numpy_mlp, numpy_softmax
from tests.support.layers import assert_close, expert_weights, gate_kernel, normal, randomise


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
    layer, x = ExtractionLayer(2, m, n, (6, 4), last=last), normal(7, 5) if first else normal(7, 3, 5)
    layer(x)
    randomise(layer)
    selectors = [x.numpy()] * 3 if first else list(x.numpy().transpose(1, 0, 2))
    # float32 sums of a few dozen products against float64
    np.testing.assert_allclose(layer(x), numpy_cgc(layer, selectors, first), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_gate_weights_are_what_the_experts_are_mixed_by(first, last):
    layer, x = ExtractionLayer(2, 2, 1, (6, 4), last=last), normal(7, 5) if first else normal(7, 3, 5)
    wanted = layer(x)
    weights = layer.gate_weights(x).numpy()
    np.testing.assert_allclose(weights.sum(axis=2), 1, rtol=1e-6)
    experts = layer.experts(x if first else tf.gather(x, [0, 0, 1, 1, 2], axis=1))
    assert_close(tf.matmul(weights, experts), wanted, rtol=1e-6)
    found = layer.mixture(("click", "like"))
    assert found.gates == (("click", "like") if last else ("click", "like", "shared"))
    assert found.experts == ("click 1", "click 2", "like 1", "like 2", "shared 1")
    np.testing.assert_array_equal(found.sees, (weights > 0).all(axis=0))
    assert found.sees.sum(axis=1).tolist() == ([3, 3] if last else [3, 3, 5])


@pytest.mark.parametrize("levels, reaches_others", [(1, False), (2, True)])
def test_a_tasks_own_experts_reach_other_tasks_only_through_a_shared_gate(levels, reaches_others):
    x = tf.keras.Input(5)
    tasks = Context(Schema("tasks", (), tuple(Task(f"task_{k}") for k in range(3))), {})
    model = tf.keras.Model(x, PLE(units=(8,), experts=1, task_experts=2, levels=levels)(x, tasks))
    before = model(normal(7, 5)).numpy()
    experts = model.get_layer("cgc_1").experts
    bias = experts.biases[0].numpy()
    bias[0:2] += 1.0  # both experts of task 0
    experts.biases[0].assign(bias)
    changed = np.any(model(normal(7, 5)).numpy() != before, axis=(0, 2))
    assert changed.tolist() == [True, reaches_others, reaches_others]
