"""Experiment files, and what a command line changes of them."""

import sys

import pytest

from dlen_cam2 import config as config_module
from dlen_cam2 import config_file, parts
from dlen_cam2.config import Config, TrainConfig
from dlen_cam2.configs.own import mmoe as own_mmoe
from dlen_cam2.models import CGC, MMOE, PLE
from dlen_cam2.training import runs, train_request
from dlen_cam2.training.balancing import Fixed, MetaBalance
from dlen_cam2.utils.errors import UserError
from tests.support.builders import branches, command, flat, tiny_config

FILE = """
from dlen_cam2.config import Config, ModelConfig
from dlen_cam2.models import CAM2, MMOE

def get_config():
    return Config("file", ModelConfig(trunk=MMOE(units=(8,), experts=3), causal=CAM2(thresh=0.8)))
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "experiment.py"
    path.write_text(FILE)
    return path


@pytest.fixture
def trained(file, monkeypatch):
    """A function of the command line's flags: the configuration that `train` would train, of `file` by default."""
    found = []
    monkeypatch.setattr(train_request, "once", lambda config, *rest, **options: found.append(config))
    monkeypatch.setattr(runs, "train", lambda wanted, place: {})

    def call(*flags):
        done = command(
            "dlen_cam2.cli.train", f"--config={file}", *flags, "--data_dir=d", "--model_dir=m", "--train_days=1",
            "--eval_days=2",
        )
        assert done.returncode == 0, done.stderr
        return found.pop()

    return call


def test_the_file_alone(trained):
    config = trained()
    assert config.name == "file" and config.model.trunk == MMOE((8,), 3) and config.model.causal == branches(thresh=0.8)


def test_an_installed_experiment_goes_by_its_name(trained, tmp_path, monkeypatch):
    """From any directory, and changed as a file is. The name is no file's, even where a directory has it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own" / "mmoe").mkdir(parents=True)
    assert trained("--config=own/mmoe") == own_mmoe.get_config()
    assert trained("--config=quickstart_mmoe", "--config.train.epochs=1").train.epochs == 1


def test_every_installed_experiment_has_a_name():
    names = config_file.installed()
    assert {"own/mmoe", "own/ple", "quickstart_mmoe", "kuairand_cam2"} <= set(names)
    assert not {"spaces", "kuairand", "__init__", "own/__init__"} & set(names)
    for path in names.values():
        config_module.check(config_file.read(path))


@pytest.mark.parametrize("name", [
    "quickstart", "own", "spaces", "../configs/own/mmoe", "own/../own/mmoe", "dlen_cam2.configs.own.mmoe", "os", "",
    "/etc/passwd",
])
def test_an_unknown_name_is_one_message(tmp_path, monkeypatch, name):
    """Only the names themselves are known; nothing is imported or read by what was typed."""
    monkeypatch.chdir(tmp_path)
    done = command("dlen_cam2.cli.train", f"--config={name}", "--data_dir=d", "--model_dir=m", "--train_days=1",
                   "--eval_days=2")
    assert done.returncode == 2 and done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr
    assert f"or the name of an installed experiment. Received: {name!r}. Known: aliccp_mmoe, " in done.stderr


def test_a_trunk_and_then_its_levels(trained):
    """What the file says of experts stays; what MMOE does not have is PLE's default."""
    found = trained("--config.model.trunk=ple", "--config.model.trunk.levels=3")
    assert found.model.trunk == PLE(units=(8,), experts=3, task_experts=2, levels=3)
    assert found.model.causal == branches(thresh=0.8)


@pytest.mark.parametrize("overrides, wanted", [
    (["--config.model.causal=none"], lambda c: c.model.causal is None),
    (["--config.model.causal=None"], lambda c: c.model.causal is None),
    (["--config.model.causal=none", "--config.model.causal=cam2", "--config.model.causal.units=5"],
     lambda c: c.model.causal == branches(units=5)),
    (["--config.model.causal.variant=task_arch"], lambda c: c.model.causal == branches("task_arch", thresh=0.8)),
    (["--config.model.trunk.experts=7", "--config.model.trunk=cgc"], lambda c: c.model.trunk == CGC((8,), 7)),
    (["--config.model.trunk.units=(64, 32)"], lambda c: c.model.trunk == MMOE((64, 32), 3)),
    (["--config.model.trunk.units=[64,32]"], lambda c: c.model.trunk == MMOE((64, 32), 3)),
    (["--config.model.trunk.units", "(4,)"], lambda c: c.model.trunk == MMOE((4,), 3)),
    (["-config.train.jit=true"], lambda c: c.train.jit is True),
    (["--config.model.tasks=('click',)", "--config.train.monitor=click/ne"],
     lambda c: (c.model.tasks, c.train.monitor) == (("click",), "click/ne")),
    (["--config.model.tasks=click"], lambda c: c.model.tasks == ("click",)),
    (["--config.train.step_rule=metabalance", "--config.train.step_rule.main=like"],
     lambda c: c.train.step_rule == MetaBalance(main="like")),
    (["--config.train.step_rule=pcgrad", "--config.train.step_rule=fixed"], lambda c: c.train.step_rule == Fixed()),
])
def test_what_a_command_line_changes(trained, overrides, wanted):
    config = trained(*overrides)
    assert wanted(config), config


TRUNKS = "config.model.trunk must be a trunk, one of ['cgc', 'mmoe', 'ple', 'shared_bottom']. Received: "


@pytest.mark.parametrize("override, message", [
    ("--config.model.nonsense=1", "config.model has no key ['nonsense']. Known: ["),
    ("--config.nonsense=1", "config has no key ['nonsense']. Known: ['model', 'name', 'train']."),
    ("--config.nonsense.x=1", "config has no section 'nonsense'. Known: ['model', 'name', 'train']."),
    ("--config.model..x=1", "config.model has no section ''. Known: ["),
    ("--config.model.trunk.experts=many", 'config.model.trunk (mmoe).experts must be int. Received: "many".'),
    ("--config.model.trunk.experts=0", "config.model.trunk.experts must be at least 1. Received: 0."),
    ("--config.model.trunk.experts={[]: 1}", 'config.model.trunk (mmoe).experts must be int. Received: "{[]: 1}".'),
    ("--config.model.trunk.experts={(1, 2): 3}", "config.model.trunk (mmoe).experts must be int. Received: {}."),
    ("--config.model.trunk.levels=2", "config.model.trunk (mmoe) has no key ['levels']. Known: ['experts', 'units']."),
    ("--config.model.trunk.kind=os.path", "config.model.trunk.kind must be a trunk, one of ['cgc', "),
    ("--config.model.trunk=moe", f"{TRUNKS}'moe'."),
    ("--config.model.trunk=../x", f"{TRUNKS}'../x'."),
    ("--config.model.trunk=/etc/passwd", f"{TRUNKS}'/etc/passwd'."),
    ("--config.model.trunk=antigravity", f"{TRUNKS}'antigravity'."),
    ("--config.model.trunk=os.path", f"{TRUNKS}'os.path'."),
    ("--config.model.trunk=dlen_cam2.models.trunks.mmoe", f"{TRUNKS}'dlen_cam2.models.trunks.mmoe'."),
    ("--config.model.trunk={'kind': 'mmoe', 'levels': 2}", f"{TRUNKS}{{'kind': 'mmoe', 'levels': 2}}."),
    ("--config.model.trunk=none", "config.model.trunk must be an object with the key 'kind'. Received: None."),
    ("--config.model.transfer.x=1", "config.model.transfer must name a transfer before its values are set. Received: "
     "none."),
    ("--config.train.step_rule=dlen_cam2.training.balancing", "config.train.step_rule must be a step_rule, one of ["),
    ("--config.train.learning_rate=nan", 'config.train.learning_rate must be float. Received: "nan".'),
    ("--config.train.learning_rate=1e400", "config.train.learning_rate must be above 0 and finite. Received: inf."),
    ("--config.model.trunk.experts", "--config.model.trunk.experts needs a value. Received: none."),
])
def test_a_wrong_override_is_one_message(file, tmp_path, override, message):
    flags = [f"--data_dir={tmp_path}", f"--model_dir={tmp_path}/model", "--train_days=1", "--eval_days=2"]
    for kind in ("trunk", "head", "causal", "encoder", "transfer", "label", "step_rule"):
        parts.classes(kind)
    command("dlen_cam2.cli.train", f"--config={file}", *flags)
    before = set(sys.modules)
    done = command("dlen_cam2.cli.train", f"--config={file}", *flags, override)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and errors[0].startswith(f"error: {message}"), done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not (tmp_path / "model").exists()
    assert set(sys.modules) == before


@pytest.mark.parametrize("text, message", [
    ("", "cannot be used. Received: AttributeError"),
    ("import nonsense_of_ours", "cannot be used. Received: ModuleNotFoundError"),
    ("def get_config():\n    return 3", "experiment.py, whose get_config() returns an object of type int."),
    ("from dlen_cam2.models import MMOE\n\ndef get_config():\n    return MMOE(levels=2)",
     "cannot be used. Received: TypeError: "),
    ("from dlen_cam2 import parts\n\ndef get_config():\n    return parts.make('trunk', 'moe')", TRUNKS[18:]),
    ("from dlen_cam2.config import Config\n\ndef get_config():\n    config = Config()\n"
     "    config.model.trunk.experts = 0\n    return config", "config.model.trunk.experts must be at least 1"),
])
def test_a_wrong_file_is_one_message(tmp_path, text, message):
    path = tmp_path / "experiment.py"
    path.write_text(text)
    for named in (path, tmp_path / "nothing.py", tmp_path):
        done = command("dlen_cam2.cli.train", f"--config={named}", f"--data_dir={tmp_path}",
                       f"--model_dir={tmp_path}/model", "--train_days=1", "--eval_days=2")
        assert done.returncode == 2 and done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr
        assert (message if named == path else f"Received: '{named}'. Known: aliccp_mmoe, ") in done.stderr


@pytest.mark.parametrize("config", [
    Config(), tiny_config(head="dlen"),
    Config('a "name" of\\ours', flat("ple", "esmm", branches(without=("a",)), units=(8,), tasks=("click",)),
           TrainConfig(step_rule=MetaBalance(main="like", beta=0.5), learning_rate=1e-5)),
])
def test_a_file_that_was_written_gives_the_configuration(config, tmp_path):
    path = tmp_path / "experiment.py"
    path.write_text(config_file.source(config, 'What "it" is \\ ends in """.'))
    assert config_file.read(str(path)) == config
    config_module.check(config_file.read(str(path)))


OWN = """
import dataclasses
import beside
from dlen_cam2.config import Config, ModelConfig
from dlen_cam2.models.parts import Trunk
from dlen_cam2.parts import trunk

@trunk("of_the_file")
@dataclasses.dataclass
class OfTheFile(Trunk):
    pass

def get_config():
    return Config(beside.NAME, ModelConfig(trunk=OfTheFile()))
"""


@pytest.mark.parametrize("processes", [False, True])
def test_a_part_in_the_file_is_for_one_process(tmp_path, monkeypatch, processes):
    """The file may import what lies beside it; other processes could not import the file."""
    monkeypatch.setattr(parts, "_CLASSES", {kind: dict(known) for kind, known in parts._CLASSES.items()})
    (tmp_path / "beside.py").write_text("NAME = 'beside'")
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.setattr(sys, "argv", ["train", f"--config={tmp_path / 'own.py'}"])
    config_file.define("A file.")
    try:
        config_file.flags.FLAGS(sys.argv)
        if processes:
            with pytest.raises(UserError, match=r"defined in a module that the file imports.*\['of_the_file'\]"):
                config_file.get(processes=True)
        else:
            assert config_file.get().model.trunk.name == "of_the_file"
    finally:
        delattr(config_file.flags.FLAGS, "config")
    assert str(tmp_path) not in sys.path
