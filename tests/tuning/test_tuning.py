"""Search for hyperparameters: spaces, keras-tuner's three ways to choose, resumption, failures, files."""

import dataclasses
import json
import multiprocessing
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import threading
import time

import keras_tuner
import pytest
from tensorboard import context
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

from dlen_cam2 import tuning
from dlen_cam2.config import MONITORS, Cam2Config, Config, ModelConfig, TrainConfig, larger_is_better, replaced
from dlen_cam2.configs import kuairand_cam2, kuairand_ple_dlen, spaces
from dlen_cam2.tuning import config_file, tuner
from dlen_cam2.tuning.result import CONFIGURED
from dlen_cam2.tuning.trial_process import TrialProcess, means
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import locked
from pipelines import simulate

ROOT = pathlib.Path(__file__).parents[2]
DAYS, DAY = "20240101..20240102", "20240103"
CONFIG = Config("small", ModelConfig(expert_units=(4,)), TrainConfig(epochs=9, learning_rate=1e-3))


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    directory = tmp_path_factory.mktemp("log") / "data"
    simulate.write(simulate.World(rows=300, seed=1, days=3), str(directory))
    return directory


class Stub:
    """In place of a process that trains: NE is least at a learning rate of .003, and every call is counted.

    `calls` has the configurations; `trouble(number of the call)` may raise, or give a reason to fail.
    """

    calls: list[Config] = []
    trouble = staticmethod(lambda number: "")

    def __init__(self, threads):
        assert threads >= 1
        self.ended = False

    def end(self):
        self.ended = True

    def train(self, config, data_dir, directory, train_days, validation_days):
        if self.ended:
            raise SystemExit
        Stub.calls.append(config)
        if reason := Stub.trouble(len(Stub.calls)):
            return {}, reason
        assert (train_days, validation_days, config.train.bootstrap) == (DAYS, DAY, 0)
        distance = abs(config.train.learning_rate / 0.003 - 1) + 0.01 / config.train.epochs
        return {"ne": distance, "auc": distance, "click/ne": distance / 2}, ""


@pytest.fixture(autouse=True)
def stub(monkeypatch):
    """A search of this process trains with `Stub`."""
    Stub.calls, Stub.trouble = [], staticmethod(lambda number: "")
    monkeypatch.setattr(tuner, "TrialProcess", Stub)
    monkeypatch.setattr(tuner, "_PAUSE", 0.001)


def rate(hp):
    return {"train.learning_rate": hp.Float("train.learning_rate", 1e-4, 1e-1, sampling="log")}


def find(log, output, space=rate, config=CONFIG, objective="ne", tuner="random", trials=4, seed=0, **options):
    return tuning.search(config, space, log, DAYS, DAY, objective, tuner, trials, seed, output, **options)


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
    assert keys(spaces.fitting(Config(model=ModelConfig(trunk="shared_bottom")))) == common
    assert keys(spaces.fitting(Config())) == common | {"model.experts"}
    experts = {"model.experts", "model.task_experts"}
    assert keys(spaces.fitting(Config(model=ModelConfig(trunk="cgc")))) == common | experts
    assert keys(spaces.fitting(kuairand_ple_dlen.get_config())) == common | experts | {
        "model.levels", "model.alpha", "model.latent_units"}
    assert "model.cam2.thresh" in keys(spaces.fitting(kuairand_cam2.get_config()))
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
    before = Config(model=ModelConfig(cam2=Cam2Config(blocks=3)))
    after = replaced(before, {"model.cam2.thresh": 0.9, "model.tower_units": (8, 4), "train.learning_rate": 1})
    assert (after.model.cam2.thresh, after.model.cam2.blocks, after.model.tower_units) == (0.9, 3, (8, 4))
    assert after.train.learning_rate == 1.0 and before == Config(model=ModelConfig(cam2=Cam2Config(blocks=3)))


# === Searches ===

@pytest.mark.parametrize("tuner, trials, processes", [
    ("random", 4, 1), ("random", 4, 3), ("bayesian", 3, 2), ("hyperband", 13, 1), ("hyperband", 14, 3),
])
def test_every_tuner(log, tmp_path, tuner, trials, processes):
    found = find(log, tmp_path / "out", tuner=tuner, trials=trials, processes=processes)
    assert len(found.trials) == len(Stub.calls) == trials + 1 and found.trials[0].name == CONFIGURED
    assert found.value == min(trial.metrics["ne"] for trial in found.trials) == found.best.metrics["ne"]
    assert found.config == replaced(CONFIG, found.best.values)
    rates = [trial.values["train.learning_rate"] for trial in found.trials]
    epochs = [trial.epochs for trial in found.trials]
    assert epochs == [call.train.epochs for call in Stub.calls] or processes > 1
    if tuner != "hyperband":
        assert len(set(rates)) == trials + 1 and set(epochs) == {9}
    elif processes == 1:
        # Three of nine trials of one pass are promoted to three passes, and the best of these to nine.
        assert epochs[1:] == [1] * 9 + [3] * 3 + [9]
        nine = sorted(rates[1:10], key=lambda rate: abs(rate / 0.003 - 1))
        assert set(rates[10:13]) == set(nine[:3]) and rates[13] == nine[0]


def test_bayes_follows_what_it_saw(log, tmp_path):
    """Three random trials, then where the least NE is to be expected: below the best of these."""
    found = find(log, tmp_path / "bayes", tuner="bayesian", trials=5)
    drawn = find(log, tmp_path / "random", trials=3)
    assert [trial.values for trial in found.trials[:4]] == [trial.values for trial in drawn.trials]
    assert found.value < drawn.value


@pytest.mark.parametrize("objective, larger", [("ne", False), ("auc", True), ("gauc", True), ("click/ne", False)])
def test_the_direction_follows_the_metric(objective, larger):
    assert larger_is_better(objective) is larger and set(MONITORS) == {"ne", "auc", "gauc"}


def test_the_best_is_the_greatest_auc_and_the_least_ne(log, tmp_path):
    auc = find(log, tmp_path / "auc", objective="auc")
    assert auc.value == max(trial.metrics["auc"] for trial in auc.trials) > min(t.metrics["auc"] for t in auc.trials)
    task = find(log, tmp_path / "task", objective="click/ne")
    assert task.value == min(trial.metrics["click/ne"] for trial in task.trials)


def test_a_seed_gives_the_same_choices_and_another_does_not(log, tmp_path):
    seeds = {"a": 0, "b": 0, "c": 1}
    a, b, c = ([t.values for t in find(log, tmp_path / name, seed=seed).trials] for name, seed in seeds.items())
    assert a == b and a[1:] != c[1:]


def test_a_space_may_have_fewer_choices_than_trials(log, tmp_path):
    found = find(log, tmp_path / "out", space=lambda hp: {"model.levels": hp.Choice("model.levels", [1, 2])}, trials=9)
    assert sorted(trial.values["model.levels"] for trial in found.trials[1:]) == [1, 2]
    assert "2 of 9 choices" in tuning.page.page(found, "")


def test_the_configuration_as_given_wins_if_nothing_is_better(log, tmp_path):
    config = replaced(CONFIG, {"train.learning_rate": 0.003, "train.bootstrap": 7})
    found = find(log, tmp_path / "out", config=config)
    assert found.best.name == CONFIGURED and found.config == config
    assert found.best.values == {"train.learning_rate": 0.003}


def test_means_over_days_and_tasks():
    day = {"click": {"auc": 0.5, "gauc": None, "ne": 1.0}, "like": {"auc": 0.7, "gauc": 0.6, "ne": 0.8}}
    other = {"click": {"auc": 0.6, "gauc": None, "ne": 0.9}, "like": {"auc": None, "gauc": None, "ne": None}}
    found = means({"a": day | {"user_favor": {"auc": 0.9}}, "b": other})
    assert found == pytest.approx({
        "auc": 0.6, "gauc": 0.6, "ne": 0.9, "click/auc": 0.55, "click/ne": 0.95, "like/auc": 0.7, "like/gauc": 0.6,
        "like/ne": 0.8,
    })


# === Stopped, failed, refused ===

class Killed(BaseException):
    pass


@pytest.mark.parametrize("tuner, trials", [("random", 5), ("hyperband", 13), ("bayesian", 4)])
def test_a_stopped_search_goes_on(log, tmp_path, tuner, trials):
    whole = find(log, tmp_path / "whole", tuner=tuner, trials=trials)
    Stub.calls = []

    def kill(number):
        if number == 4:
            raise Killed

    Stub.trouble = staticmethod(kill)
    with pytest.raises(Killed):
        find(log, tmp_path / "out", tuner=tuner, trials=trials)
    assert len(list((tmp_path / "out/trials").glob("*/result.json"))) == 3
    found = find(log, tmp_path / "out", tuner=tuner, trials=trials, processes=2)
    assert len(Stub.calls) == trials + 1 + 1  # the one that was killed is trained again, no other is
    assert Stub.calls[3] == Stub.calls[4]
    names = [trial.name for trial in whole.trials]
    assert [trial.name for trial in found.trials] == names
    if tuner == "random":
        assert [t.values for t in found.trials] == [t.values for t in whole.trials]
    again = find(log, tmp_path / "out", tuner=tuner, trials=trials)
    assert again == found and len(Stub.calls) == trials + 2


def test_a_kill_between_two_files_of_the_state(log, tmp_path):
    """The trial is on disk, and the oracle's file does not know of it yet."""
    Stub.trouble = staticmethod(lambda number: (_ for _ in ()).throw(Killed()) if number == 3 else "")
    with pytest.raises(Killed):
        find(log, tmp_path / "out")
    state = tmp_path / "out/trials/oracle.json"
    content = json.loads(state.read_text())
    assert content["ongoing_trials"] == {"process0": "1"}
    content["ongoing_trials"], content["start_order"] = {}, ["0"]
    state.write_text(json.dumps(content))
    found = find(log, tmp_path / "out")
    assert [trial.name for trial in found.trials] == [CONFIGURED, "0", "1", "2", "3"]


def test_a_failed_trial_is_recorded_and_the_search_goes_on(log, tmp_path, capsys):
    Stub.trouble = staticmethod(lambda number: "step 3: the loss of ['click'] is | not finite" if number > 2 else "")
    found = find(log, tmp_path / "out", trials=6)
    assert [bool(trial.reason) for trial in found.trials] == [False, False] + [True] * 5
    said = capsys.readouterr()
    assert "failed: step 3" in said.out and "Traceback" not in said.out + said.err
    tuning.write(found, tmp_path / "out", "the command")
    page = (tmp_path / "out/tune.md").read_text()
    assert "5 failed." in page and page.count("['click'] is \\| not finite |") == 5 and "6 of 6 choices" in page


def test_a_choice_that_breaks_a_rule_is_a_failed_trial(log, tmp_path):
    def wide(hp):
        return {"model.dropout": hp.Float("model.dropout", -1.0, 1.0, default=0.0)}

    found = find(log, tmp_path / "out", space=wide, trials=6)
    wrong = [trial for trial in found.trials if trial.values["model.dropout"] < 0]
    assert 0 < len(wrong) < 6
    for trial in found.trials:
        assert trial.reason.startswith("config.model.dropout must be in [0, 1)") == (trial in wrong)


def test_if_all_fail_that_is_an_error(log, tmp_path):
    Stub.trouble = staticmethod(lambda number: "out of memory")
    with pytest.raises(UserError, match=r"all 5 trials failed; .*Received: out of memory$"):
        find(log, tmp_path / "out")
    assert len(Stub.calls) == 5


def test_what_is_no_trials_fault_ends_the_search(log, tmp_path):
    """keras-tuner by itself would go on, and the trial be missing from the page."""
    def full(number):
        if number == 3:
            raise OSError("No space left on device")
        return ""

    Stub.trouble = staticmethod(full)
    with pytest.raises(OSError, match="No space left"):
        find(log, tmp_path / "out", processes=2)
    assert len(find(log, tmp_path / "out").trials) == 5


def test_an_undefined_objective_is_a_reason(log, tmp_path):
    with pytest.raises(UserError, match="gauc is undefined on the validation days"):
        find(log, tmp_path / "out", objective="gauc", trials=1)


def test_another_search_needs_restart(log, tmp_path):
    find(log, tmp_path / "out")
    with pytest.raises(UserError, match=r"another search.*pass --restart.*Received: different \['seed', 'trials'\]"):
        find(log, tmp_path / "out", trials=2, seed=1)
    with pytest.raises(UserError, match=r"Received: different \['space'\]"):
        find(log, tmp_path / "out", space=lambda hp: {"train.learning_rate": hp.Float("train.learning_rate", 0.1, 0.2)})
    assert len(find(log, tmp_path / "out", trials=2, seed=1, restart=True).trials) == 3


def test_a_directory_that_is_not_ours_or_in_use_is_left_alone(log, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/thesis.txt").write_text("years of work")
    for restart in (False, True):
        with pytest.raises(UserError, match="not empty and was not written by this command"):
            find(log, tmp_path / "thesis", restart=restart)
    find(log, tmp_path / "out")
    with locked(tmp_path / "out/lock", "a test"), pytest.raises(UserError, match="in use: another process searches"):
        find(log, tmp_path / "out")


@pytest.mark.parametrize("options, message", [
    ({"objective": "loss"}, r"objective must be one of \('auc', 'gauc', 'ne'\), or TASK/.* Received: 'loss'"),
    ({"objective": "clack/ne"}, r"must name a task of the model. Received: 'clack'"),
    ({"tuner": "grid"}, r"tuner must be one of \('random', 'hyperband', 'bayesian'\). Received: 'grid'"),
    ({"trials": 0}, "trials must be at least 1. Received: 0"),
    ({"processes": 0}, "processes must be at least 1. Received: 0"),
    ({"space": lambda hp: {"train.learning_rate": 0.1}}, "at least one value by `hp`. Received: none"),
    ({"config": Config(train=TrainConfig(monitor="ne"))}, "config.train.monitor must be empty"),
])
def test_a_search_that_cannot_be(log, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        find(log, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_no_day_is_both_trained_and_validated_on(log, tmp_path):
    with pytest.raises(UserError, match=r"not both\. Received in both: \['20240102'\]"):
        tuning.search(CONFIG, rate, log, DAYS, "20240102", "ne", "random", 1, 0, tmp_path / "out")


# === Files ===

def test_the_files_of_a_search(log, tmp_path):
    def space(hp):
        return rate(hp) | {
            "train.batch_size": hp.Choice("train.batch_size", [256, 512]), "model.head": "dlen",
            "model.tower_units": spaces.sizes(hp, "model.tower_units", ["", "8 4"]),
        }

    found = find(log, tmp_path / "out", space=space, trials=5, config=replaced(CONFIG, {"train.learning_rate": 1.0}))
    command = 'python -m dlen_cam2 tune --x="a\\n" --y="""'
    tuning.write(found, tmp_path / "out", command)
    page = (tmp_path / "out/tune.md").read_text()
    assert command in page and f"ne {found.value:.5f} of trial {found.best.name}" in page
    assert "5 of 5 choices" in page and "54 passes" in page and "8 4" in page and "search.png" in page
    first = next(line for line in page.splitlines() if line.startswith(f"| {found.best.name} |"))
    assert page.index(first) < min(page.index(f"| {t.name} |") for t in found.trials if t is not found.best)
    assert (tmp_path / "out/search.png").read_bytes()[:4] == b"\x89PNG"

    module = runpy.run_path(tmp_path / "out/best.py")
    assert module["get_config"]() == found.config and found.config.model.head == "dlen"
    assert command in module["__doc__"] and f"{found.value:.5f}" in module["__doc__"]


def test_any_configuration_is_a_file():
    config = kuairand_cam2.get_config()
    config.train.balance.decay = (0.5, 0.25)
    config.name = 'a "name"\\'
    names: dict = {}
    exec(compile(config_file.source(config, "Found."), "best.py", "exec"), names)
    assert names["get_config"]() == config and names["__doc__"] == "Found.\n"
    exec(compile(config_file.source(Config(), ""), "best.py", "exec"), names)
    assert names["get_config"]() == Config()


def test_tensorboard_shows_a_run_a_trial(log, tmp_path):
    """Read as TensorBoard's page HPARAMS reads it."""
    Stub.trouble = staticmethod(lambda number: "diverged" if number == 2 else "")
    found = find(log, tmp_path / "out", trials=2)
    runs = plugin_event_multiplexer.EventMultiplexer()
    runs.AddRunsFromDirectory(str(tmp_path / "out/tensorboard"))
    runs.Reload()
    provider = data_provider.MultiplexerDataProvider(runs, "")
    page = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    wanted = api_pb2.ListSessionGroupsRequest(slice_size=100, allowed_statuses=api_pb2.Status.values())
    shown = list_session_groups.Handler(context.RequestContext(), page, "", wanted).run().session_groups
    assert {group.name for group in shown} == {trial.name for trial in found.trials}
    for group in shown:
        trial = next(t for t in found.trials if t.name == group.name)
        assert group.hparams["train.learning_rate"].number_value == trial.values["train.learning_rate"]
        metrics = {metric.name.tag: metric.value for metric in group.metric_values}
        assert metrics == pytest.approx(trial.metrics) and bool(metrics) != (trial.name == "0")


# === Real processes ===

def when_it_runs(act):
    """Call `act(process)` as soon as this process has started another."""
    def wait():
        while not (children := multiprocessing.active_children()):
            time.sleep(0.01)
        act(children[0])

    threading.Thread(target=wait).start()


def test_a_process_that_is_killed_costs_its_trial(tmp_path):
    process = TrialProcess(1)
    when_it_runs(lambda child: os.kill(child.pid, signal.SIGKILL))
    metrics, reason = process.train(CONFIG, "nowhere", tmp_path, DAYS, DAY)
    assert metrics == {} and reason.startswith("its process ended with status -9")


def test_a_process_that_is_ended_says_nothing_of_its_trial(tmp_path):
    """Such as by Ctrl-C: the trial has not failed, and is trained when the search goes on."""
    process = TrialProcess(1)
    when_it_runs(lambda child: process.end())
    with pytest.raises(SystemExit):
        process.train(CONFIG, "nowhere", tmp_path, DAYS, DAY)


SPACE = '''
from dlen_cam2.config import Config, ModelConfig, TrainConfig

def get_config():
    sizes = {"expert_units": (4,), "tower_units": (), "tasks": ("click",), "features": ("user_id",)}
    return Config("own", ModelConfig(trunk="shared_bottom", **sizes), TrainConfig(batch_size=64))

def space(hp):
    return {"model.embedding_l2": hp.Float("model.embedding_l2", 1e37, 1e38)}
'''


def test_the_command_goes_on_after_a_kill(log, tmp_path):
    """As a user runs it: killed with its first trial under way, and started again; its other trial diverges."""
    (tmp_path / "own.py").write_text(SPACE)
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "dlen_cam2", "tune", f"--config={tmp_path / 'own.py'}", f"--data_dir={log}",
        f"--train_days={DAYS}", f"--validation_days={DAY}", f"--output={out}", "--trials=1", "--config.train.seed=3",
    ]
    options = {"cwd": ROOT, "env": os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}}
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    while first.poll() is None and not (out / "trials/trial_configured/log.txt").exists():
        time.sleep(0.1)
    first.kill()
    assert first.wait() == -signal.SIGKILL

    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr[-2000:]
    wild, given = (json.loads((out / f"trials/trial_{name}/result.json").read_text()) for name in ("0", CONFIGURED))
    assert wild["values"]["model.embedding_l2"] >= 1e37 and "not finite, so training stopped" in wild["reason"]
    assert wild["metrics"] == {} and (out / "trials/trial_0/model.training/nonfinite").is_dir()
    assert given["reason"] == "" and given["values"] == {"model.embedding_l2": 0.0}
    assert 0 < given["metrics"]["click/auc"] < 1 and given["metrics"]["ne"] == given["metrics"]["click/ne"]
    assert {path.name for path in (out / "trials/trial_configured").iterdir()} == {"log.txt", "result.json"}
    assert "rows/s" in (out / "trials/trial_configured/log.txt").read_text()
    assert "0 left, of about" in done.stdout and "1 failed." in done.stdout and "Traceback" not in done.stderr
    assert {"best.py", "search.png", "tune.md", "tensorboard"} < {path.name for path in out.iterdir()}
    best = runpy.run_path(out / "best.py")["get_config"]()
    assert (best.train.seed, best.model.embedding_l2, best.model.tasks) == (3, 0.0, ("click",))
