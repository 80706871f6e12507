"""Small training jobs: in this process, in processes of their own, and several in one process."""

import json
import os
import socket
import sys
from unittest import mock

import numpy as np

from dlen_cam2.config import Config, DailyConfig, TrainConfig
from dlen_cam2.training import distribution, model_directory
from tests.support.builders import FEW, command, flat
from tests.support.processes import Started

DAYS, DAY = "20240101..20240102", "20240103"
# Of runs whose course is looked at and not their model: most of their time builds graphs of columns and tasks.
FEATURES, TASKS = ("user_id", "watched", "video_id", "video_impressions", "hour"), ("click", "like")
SIZES = {"features": FEW, "experts": 2, "units": (8,), "tower_units": (4,), "latent_units": (4,)}


def small(head="logistic", **train):
    return Config("small", flat("mmoe", head=head, **SIZES), TrainConfig(**{"batch_size": 128, **train}))


def config(head="dlen", dropout=0.2, **train):
    fields = {"batch_size": 32, "bootstrap": 0, "epochs": 2, "daily": DailyConfig(2, 1.0, 0.0), **train}
    sizes = SIZES | {"features": FEATURES, "tasks": TASKS, "dropout": dropout}
    return Config("small", flat("mmoe", head=head, **sizes), TrainConfig(**fields))


def arguments(log, model, flags):
    return [f"--data_dir={log}", f"--model_dir={model}", f"--train_days={DAYS}", f"--eval_days={DAY}", *flags]


def started(words, task=None):
    """A process of Python with these words; `task` is (cluster, type, index)."""
    environment = dict(os.environ)
    if task:
        cluster, kind, index = task
        environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})
    return Started(words, environment)


def start(log, model, *flags, task=None):
    """A process of `python -m dlen_cam2.cli.train`."""
    return started(["-m", "dlen_cam2.cli.train", *arguments(log, model, flags)], task)


def start_several(jobs, strategy, cpu_devices=0, task=None):
    """One process that runs several jobs, {name: flags}, one after another on one strategy; see `several`."""
    code = "from tests.support.jobs import several; several()"
    return started(["-c", code, json.dumps([jobs, strategy, cpu_devices])], task)


def several():
    """In such a process: what each job printed, as JSON. A process has one strategy: TensorFlow mixes up two."""
    jobs, strategy, cpu_devices = json.loads(sys.argv[1])
    place = distribution.connect(strategy, cpu_devices)
    printed = {}
    for name, flags in jobs.items():
        with mock.patch.object(distribution, "connect", return_value=place):
            done = command("dlen_cam2.cli.train", *flags)
        if done.returncode:
            sys.exit(f"{name}: {done.stderr}")
        printed[name] = done.stdout
    print(json.dumps(printed))


def finished(process):
    """What a process printed, once it is done without an error."""
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err[-3000:]
    return out


def all_finished(process):
    """{job: what it printed} of `start_several`."""
    return json.loads(finished(process).splitlines()[-1])


def addresses(**tasks: int) -> dict[str, list[str]]:
    """A cluster on free ports of this machine."""
    sockets = {kind: [socket.socket() for _ in range(count)] for kind, count in tasks.items()}
    for each in sockets.values():
        for opened in each:
            opened.bind(("127.0.0.1", 0))
    cluster = {kind: [f"127.0.0.1:{s.getsockname()[1]}" for s in each] for kind, each in sockets.items()}
    for each in sockets.values():
        for opened in each:
            opened.close()
    return cluster


def weights(directory) -> np.ndarray:
    return np.concatenate([w.ravel() for w in model_directory.load(directory).network.get_weights()])


def steps(directory) -> int:
    done = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()][-1]
    assert done["event"] == "done"
    return done["step"]
