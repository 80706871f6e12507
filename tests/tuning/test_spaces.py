"""Spaces: what they choose, and what no search may choose."""

import functools

import keras_tuner
import pytest

from dlen_cam2 import parts
from dlen_cam2.config import Config, replaced
from dlen_cam2.configs import kuairand_cam2, kuairand_ple_dlen, spaces
from dlen_cam2.utils.errors import UserError
from tests.support.builders import branches, flat
from tests.support.searches import Stub, find, rate

# === Spaces ===
# Every kind of part that a configuration holds, and the section of what they all have.
SECTIONS = {
    "training": ("training", Config()),
    **{name: ("trunk", Config(model=flat(name))) for name in parts.classes("trunk")},
    **{name: ("head", Config(model=flat(head=name))) for name in parts.classes("head")},
    "cam2": ("causal", Config(model=flat(causal=branches()))),
    "cam2 of values": ("causal", Config(model=flat(causal=branches(thresh=20.0, thresh_unit="value")))),
    **{name: ("step_rule", replaced(Config(), {"train.step_rule": name})) for name in parts.classes("step_rule")},
}


@pytest.mark.parametrize("section, config", SECTIONS.values(), ids=SECTIONS)
def test_a_space_chooses_what_the_configuration_has(section, config):
    hp, space = keras_tuner.HyperParameters(), spaces.named(config, section)
    chosen = space(hp)
    assert {p.name for p in hp.space} <= set(chosen)  # the picture tells scales by these names
    for seed in range(30):
        for parameter in hp.space:
            hp.values[parameter.name] = parameter.random_sample(seed)
        values = space(hp)
        changed = replaced(config, values)
        for key, value in values.items():
            assert functools.reduce(getattr, key.split("."), changed) == value


def keys(space):
    return set(space(keras_tuner.HyperParameters()))


def test_the_space_fits_the_model():
    common = {"train.embedding_learning_rate", "train.learning_rate", "train.batch_size", "model.dropout",
              "model.embedding_l2", "model.tower_units"}
    assert keys(spaces.named(Config(), "training")) == common
    common |= {"model.trunk.units"}
    assert keys(spaces.fitting(Config(model=flat(trunk="shared_bottom")))) == common
    assert keys(spaces.fitting(Config())) == common | {"model.trunk.experts"}
    experts = {"model.trunk.experts", "model.trunk.task_experts"}
    assert keys(spaces.fitting(Config(model=flat(trunk="cgc")))) == common | experts
    assert keys(spaces.fitting(kuairand_ple_dlen.get_config())) == common | experts | {
        "model.trunk.levels", "model.head.alpha", "model.head.latent_units"}
    assert {"model.causal.thresh", "model.causal.thresh_unit"} < keys(spaces.fitting(kuairand_cam2.get_config()))
    ple = kuairand_ple_dlen.get_config()
    assert keys(spaces.named(ple, "head+training")) == (
        keys(spaces.named(ple, "head")) | keys(spaces.named(ple, "training")))


def test_a_section_that_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"one or more of \['encoder', 'head', .*'training', 'trunk'\], joined by \+. "
                                        r"Received: \['causal'\] in 'trunk\+causal'"):
        spaces.named(Config(), "trunk+causal")


def test_integers_stay_within_their_range():
    """keras-tuner's `Int` without a step gives one more than its greatest at probability 1, where Bayes may look."""
    hp = keras_tuner.HyperParameters()
    spaces.fitting(Config(model=flat("ple", "dlen", branches())))(hp)
    whole = [p for p in hp.space if isinstance(p, keras_tuner.engine.hyperparameters.Int)]
    assert {p.name for p in whole} == {f"model.trunk.{name}" for name in ("experts", "task_experts", "levels")}
    for parameter in whole:
        assert [parameter.prob_to_value(p) for p in (0.0, 1.0)] == [parameter.min_value, parameter.max_value]


@pytest.mark.parametrize("values, message", [
    ({"model.expert": 3}, r"config\.model has no key \['expert'\]. Known: \["),
    ({"model.trunk.expert": 3}, r"config\.model\.trunk \(mmoe\) has no key \['expert'\]. Known: \['experts', "),
    ({"model.trunk.levels": 3}, r"config\.model\.trunk \(mmoe\) has no key \['levels'\]"),
    ({"model.trunk": "transformer"}, r"config\.model\.trunk must be a trunk, one of \['cgc', "),
    ({"model.causal.thresh": 0.9}, r"config\.model\.causal must name a causal before its values are set"),
    ({"models.experts": 3}, r"config has no section 'models'. Known: \['model', 'name', 'train'\]"),
    ({"train.seed.x": 3}, r"config\.train has no section 'seed'. Known: \["),
    ({"model.trunk.experts": 2.5}, r"config\.model\.trunk \(mmoe\)\.experts must be int. Received: 2\.5"),
    ({"model.trunk.units": ("64",)}, r"config\.model\.trunk \(mmoe\)\.units must be a tuple of int"),
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
