"""Whole networks against the same mathematics written out: a look-up a feature, a Dense an expert, a sum a gate."""

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.layers import Embeddings
from dlen_cam2.models import build
from tests.support.builders import flat, numpy_mlp, numpy_softmax, tiny_batch, tiny_schema

SIZES = {"experts": 3, "task_experts": 2, "units": (16, 8, 8), "tower_units": (6,)}


def of(network, name):
    """{weight: array} of a layer."""
    return {w.name.split("/")[-1].split(":")[0]: w.numpy() for w in network.get_layer(name).weights}


def embedded(network, batch):
    """(B, D): the user's features, the others', the products, each looked up by itself."""
    schema, layer = tiny_schema(), next(layer for layer in network.layers if isinstance(layer, Embeddings))
    tables = {}
    for variable, (axis, _) in layer.axes(None, None):
        for (table, _), (row, count) in axis.starts().items():
            before = tables.get(table, variable[:0])
            tables[table] = np.concatenate([before, variable[row : row + count]])

    def vectors(name):
        feature = next(f for f in schema.features if f.name == name)
        values = batch[feature.group][name].numpy()
        if feature.is_numeric:
            return values[:, None]
        if not feature.is_list:
            return tables[feature.table][values]
        return np.stack([
            tables[feature.table][row[row >= 0]].mean(axis=0) if (row >= 0).any() else np.zeros(feature.width)
            for row in values
        ])

    columns = [names for names, _ in layer.columns().segments]
    return np.concatenate([np.prod([vectors(n) for n in names], axis=0) for names in columns], axis=1)


def dense(x, weights, expert, side_by_side):
    """One expert: a product and a ReLU a layer."""
    levels = range(len(weights) // 2)
    kernels = [weights[f"kernel_{n}"][:, expert] if side_by_side and n == 0 else weights[f"kernel_{n}"][expert]
               for n in levels]
    return numpy_mlp(x, kernels, [weights[f"bias_{n}"][expert] for n in levels])


def mmoe(network, x, tasks):
    experts = [dense(x, of(network, "experts"), e, True) for e in range(SIZES["experts"])]
    for k in range(tasks):
        gate = numpy_softmax(x @ of(network, "gates")["kernel"][:, k])
        yield sum(gate[:, e, None] * expert for e, expert in enumerate(experts))


def cgc(layer, inputs, shared_input, tasks, last):
    """Outputs of the tasks, then the shared one. `inputs` are those of each module, x for all in the first layer."""
    own, shared = SIZES["task_experts"], SIZES["experts"]
    weights = {w.name.split("/")[-1].split(":")[0]: w.numpy() for w in layer.experts.weights}
    module = [k for k in range(tasks) for _ in range(own)] + [tasks] * shared
    experts = [dense(inputs[m], weights, e, shared_input) for e, m in enumerate(module)]
    outputs = []
    for k in range(tasks):
        kernel = layer.task_gates.kernel.numpy()
        gate = numpy_softmax(inputs[k] @ (kernel[:, k] if shared_input else kernel[k]))
        seen = experts[k * own : (k + 1) * own] + experts[tasks * own :]
        outputs.append(sum(gate[:, e, None] * expert for e, expert in enumerate(seen)))
    if not last:
        kernel = layer.shared_gate.kernel.numpy()
        gate = numpy_softmax(inputs[tasks] @ (kernel[:, 0] if shared_input else kernel[0]))
        outputs.append(sum(gate[:, e, None] * expert for e, expert in enumerate(experts)))
    return outputs


@pytest.mark.parametrize("trunk, levels", [("shared_bottom", 0), ("mmoe", 0), ("cgc", 1), ("ple", 1), ("ple", 3)])
def test_a_network_equals_separate_dense_layers(trunk, levels):
    tf.keras.utils.set_random_seed(2)
    network = build(flat(trunk=trunk, levels=levels or 1, **SIZES), tiny_schema())
    for weight in network.weights:
        weight.assign(tf.random.normal(weight.shape, stddev=0.3, seed=3))
    batch, tasks = tiny_batch(32)[0], 3
    x = embedded(network, batch)
    if trunk == "shared_bottom":
        representations = [dense(x, of(network, "shared_bottom"), 0, True)] * tasks
    elif trunk == "mmoe":
        representations = list(mmoe(network, x, tasks))
    else:
        representations = [x] * (tasks + 1)
        for level in range(1, levels + 1):
            layer = network.get_layer(f"cgc_{level}")
            representations = cgc(layer, representations, level == 1, tasks, level == levels)
    read_out = of(network, "logits")
    logits = [
        dense(h, of(network, "towers"), k, False) @ read_out["kernel"][k] + read_out["bias"][k]
        for k, h in enumerate(representations[:tasks])
    ]
    np.testing.assert_allclose(network(batch)["logits"], np.stack(logits, axis=1), rtol=1e-5, atol=1e-5)
