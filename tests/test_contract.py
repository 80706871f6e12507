"""The contract that every part of the registry keeps; a new part is found here without an edit."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2 import data, parts
from dlen_cam2.training import jobs, passes
from tests.support import contract
from tests.support.contract import NETWORK

PARTS = [(kind, name) for kind in (*NETWORK, "step_rule") for name in parts.classes(kind)]


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


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [p for p in PARTS if p[0] in NETWORK])
def test_a_life(kind, name, log, tmp_path):
    contract.a_life(contract.config(contract.small(kind, name), without=contract.NEW), log, tmp_path / "m")


@pytest.mark.slow
@pytest.mark.parametrize("name", parts.classes("step_rule"))
def test_a_step_rule_trains_every_weight_and_its_state_is_restored(name, log, tmp_path):
    settings = contract.config(contract.small("trunk", "cgc"), parts.make("step_rule", name),
                               tasks=("click", "watch"), features=("active", "uid", "seen", "vid"))
    one, other = (jobs.start(settings, log, contract.DAYS[:1]) for _ in range(2))
    passes.fit(one, contract.DAYS[:1])
    path = one.checkpoint.write(str(tmp_path / "state"))
    other.checkpoint.read(path).assert_consumed()
    for job in (one, other):
        passes.fit(job, contract.DAYS[1:])
    for mine, theirs in zip(one.network.weights, other.network.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs, err_msg=mine.name)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [p for p in PARTS if p[0] in NETWORK])
def test_in_bfloat16_it_is_near_and_gives_float32(kind, name, log):
    settings = contract.config(contract.small(kind, name), without=contract.NEW)
    whole = jobs.start(settings, log, contract.DAYS[:1])
    half = jobs.start(dataclasses.replace(settings, train=dataclasses.replace(
        settings.train, precision="mixed_bfloat16")), log, contract.DAYS[:1])
    for mine, theirs in zip(half.network.weights, whole.network.weights, strict=True):
        mine.assign(theirs)
    exact, rounded = (contract.outputs(job, contract.DAYS[1]) for job in (whole, half))
    for output, values in exact.items():
        assert rounded[output].dtype == tf.float32.as_numpy_dtype
        np.testing.assert_allclose(rounded[output], values, atol=0.1, err_msg=output)
