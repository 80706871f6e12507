"""python -m benchmarks.kill --data_dir=DIR --kills=20: does a killed job end with the weights of one that is not?

Trains once without interruption, then again and again, kills those processes (SIGKILL) after random times and starts
them again, until there were `--kills` kills and `--minutes` are over. Between kills lie `--least` to `--most` seconds:
they fall into the start, steps, checkpoints, the time between days, measuring and publication. Each job that is done is
compared with the first: all weights and optimizer state, bit by bit. A soak: `--minutes=30`.
"""

import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import flags

from dlen_cam2.utils import commands
from dlen_cam2.utils.errors import UserError

FLAGS = flags.FLAGS
ROOT = pathlib.Path(__file__).parent.parent


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "Data set that a pipeline wrote.", required=True)
    flags.DEFINE_integer("kills", 20, "How often the process is killed.", lower_bound=1)
    flags.DEFINE_float("minutes", 0, "How long to go on at the least.", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "Of the times.")
    flags.DEFINE_float("least", 3.0, "Seconds before a kill, at the least.", lower_bound=0)
    flags.DEFINE_float("most", 15.0, "Seconds before a kill, at the most.", lower_bound=0)
    flags.DEFINE_list("train", [], "Flags of dlen_cam2 train, separated by commas .")


def command(model_dir: pathlib.Path, arguments: Sequence[str]) -> list[str]:
    """The command line of a training job."""
    return [sys.executable, "-m", "dlen_cam2", "train", f"--model_dir={model_dir}", *arguments]


def killed(
    model_dir: pathlib.Path, arguments: Sequence[str], kills: int, least: float, most: float, seed: int
) -> list[str]:
    """Kill the job `kills` times at random moments, then let it finish; returns what the log held at each kill."""
    rng, moments = random.Random(seed), []
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    for _ in range(kills):
        process = subprocess.Popen(
            command(model_dir, arguments), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(rng.uniform(least, most))
        if process.poll() is not None:
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, process.args)
            return moments
        process.send_signal(signal.SIGKILL)
        process.wait()
        log = model_dir.with_name(model_dir.name + ".training") / "log.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []
        moments.append(lines[-1][:160] if lines else "before its first line")
    subprocess.run(command(model_dir, arguments), env=environment, check=True, stdout=subprocess.DEVNULL)
    return moments


def differences(a: pathlib.Path, b: pathlib.Path) -> list[str]:
    """Names of tensors of two model directories that are not equal bit by bit."""
    first, second = (tf.train.load_checkpoint(str(path / "weights" / "final")) for path in (a, b))
    names = [n for n in first.get_variable_to_shape_map() if n != "_CHECKPOINTABLE_OBJECT_GRAPH"]
    assert set(names) == set(second.get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    return [n for n in names if not np.array_equal(first.get_tensor(n), second.get_tensor(n), equal_nan=True)]


def main() -> None:
    arguments = [f"--data_dir={FLAGS.data_dir}", *FLAGS.train]
    with tempfile.TemporaryDirectory() as directory:
        whole = pathlib.Path(directory, "whole")
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        start = time.monotonic()
        subprocess.run(command(whole, arguments), env=environment, check=True, stdout=subprocess.DEVNULL)
        print(f"uninterrupted: {time.monotonic() - start:.0f} s", flush=True)
        start, kills, jobs = time.monotonic(), 0, 0
        while kills < FLAGS.kills or time.monotonic() - start < 60 * FLAGS.minutes:
            parts = pathlib.Path(directory, f"parts{jobs}")
            for moment in killed(parts, arguments, FLAGS.kills, FLAGS.least, FLAGS.most, FLAGS.seed + jobs):
                kills += 1
                print(f"kill {kills}: last line of the log: {moment}", flush=True)
            jobs += 1
            if different := differences(whole, parts):
                raise UserError(f"after {kills} kills, tensors differ. Received: {different}.")
            print(f"job {jobs} has the weights of the uninterrupted one", flush=True)
        print(f"{kills} kills of {jobs} jobs in {(time.monotonic() - start) / 60:.0f} minutes; no tensor differs")


if __name__ == "__main__":
    commands.run(main, define_flags)
