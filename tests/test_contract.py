"""The contract that every part of the registry keeps; a new part is found here without an edit."""

import dataclasses
from itertools import starmap

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2 import data, parts
from dlen_cam2.training import jobs, passes
from tests.support import contract
from tests.support.contract import NEEDED, NETWORK

PARTS = [(kind, name) for kind in (*NETWORK, "step_rule") for name in parts.classes(kind)]
# Models in which every part lives, with one of each other kind that a model must have: {kind: name} of each.
LIVES = [
    {kind: names[i % len(names)] for kind in NETWORK if i < len(names := [*parts.classes(kind)]) or kind in NEEDED}
    for i in range(max(len(parts.classes(kind)) for kind in NETWORK))
]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return contract.log(tmp_path_factory.mktemp("contract"))


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_it_is_a_configuration(kind, name, tmp_path):
    contract.is_a_configuration(contract.small(kind, name), tmp_path)


@pytest.mark.parametrize(("kind", "name"), [p for p in PARTS if p[0] in NETWORK[:-1]])
def test_it_builds_with_every_part_of_every_other_kind(kind, name, log):
    """Of the kinds after its own: those before it build with it."""
    schema = data.fit(log, contract.SCHEMA, contract.DAYS[:1])
    contract.builds_with(contract.small(kind, name), schema, NETWORK[NETWORK.index(kind) + 1 :])


def test_every_part_of_a_network_lives():
    assert {pair for life in LIVES for pair in life.items()} == {part for part in PARTS if part[0] in NETWORK}


@pytest.mark.slow
@pytest.mark.parametrize("life", LIVES, ids=lambda life: "-".join(life.values()))
def test_a_life(life, log, tmp_path):
    """In bfloat16, too, where outputs are float32 and near."""
    settings = contract.config(*starmap(contract.small, life.items()), without=contract.NEW)
    whole = contract.a_life(settings, log, tmp_path / "m")
    half = jobs.start(dataclasses.replace(settings, train=dataclasses.replace(
        settings.train, precision="mixed_bfloat16")), log, contract.DAYS[:1])
    for mine, theirs in zip(half.network.weights, whole.network.weights, strict=True):
        mine.assign(theirs)
    exact, rounded = (contract.outputs(job, contract.DAYS[1]) for job in (whole, half))
    for output, values in exact.items():
        assert rounded[output].dtype == tf.float32.as_numpy_dtype
        np.testing.assert_allclose(rounded[output], values, atol=0.1, err_msg=output)


@pytest.mark.slow
@pytest.mark.parametrize("name", parts.classes("step_rule"))
def test_a_step_rule_trains_and_its_state_is_restored(name, log, tmp_path):
    """What is not in the checkpoint would be that of after the second day when that day is trained on again."""
    settings = contract.config(contract.small("trunk", "cgc"), parts.make("step_rule", name),
                               tasks=("click", "watch"), features=("active", "uid", "seen", "vid"))
    job = jobs.start(settings, log, contract.DAYS[:1])
    passes.fit(job, contract.DAYS[:1])
    path = job.checkpoint.write(str(tmp_path / "state"))
    first = job.network.get_weights()
    passes.fit(job, contract.DAYS[1:])
    second = job.network.get_weights()
    job.checkpoint.read(path).assert_consumed()
    for weight, restored, trained in zip(job.network.weights, first, second, strict=True):
        np.testing.assert_array_equal(weight, restored, err_msg=weight.name)
        assert np.any(restored != trained), weight.name
    passes.fit(job, contract.DAYS[1:])
    for weight, trained in zip(job.network.weights, second, strict=True):
        np.testing.assert_array_equal(weight, trained, err_msg=weight.name)
