"""Configurations: stored, read again, checked, and overridden from the command line."""

import json
import math

import pytest

from dlen_cam2.config import Config, TrainConfig, check, load, save
from dlen_cam2.configs import kuairand_mmoe
from dlen_cam2.utils.errors import UserError
from tests.support.builders import command, flat, tiny_config

OTHER = Config(
    "other",
    flat(
        trunk="ple", experts=4, task_experts=3, levels=3, units=(8,), tower_units=(), head="dlen", alpha=0.1,
        alpha_constant=0.01, latent_units=(4, 2), dropout=0.5, embedding_l2=1e-5, tasks=("click", "like"),
        task_weights=(1.0, 0.25), features=("a", "b"), without=("b",),
    ),
    TrainConfig(
        order="days", epochs=2, batch_size=64, shuffle=10, seed=3, embedding_learning_rate=0.1, learning_rate=1e-4,
        bootstrap=0,
    ),
)


@pytest.mark.parametrize("config", [Config(), OTHER, tiny_config(), kuairand_mmoe.get_config()])
def test_save_and_load(config, tmp_path):
    check(config)
    save(config, tmp_path / "config.json")
    assert load(tmp_path / "config.json") == config


def test_configs_share_nothing():
    Config().model.experts = 99
    assert Config().model.experts == 5 and tiny_config().model.experts == 3


def edited(tmp_path, section, key, value):
    """The path of a stored configuration with one value replaced."""
    path = tmp_path / "config.json"
    save(Config(), path)
    content = json.loads(path.read_text())
    (content[section] if section else content)[key] = value
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("section, key, value, message", [
    ("model", "expert", 5, r"config\.model has no key \['expert'\]. Known: \[.*'experts'"),
    ("", "models", {}, r"config has no key \['models'\]"),
    ("", "model", [], r"config\.model must be an object. Received: \[\]"),
    ("", "name", 3, r"config\.name must be str. Received: 3"),
    ("model", "experts", 5.0, r"config\.model\.experts must be int. Received: 5\.0"),
    ("model", "experts", True, r"config\.model\.experts must be int. Received: true"),
    ("model", "experts", None, r"config\.model\.experts must be int. Received: null"),
    ("model", "alpha", "0.3", r'config\.model\.alpha must be float. Received: "0\.3"'),
    ("model", "units", 64, r"config\.model\.expert_units must be a tuple of int. Received: 64"),
    (
        "model", "units", [64, "32"],
        r'config\.model\.expert_units must be a tuple of int. Received: \[64, "32"\]',
    ),
    ("model", "experts", 0, r"config\.model\.experts must be at least 1. Received: 0"),
])
def test_a_stored_configuration_that_cannot_be_read(tmp_path, section, key, value, message):
    path = edited(tmp_path, section, key, value)
    with pytest.raises(UserError, match=message) as error:
        load(path)
    if value != 0:
        assert str(path) in str(error.value)


def test_an_integer_is_a_float_too(tmp_path):
    assert load(edited(tmp_path, "model", "alpha", 1)).model.alpha == 1.0


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_file_that_is_no_configuration(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json.*Received"):
        load(tmp_path / "config.json")


NAN = float("nan")


@pytest.mark.parametrize("key, value, rule", [
    ("model.trunk", "moe", "one of"),
    ("model.head", "", "one of"),
    ("model.experts", 0, "at least 1"),
    ("model.task_experts", 0, "at least 1"),
    ("model.levels", -1, "at least 1"),
    ("model.expert_units", (), "a tuple of sizes"),
    ("model.expert_units", (8, 0), "a tuple of sizes"),
    ("model.tower_units", (8, 0), "a tuple of sizes"),
    ("model.latent_units", (), "a tuple of sizes"),
    ("model.alpha", 0.0, "in (0, 1]"),
    ("model.alpha", 1.01, "in (0, 1]"),
    ("model.alpha", NAN, "in (0, 1]"),
    ("model.alpha_constant", -0.1, "in [0, 1]"),
    ("model.dropout", 1.0, "in [0, 1)"),
    ("model.embedding_l2", -1e-9, "finite and at least 0"),
    ("model.embedding_l2", math.inf, "finite and at least 0"),
    ("train.order", "random", "'shuffled' or 'days'"),
    ("train.epochs", 0, "at least 1"),
    ("train.batch_size", 0, "at least 1"),
    ("train.shuffle", 0, "at least 1"),
    ("train.learning_rate", 0.0, "above 0 and finite"),
    ("train.learning_rate", math.inf, "above 0 and finite"),
    ("train.embedding_learning_rate", NAN, "above 0 and finite"),
    ("train.cooldown", 1.5, "from 0 to 1"),
    ("train.seed", -1, "in [0, 2**32)"),
    ("train.seed", 2**32, "in [0, 2**32)"),
    ("train.bootstrap", -1, "at least 0"),
])
def test_a_value_out_of_range(key, value, rule):
    config = Config()
    section, field = key.split(".")
    setattr(getattr(config, section), field, value)
    with pytest.raises(UserError) as error:
        check(config)
    assert str(error.value).startswith(f"config.{key} must be {rule}")
    assert str(error.value).endswith(f"Received: {value!r}.")


@pytest.mark.parametrize("key, value, message", [
    ("model.tower_units", (8.0,), "a tuple of int. Received: [8.0]."),
    ("model.expert_units", 8, "a tuple of int. Received: 8."),
    ("model.experts", 2.0, "int. Received: 2.0."),
    ("model.experts", True, "int. Received: true."),
    ("model.task_weights", ("1",), 'a tuple of float. Received: ["1"].'),
    ("train.learning_rate", "fast", 'float. Received: "fast".'),
    ("train.seed", None, "int. Received: null."),
])
def test_a_value_of_the_wrong_type(key, value, message):
    config = Config()
    section, field = key.split(".")
    setattr(getattr(config, section), field, value)
    with pytest.raises(UserError) as error:
        check(config)
    assert str(error.value) == f"config.{key} must be {message}"


def test_the_greatest_seed_is_allowed():
    config = Config()
    config.train.seed = 2**32 - 1
    check(config)


@pytest.mark.parametrize("override, words", [
    ("--config.model.nonsense=1", "nonsense"),
    ("--config.model.trunk.experts=many", "many"),
])
def test_a_wrong_override_is_one_message(tmp_path, override, words):
    done = command(
        "dlen_cam2.cli.train", "--config=dlen_cam2/configs/kuairand_mmoe.py", override, f"--data_dir={tmp_path}",
        f"--model_dir={tmp_path}/model", "--train_days=1", "--eval_days=2",
    )
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and words in errors[0]
    assert "Traceback" not in done.stderr + done.stdout
    assert not (tmp_path / "model").exists()
