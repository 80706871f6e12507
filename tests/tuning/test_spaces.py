"""Spaces: what they choose, and what no search may choose."""

import dataclasses

import keras_tuner
import pytest

from dlen_cam2.config import Config, replaced
from dlen_cam2.configs import kuairand_cam2, kuairand_ple_dlen, spaces
from dlen_cam2.utils.errors import UserError
from tests.support.builders import branches, flat
from tests.support.searches import Stub, find, rate


# === Spaces ===
@pytest.mark.parametrize("part", spaces.PARTS)
def test_a_space_chooses_what_the_configuration_has(part):
    hp = keras_tuner.HyperParameters()
    chosen = spaces.PARTS[part](hp)
    assert {p.name for p in hp.space} <= set(chosen)  # the picture tells scales by these names
    for seed in range(30):
        for parameter in hp.space:
            hp.values[parameter.name] = parameter.random_sample(seed)
        values = spaces.PARTS[part](hp)
        config = dataclasses.asdict(replaced(Config(), values))
        for key, value in values.items():
            section, _, field = key.partition(".")
            node = config[section]["cam2"] if field.startswith("cam2.") else config[section]
            assert node[field.removeprefix("cam2.")] == value


def keys(space):
    return set(space(keras_tuner.HyperParameters()))


def test_the_space_fits_the_model():
    common = keys(spaces.training) | {"model.expert_units", "model.tower_units"}
    assert keys(spaces.fitting(Config(model=flat(trunk="shared_bottom")))) == common
    assert keys(spaces.fitting(Config())) == common | {"model.experts"}
    experts = {"model.experts", "model.task_experts"}
    assert keys(spaces.fitting(Config(model=flat(trunk="cgc")))) == common | experts
    assert keys(spaces.fitting(kuairand_ple_dlen.get_config())) == common | experts | {
        "model.levels", "model.alpha", "model.latent_units"}
    assert "model.causal.thresh" in keys(spaces.fitting(kuairand_cam2.get_config()))
    assert keys(spaces.named("dlen+training")) == keys(spaces.dlen) | keys(spaces.training)


def test_integers_stay_within_their_range():
    """keras-tuner's `Int` without a step gives one more than its greatest at probability 1, where Bayes may look."""
    hp = keras_tuner.HyperParameters()
    spaces.ple(hp)
    for parameter in hp.space:
        if isinstance(parameter, keras_tuner.engine.hyperparameters.Int):
            assert [parameter.prob_to_value(p) for p in (0.0, 1.0)] == [parameter.min_value, parameter.max_value]


@pytest.mark.parametrize("values, message", [
    ({"model.expert": 3}, r"config\.model has no key \['expert'\]. Known: \["),
    ({"models.experts": 3}, r"config has no key \['models'\]"),
    ({"train.seed.x": 3}, r"config has no key 'train\.seed\.x': 'seed' is no section of it"),
    ({"model.experts": 2.5}, r"config\.model\.experts must be int. Received: 2\.5"),
    ({"model.expert_units": ("64",)}, r"config\.model\.expert_units must be a tuple of int"),
    ({"model.dropout": 1.5}, r"config\.model\.dropout must be in \[0, 1\). Received: 1\.5"),
])
def test_a_space_that_chooses_what_cannot_be(log, tmp_path, values, message):
    with pytest.raises(UserError, match=message):
        find(log, tmp_path / "out", space=lambda hp: rate(hp) | values)
    assert not Stub.calls and not (tmp_path / "out").exists()


def test_replaced_leaves_what_it_is_given():
    before = Config(model=flat(causal=branches(blocks=3)))
    after = replaced(before, {"model.causal.thresh": 0.9, "model.tower_units": (8, 4), "train.learning_rate": 1})
    assert (after.model.causal.thresh, after.model.causal.blocks, after.model.tower_units) == (0.9, 3, (8, 4))
    assert after.train.learning_rate == 1.0 and before == Config(model=flat(causal=branches(blocks=3)))
