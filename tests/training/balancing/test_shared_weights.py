"""Which weights are shared, as the layers of each trunk declare and as gradients say."""

import re

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.layers.axes import shared_weights
from dlen_cam2.models import SharedBottom, build
from dlen_cam2.training.balancing.gradients import last_kernel
from dlen_cam2.training.balancing.metabalance import MetaBalanceBalancer
from dlen_cam2.training.balancing.pcgrad import PCGradBalancer
from dlen_cam2.utils.errors import UserError
from tests.support.balancing import combined, make
from tests.support.builders import tiny_batch, tiny_config, tiny_schema


def masks(**model):
    network = build(tiny_config(**model).model, tiny_schema())
    found = zip(network.trainable_variables, shared_weights(network), strict=True)
    return network, {v.name: (mask, v.shape) for v, mask in found if mask is not None}


def test_the_mask_of_ple():
    # T = 3 tasks with 2 experts each, 3 shared: 9 experts a level; in the last, all reach only the last 3.
    network, found = masks(trunk="ple", head="dlen", levels=2)
    names = [f"cgc_{level}/experts/{kind}_{n}:0" for level in (1, 2) for n in (0, 1) for kind in ("kernel", "bias")]
    assert set(found) == {"embeddings/tables_2:0", "embeddings/tables_4:0", *names}
    for name in names:
        mask, shape = found[name]
        expected = np.ones(shape)
        if name.startswith("cgc_2"):
            expected[:6] = 0
        np.testing.assert_array_equal(np.broadcast_to(mask, shape), expected)
    place, mask = last_kernel(network)
    assert network.trainable_variables[place].name == "cgc_2/experts/kernel_1:0"
    assert mask.ravel().tolist() == [0] * 6 + [1] * 3


def test_the_mask_of_cgc_and_of_the_others():
    # One level: the first kernel holds the experts side by side, (in, 9, out).
    _, found = masks(trunk="cgc")
    mask, shape = found["cgc_1/experts/kernel_0:0"]
    expected = np.ones(shape)
    expected[:, :6] = 0
    np.testing.assert_array_equal(np.broadcast_to(mask, shape), expected)
    for trunk, name in (("mmoe", "experts"), ("shared_bottom", "shared_bottom")):
        network, found = masks(trunk=trunk, head="dlen")
        assert {n.partition("/")[0] for n in found} == {"embeddings", name}
        assert all((mask == 1).all() for mask, _ in found.values())
        assert network.trainable_variables[last_kernel(network)[0]].name == f"{name}/kernel_1:0"


@pytest.mark.parametrize("trunk", ["shared_bottom", "mmoe", "cgc", "ple"])
def test_a_mask_is_what_gradients_of_more_than_one_task_reach(trunk):
    tf.keras.utils.set_random_seed(0)
    network = build(tiny_config(trunk=trunk, head="dlen", units=(32, 16)).model, tiny_schema())
    features, _ = tiny_batch(64)
    with tf.GradientTape(persistent=True) as tape:
        logits = tf.unstack(tf.reduce_sum(network(features)["logits"], axis=0))
    by_task = [tape.gradient(each, network.trainable_variables) for each in logits]
    for v, mask, *gradients in zip(network.trainable_variables, shared_weights(network), *by_task, strict=True):
        if "experts" in v.name and "gate" not in v.name or "bottom" in v.name:
            tasks = sum((tf.convert_to_tensor(g).numpy() != 0).astype(int) for g in gradients)
            assert tasks[np.broadcast_to(mask, v.shape) == 0].max(initial=0) <= 1
            assert tasks[np.broadcast_to(mask, v.shape) == 1].max() > 1
        if "tables" in v.name:
            assert all(isinstance(g, tf.IndexedSlices) for g in gradients)


def test_an_own_expert_does_not_count_as_a_task():
    # The shared halves agree; the own expert's large gradient must not enter the norms.
    mask = np.array([[0.0], [1.0]], np.float32)
    method = MetaBalanceBalancer(2, [mask], main=0, relax=1.0, beta=0.0)
    found = combined(method, [[[100.0], [1.0]]], [[[0.0], [2.0]]], [None])[0]
    assert found.tolist() == [[100], [2]]
    opposed = combined(PCGradBalancer(2, [mask]), [[[100.0], [1.0]]], [[[0.0], [-1.0]]], [None])[0]
    assert opposed.tolist() == [[100], [0]]


class Strange(tf.keras.layers.Dense):
    """Tells nobody that all tasks reach its weights."""


class Alone(Strange):
    def shared_weights(self):
        return []


@pytest.mark.parametrize(("layer", "method", "message"), [
    (Strange, "pcgrad", "layer 'strange', a Strange without `shared_weights`"),
    (Strange, "metabalance", "layer 'strange', a Strange without `shared_weights`"),
    (Strange, "gradnorm", "layer 'strange', a Strange without `shared_weights`"),
    (Alone, "gradnorm", "needs a trunk with a kernel that tasks share. Received: no such kernel in"),
])
def test_a_trunk_whose_weights_are_not_known_to_be_shared_is_refused(monkeypatch, layer, method, message):
    def trunk(self, x, context):
        return tf.repeat(layer(self.units[-1], name="strange")(x)[:, None], context.tasks, axis=1)

    monkeypatch.setattr(SharedBottom, "__call__", trunk)
    with pytest.raises(UserError, match=re.escape(message)):
        make(method, trunk="shared_bottom")
