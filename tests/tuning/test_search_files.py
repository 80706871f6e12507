"""The files of a search, and its trials in processes of their own."""

import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import time

import pytest
from tensorboard import context
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

from dlen_cam2 import config_file, tuning
from dlen_cam2.config import Config, replaced
from dlen_cam2.configs import kuairand_cam2
from dlen_cam2.training.balancing import Decay
from dlen_cam2.tuning.result import CONFIGURED
from dlen_cam2.tuning.trial_process import TrialProcess
from tests.support.searches import CONFIG, DAY, DAYS, ROOT, Stub, find, rate


# === Files ===
def test_the_files_of_a_search(log, tmp_path, drawn):
    def space(hp):
        return rate(hp) | {
            "train.batch_size": hp.Choice("train.batch_size", [256, 512]), "model.head": "dlen",
            "model.tower_units": tuple(int(n) for n in hp.Choice("model.tower_units", ["", "8 4"]).split()),
        }

    found = find(log, tmp_path / "out", space=space, trials=5, config=replaced(CONFIG, {"train.learning_rate": 1.0}))
    command = 'python -m dlen_cam2.cli.tune --x="a\\n" --y="""'
    tuning.write(found, tmp_path / "out", command)
    page = (tmp_path / "out/tune.md").read_text()
    assert command in page and f"Trial {found.best.name} is the best, with ne {found.value:.5f}" in page
    assert "5 of 5 trials" in page and "54 passes" in page and "8 4" in page and "search.png" in page
    first = next(line for line in page.splitlines() if line.startswith(f"| {found.best.name} |"))
    assert page.index(first) < min(page.index(f"| {t.name} |") for t in found.trials if t is not found.best)
    assert (tmp_path / "out/search.png").read_bytes()[:4] == b"\x89PNG"

    module = runpy.run_path(tmp_path / "out/best.py")
    assert module["get_config"]() == found.config and found.config.model.head.name == "dlen"
    assert command in module["__doc__"] and f"{found.value:.5f}" in module["__doc__"]


def test_any_configuration_is_a_file():
    config = kuairand_cam2.get_config()
    config.train.step_rule = Decay(gammas=(0.5, 0.25))
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


@pytest.mark.slow
def test_a_process_that_is_killed_costs_its_trial(tmp_path):
    process = TrialProcess(1)
    when_it_runs(lambda child: os.kill(child.pid, signal.SIGKILL))
    metrics, reason = process.train(CONFIG, "nowhere", tmp_path, DAYS, DAY)
    assert metrics == {} and reason.startswith("its process ended with status -9")


@pytest.mark.slow
def test_a_process_that_is_ended_says_nothing_of_its_trial(tmp_path):
    """Such as by Ctrl-C: the trial has not failed, and is trained when the search goes on."""
    process = TrialProcess(1)
    when_it_runs(lambda child: process.end())
    with pytest.raises(SystemExit):
        process.train(CONFIG, "nowhere", tmp_path, DAYS, DAY)


SPACE = '''
from dlen_cam2.config import Config, ModelConfig, TrainConfig
from dlen_cam2.models import SharedBottom

def get_config():
    few = {"tower_units": (), "tasks": ("click",), "features": ("user_id",)}
    return Config("own", ModelConfig(SharedBottom(units=(4,)), **few), TrainConfig(batch_size=64))

def space(hp):
    return {"model.embedding_l2": hp.Float("model.embedding_l2", 1e37, 1e38)}
'''


@pytest.mark.slow
def test_the_command_goes_on_after_a_kill(log, tmp_path):
    """As a user runs it: killed with its first trial under way, and started again; its other trial diverges."""
    (tmp_path / "own.py").write_text(SPACE)
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "dlen_cam2.cli.tune", f"--config={tmp_path / 'own.py'}", f"--data_dir={log}",
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
    assert "0 left, about" in done.stdout and "1 trials failed." in done.stdout and "Traceback" not in done.stderr
    assert {"best.py", "search.png", "tune.md", "tensorboard"} < {path.name for path in out.iterdir()}
    best = runpy.run_path(out / "best.py")["get_config"]()
    assert (best.train.seed, best.model.embedding_l2, best.model.tasks) == (3, 0.0, ("click",))
