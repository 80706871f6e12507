"""Configurations: stored, read again, and checked."""

import json
import math

import pytest

from dlen_cam2 import config as config_module
from dlen_cam2.config import Config, TrainConfig, check, load, save
from dlen_cam2.configs import kuairand_mmoe, simulated_cam2
from dlen_cam2.models import DLEN, ESMM, MMOE, PLE, Logistic
from dlen_cam2.training.balancing import Decay, GradNorm, MetaBalance, PCGrad, Uncertainty
from dlen_cam2.utils.errors import UserError
from tests.support.builders import branches, flat, tiny_config

OTHER = Config(
    "other",
    flat(
        trunk="ple", experts=4, task_experts=3, levels=3, units=(8,), tower_units=(), head="dlen", alpha=0.1,
        alpha_constant=0.01, latent_units=(4, 2), dropout=0.5, embedding_l2=1e-5, tasks=("click", "like"),
        task_weights=(1.0, 0.25), features=("a", "b"), without=("b",), causal=branches(thresh=0.8, without=("a",)),
    ),
    TrainConfig(
        order="days", epochs=2, batch_size=64, shuffle=10, seed=3, embedding_learning_rate=0.1, learning_rate=1e-4,
        bootstrap=0, step_rule=Decay((0.5, 0.25)),
    ),
)


@pytest.mark.parametrize(
    "config", [Config(), OTHER, tiny_config(), kuairand_mmoe.get_config(), simulated_cam2.get_config()]
)
def test_save_and_load(config, tmp_path):
    check(config)
    save(config, tmp_path / "config.json")
    assert load(tmp_path / "config.json") == config


def test_what_is_stored_names_every_part_and_all_its_values(tmp_path):
    save(OTHER, tmp_path / "config.json")
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["model"]["trunk"] == {"kind": "ple", "units": [8], "experts": 4, "task_experts": 3, "levels": 3}
    dlen = {"alpha": 0.1, "alpha_constant": 0.01, "latent_units": [4, 2], "masked": "exposure"}
    assert stored["model"]["head"] == {"kind": "dlen", **dlen}
    assert stored["model"]["causal"]["kind"] == "cam2" and stored["model"]["causal"]["without"] == ["a"]
    assert stored["model"]["encoder"] == {"kind": "mean"} and stored["model"]["transfer"] is None
    assert stored["train"]["step_rule"] == {"kind": "decay", "gammas": [0.5, 0.25]}


def test_configs_share_nothing():
    Config().model.trunk.experts = 99
    Config().train.step_rule.learning_rate = 99
    assert Config().model.trunk.experts == 5 and tiny_config().model.trunk.experts == 3
    assert not hasattr(Config().train.step_rule, "learning_rate")
    assert Config().train.daily is not Config().train.daily


def edited(tmp_path, path, value):
    """The file of a stored configuration, MMOE with DLEN, with one value replaced: `edited(…, "model.trunk", 3)`."""
    file = tmp_path / "config.json"
    save(Config(model=flat(head="dlen")), file)
    content = json.loads(file.read_text())
    *sections, key = path.split(".")
    node = content
    for section in sections:
        node = node[section]
    node[key] = value
    file.write_text(json.dumps(content))
    return file


@pytest.mark.parametrize("path, value, message", [
    ("model.expert", 5, r"config\.model has no key \['expert'\]. Known: \[.*'trunk'"),
    ("model.trunk.expert", 5, r"config\.model\.trunk \(mmoe\) has no key \['expert'\]. Known: \['experts', 'units'\]"),
    ("models", {}, r"config has no key \['models'\]"),
    ("model", [], r"config\.model must be an object. Received: \[\]"),
    ("model.trunk", [], r"config\.model\.trunk must be an object with the key 'kind'. Received: \[\]"),
    ("model.trunk", "mmoe", r"config\.model\.trunk must be an object with the key 'kind'. Received: 'mmoe'"),
    ("model.trunk", None, r"config\.model\.trunk must be an object with the key 'kind'. Received: None"),
    ("model.trunk", {"experts": 2}, r"config\.model\.trunk must be an object with the key 'kind'. Received: \{"),
    ("name", 3, r"config\.name must be str. Received: 3"),
    ("model.trunk.experts", 5.0, r"config\.model\.trunk \(mmoe\)\.experts must be int. Received: 5\.0"),
    ("model.trunk.experts", True, r"config\.model\.trunk \(mmoe\)\.experts must be int. Received: true"),
    ("model.trunk.experts", None, r"config\.model\.trunk \(mmoe\)\.experts must be int. Received: null"),
    ("model.head.alpha", "0.3", r'config\.model\.head \(dlen\)\.alpha must be float. Received: "0\.3"'),
    ("model.trunk.units", 64, r"config\.model\.trunk \(mmoe\)\.units must be a tuple of int. Received: 64"),
    (
        "model.trunk.units", [64, "32"],
        r'config\.model\.trunk \(mmoe\)\.units must be a tuple of int. Received: \[64, "32"\]',
    ),
    ("model.trunk.experts", 0, r"config\.model\.trunk\.experts must be at least 1. Received: 0"),
])
def test_a_stored_configuration_that_cannot_be_read(tmp_path, path, value, message):
    file = edited(tmp_path, path, value)
    with pytest.raises(UserError, match=message) as error:
        load(file)
    if value != 0:
        assert str(file) in str(error.value)


def test_an_integer_is_a_float_too(tmp_path):
    alpha = load(edited(tmp_path, "model.head.alpha", 1)).model.head.alpha
    assert alpha == 1.0 and type(alpha) is float


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_file_that_is_no_configuration(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json.*Received"):
        load(tmp_path / "config.json")


NAN = float("nan")


def with_value(key, value):
    """A configuration in which the attribute `key` has been set; PLE, DLEN and CAM2, so that it has every field."""
    config = Config(model=flat("ple", "dlen", branches()))
    *sections, field = key.split(".")
    node = config
    for section in sections:
        node = getattr(node, section)
    setattr(node, field, value)
    return config


SIZES, SOME_SIZES = "a tuple of values at least 1", "a non-empty tuple of values at least 1"


@pytest.mark.parametrize("key, value, rule", [
    ("model.trunk.experts", 0, "at least 1"),
    ("model.trunk.task_experts", 0, "at least 1"),
    ("model.trunk.levels", -1, "at least 1"),
    ("model.trunk.units", (), SOME_SIZES),
    ("model.trunk.units", (8, 0), SOME_SIZES),
    ("model.tower_units", (8, 0), SIZES),
    ("model.head.latent_units", (), SOME_SIZES),
    ("model.head.latent_units", (0,), SOME_SIZES),
    ("model.head.alpha", 0.0, "in (0, 1]"),
    ("model.head.alpha", 1.01, "in (0, 1]"),
    ("model.head.alpha", NAN, "in (0, 1]"),
    ("model.head.alpha_constant", -0.1, "in [0, 1]"),
    ("model.dropout", 1.0, "in [0, 1)"),
    ("model.embedding_l2", -1e-9, "at least 0 and finite"),
    ("model.embedding_l2", math.inf, "at least 0 and finite"),
    ("model.tables", "gpu", "one of ('gather', 'tpu')"),
    ("train.order", "random", "one of ('shuffled', 'days')"),
    ("train.scaling", "square", "one of ('fixed', 'linear')"),
    ("train.input_sharding", "", "one of ('rows', 'shards')"),
    ("train.precision", "float16", "one of ('float32', 'mixed_bfloat16', 'mixed_float16')"),
    ("train.epochs", 0, "at least 1"), ("train.batch_size", 0, "at least 1"),
    ("train.shuffle", 0, "at least 1"),
    ("train.steps_per_execution", 0, "at least 1"),
    ("train.accumulate", 0, "at least 1"),
    ("train.microbatches", 0, "at least 1"),
    ("train.learning_rate", 0.0, "above 0 and finite"),
    ("train.learning_rate", math.inf, "above 0 and finite"),
    ("train.embedding_learning_rate", NAN, "above 0 and finite"),
    ("train.cooldown", 1.5, "in [0, 1]"),
    ("train.clip_norm", -1.0, "at least 0 and finite"),
    ("train.loss_scale", 0.5, "at least 1 and finite"),
    ("train.seed", -1, "in [0, 4294967296)"),
    ("train.seed", 2**32, "in [0, 4294967296)"),
    ("train.bootstrap", -1, "at least 0"),
    ("train.patience", -1, "at least 0"),
    ("train.monitor", "acc",
     "empty, one of ('auc', 'gauc', 'ne', 'mae', 'rank_correlation'), or TASK/ and one of these"),
    ("train.daily.epochs", 0, "at least 1"),
    ("train.daily.rates", 0.0, "above 0 and finite"),
    ("train.daily.cooldown", 2.0, "in [0, 1]"),
    ("model.causal.variant", "production", "one of ('task_arch', 'joint_loss', 'all_features', 'proposed')"),
    ("model.causal.heads", "three", "one of ('joint', 'conditional', 'gated')"),
    ("model.causal.conformity", "", "one of ('logistic', 'norm')"),
    ("model.causal.relevance", "all", "one of ('probability', 'interests')"),
    ("model.causal.thresh_unit", "clicks", "one of ('quantile', 'value')"),
    ("model.causal.thresh", 1.0, "a quantile in (0, 1)"),
    ("model.causal.thresh", NAN, "finite"),
    ("model.causal.units", 0, "at least 1"),
    ("model.causal.blocks", -1, "at least 0"),
    ("model.causal.embedding", 1, "at least 2"),
    ("model.causal.interests", 1, "at least 2"),
    ("model.causal.conformity_weight", -1.0, "at least 0 and finite"),
    ("model.causal.relevance_weight", math.inf, "at least 0 and finite"),
])
def test_a_value_out_of_range(key, value, rule):
    with pytest.raises(UserError) as error:
        check(with_value(key, value))
    assert str(error.value) == f"config.{key} must be {rule}. Received: {value!r}."


@pytest.mark.parametrize("rule, field, value, words", [
    (Decay, "gammas", (0.9, 0.0), "a non-empty tuple of values in (0, 1]"),
    (Decay, "gammas", (), "a non-empty tuple of values in (0, 1]"),
    (Uncertainty, "learning_rate", 0.0, "above 0 and finite"),
    (GradNorm, "alpha", -1.0, "at least 0 and finite"),
    (GradNorm, "learning_rate", math.inf, "above 0 and finite"),
    (MetaBalance, "relax", 1.1, "in [0, 1]"),
    (MetaBalance, "beta", 1.0, "in [0, 1)"),
])
def test_a_value_of_a_step_rule_out_of_range(rule, field, value, words):
    with pytest.raises(UserError) as error:
        check(Config(train=TrainConfig(step_rule=rule(**{field: value}))))
    assert str(error.value) == f"config.train.step_rule.{field} must be {words}. Received: {value!r}."


@pytest.mark.parametrize("key, value, message", [
    ("model.tables", "tpu", "config.model.embedding_l2 must be 0 with model.tables='tpu'. Received: 0.1."),
    ("train.patience", 2, "config.train.monitor must be given if train.patience is. Received: ''."),
    ("model.causal.relevance", "interests", "config.model.causal.interest_feature must be the item feature that names "
     "interests, since config.model.causal.relevance='interests' needs known interests. Received: ''."),
])
def test_values_that_do_not_go_together(key, value, message):
    config = with_value(key, value)
    config.model.embedding_l2 = 0.1
    with pytest.raises(UserError) as error:
        check(config)
    assert str(error.value) == message


def test_no_cooldown_with_tables_of_a_tpu():
    config = with_value("model.tables", "tpu")
    config.train.cooldown = 0.5
    with pytest.raises(UserError, match=r"config.train.cooldown must be 0 with model.tables='tpu'. Received: 0.5."):
        check(config)


@pytest.mark.parametrize("key, value, message", [
    ("model.tower_units", (8.0,), ".tower_units must be a tuple of int. Received: [8.0]."),
    ("model.trunk.units", 8, ".trunk (ple).units must be a tuple of int. Received: 8."),
    ("model.trunk.experts", 2.0, ".trunk (ple).experts must be int. Received: 2.0."),
    ("model.trunk.experts", True, ".trunk (ple).experts must be int. Received: true."),
    ("model.task_weights", ("1",), '.task_weights must be a tuple of float. Received: ["1"].'),
    ("train.learning_rate", "fast", '.learning_rate must be float. Received: "fast".'),
    ("train.seed", None, ".seed must be int. Received: null."),
    ("train.jit", 1, ".jit must be bool. Received: 1."),
    ("model.trunk", "moe", ".trunk must be an object with the key 'kind'. Received: 'moe'."),
    ("model.head", "", ".head must be an object with the key 'kind'. Received: ''."),
    ("model.trunk", DLEN(), ".trunk.kind must be a trunk, one of ['cgc', 'mmoe', 'ple', 'shared_bottom']. Received: "
     "'dlen'."),
    ("model.head", MMOE(), ".head.kind must be a head, one of ['dlen', 'esmm', 'logistic']. Received: 'mmoe'."),
    ("train.step_rule", None, ".step_rule must be an object with the key 'kind'. Received: None."),
])
def test_a_value_of_the_wrong_type(key, value, message):
    with pytest.raises(UserError) as error:
        check(with_value(key, value))
    assert str(error.value).startswith(f"config.{key.partition('.')[0]}{message}")


def test_numbers_that_no_float_can_hold_are_one_message(tmp_path):
    with pytest.raises(UserError, match=r"config\.train\.learning_rate must be float. Received: 1000"):
        load(edited(tmp_path, "train.learning_rate", 10**400))
    check(with_value("train.epochs", 10**400))


def test_the_greatest_seed_is_allowed():
    check(with_value("train.seed", 2**32 - 1))


@pytest.mark.parametrize("values, wanted", [
    ({"model.trunk": "ple"}, lambda c: c.model.trunk == PLE(units=(8,), experts=3, task_experts=2, levels=2)),
    ({"model.trunk": "ple", "model.trunk.levels": 3}, lambda c: c.model.trunk == PLE((8,), 3, 2, 3)),
    ({"model.trunk": MMOE(experts=7)}, lambda c: c.model.trunk == MMOE(experts=7)),
    ({"model.trunk.experts": 4}, lambda c: c.model.trunk == MMOE((8,), 4)),
    ({"model.head": "esmm"}, lambda c: c.model.head == ESMM()),
    ({"model.head": "logistic"}, lambda c: c.model.head == Logistic()),
    ({"model.causal": "none"}, lambda c: c.model.causal is None),
    ({"model.causal": None}, lambda c: c.model.causal is None),
    ({"model.causal.thresh": 0.25}, lambda c: c.model.causal == branches(thresh=0.25)),
    ({"train.step_rule": "pcgrad"}, lambda c: c.train.step_rule == PCGrad()),
    ({"train.step_rule": "uncertainty", "train.step_rule.learning_rate": 0.5},
     lambda c: c.train.step_rule == Uncertainty(0.5)),
    ({"train.daily.epochs": 4, "train.batch_size": 3}, lambda c: (c.train.daily.epochs, c.train.batch_size) == (4, 3)),
])
def test_other_values(values, wanted):
    def made():
        return Config(model=flat(units=(8,), experts=3, head="dlen", causal=branches()))

    config = made()
    assert wanted(config_module.replaced(config, values))
    assert config == made()  # as it was


@pytest.mark.parametrize("key, value, message", [
    ("model.trunk", "moe", "config.model.trunk must be a trunk, one of ['cgc', 'mmoe', 'ple', 'shared_bottom']. "
     "Received: 'moe'."),
    ("model.trunk", "none", "config.model.trunk must be an object with the key 'kind'. Received: None."),
    ("model.trunk", 3, "config.model.trunk must be a trunk, one of ['cgc', 'mmoe', 'ple', 'shared_bottom']. "
     "Received: 3."),
    ("model.trunk.levels", 2, "config.model.trunk (mmoe) has no key ['levels']. Known: ['experts', 'units']."),
    ("model.causal.thresh", 0.5, "config.model.causal must name a causal before its values are set. Received: none."),
    ("model.trunks.experts", 2, "config.model has no section 'trunks'. Known: ["),
    ("train.epochs.first", 2, "config.train has no section 'epochs'. Known: ["),
    ("model.trunk.experts.first", 2, "config.model.trunk has no section 'experts'. Known: ['experts', 'units']."),
    ("model", 2, "config.model must be an object. Received: 2."),
    ("name", {(1, 2): 3}, "config.name must be str. Received: {"),
])
def test_other_values_that_cannot_be(key, value, message):
    with pytest.raises(UserError) as error:
        config_module.replaced(Config(), {key: value})
    assert str(error.value).startswith(message)
