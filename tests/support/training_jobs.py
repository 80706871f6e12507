"""Small training jobs: their configurations, and processes that run them."""

import json
import os
import socket
import subprocess
import sys

from dlen_cam2.config import Config, DailyConfig, ModelConfig, TrainConfig
from tests.support.builders import FEW, ROOT

DAYS, DAY = "20240101..20240102", "20240103"
SIZES = {"features": FEW, "experts": 2, "expert_units": (8,), "tower_units": (4,), "latent_units": (4,)}


def small(head="plain", **train):
    sizes = {"features": FEW, "experts": 2, "expert_units": (8,), "tower_units": (4,), "latent_units": (4,)}
    return Config("small", ModelConfig("mmoe", head=head, **sizes), TrainConfig(**{"batch_size": 128, **train}))


def config(head="dlen", dropout=0.2, **train):
    fields = {"batch_size": 32, "bootstrap": 0, "epochs": 2, "daily": DailyConfig(2, 1.0, 0.0), **train}
    return Config("small", ModelConfig("mmoe", head=head, dropout=dropout, **SIZES), TrainConfig(**fields))


def arguments(log, model, flags):
    return [f"--data_dir={log}", f"--model_dir={model}", f"--train_days={DAYS}", f"--eval_days={DAY}", *flags]


def start(log, model, *flags, task=None):
    """A process of `python -m dlen_cam2.cli.train`; `task` is (cluster, type, index)."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    if task:
        cluster, kind, index = task
        environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})
    return subprocess.Popen(
        [sys.executable, "-m", "dlen_cam2.cli.train", *arguments(log, model, flags)],
        env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )


def finished(process):
    """What a process printed, once it is done without an error."""
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err[-3000:]
    return out


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
