"""Every step rule, and clipping, on two replicas."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tests.support.balancing import FEW, METHODS, few, make
from tests.support.builders import reported_by, two_replicas

# What a ranker is made with; without a rule, where the norm over both replicas is well above the bound.
WAYS = {method: {"rule": method} for method in METHODS} | {"clipped": {"clip_norm": 0.1}}
# Small: on two replicas TensorFlow takes turns between two threads for every weight.
MODEL = {"trunk": "shared_bottom", "head": "dlen", "units": (6,), "tower_units": (), "latent_units": ()}


def trained(strategy, way):
    """Weights and state after three batches, the last uneven. (Adam would blow up rounding errors.)"""
    with strategy.scope():
        sgd = tf.keras.optimizers.SGD(0.1)
        ranker = make(**WAYS[way], schema=FEW, optimizer=sgd, **MODEL)
    start = ranker.network.get_weights()
    ranker.fit(tf.data.Dataset.from_tensor_slices(few(23)).batch(8), verbose=0)
    move = np.concatenate([(a - b).ravel() for a, b in zip(ranker.network.get_weights(), start, strict=True)])
    variables = () if ranker.balancer is None else ranker.balancer.variables
    state = np.concatenate([np.zeros(0), *(np.ravel(v.numpy()) for v in variables)])
    return move, state


def compare_replicas():
    """Run in a process of its own, because logical devices must be set before TensorFlow starts."""
    mirrored = two_replicas()
    report = {}
    for way in WAYS:
        one, two = trained(tf.distribute.get_strategy(), way), trained(mirrored, way)
        report[way] = {
            "moved": float(np.abs(one[0]).max()), "difference": float(np.abs(one[0] - two[0]).max()),
            "state": one[1].tolist(), "other_state": two[1].tolist(),
        }
    print(json.dumps(report))


@pytest.fixture(scope="module")
def replicas():
    return reported_by("tests.training.balancing.test_replicas")


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_two_replicas_equal_one_device(replicas, way):
    got = replicas[way]
    assert got["moved"] > (0.002 if way == "clipped" else 0.01)
    assert got["difference"] < 1e-5
    np.testing.assert_allclose(got["other_state"], got["state"], rtol=1e-4, atol=1e-6)
