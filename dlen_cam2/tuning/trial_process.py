"""The process in which trials train, one after another."""

import contextlib
import multiprocessing
import pathlib
import shutil
from multiprocessing.connection import Connection
from typing import Any

import tensorflow as tf

from dlen_cam2.config import MONITORS, Config
from dlen_cam2.evaluation import USER_FAVOR
from dlen_cam2.training import runs, train_request
from dlen_cam2.utils import worker_processes
from dlen_cam2.utils.errors import UserError

LOG = "log.txt"
_MODEL = "model"


class TrialProcess:
    """A process that trains one model at a time; if it dies, the next call replaces it.

    Args:
        threads: number of TensorFlow's threads in this process.
    """

    def __init__(self, threads: int):
        self._threads = threads
        self._process: multiprocessing.process.BaseProcess | None = None
        self._ended = False

    def train(self, *arguments: Any) -> tuple[dict[str, float], str]:
        """Call `outcome` in the process, with its arguments, and return its result.

        Raises:
            SystemExit: `end` ended the process, so that nothing is known about the model.
        """
        if self._ended:
            raise SystemExit
        if self._process is None:
            # Spawned: TensorFlow's threads do not survive a fork.
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs, self._threads), daemon=True)
            self._process.start()
            theirs.close()
        try:
            self._pipe.send(arguments)
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            if self._ended:
                raise SystemExit from error
            self._process.join()
            status, self._process = self._process.exitcode, None
            return {}, f"its process ended with status {status} (-9: it was killed, perhaps because memory ran out)"

    def end(self) -> None:
        """End the process and the training in it."""
        self._ended = True
        if self._process is not None:
            self._process.kill()
            self._process.join()


def _serve(pipe: Connection, threads: int) -> None:
    """Train the models that come through the pipe, until its other end is closed."""
    worker_processes.prepare(threads)
    while True:
        try:
            arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(outcome(*arguments))


def outcome(
    config: Config, data_dir: str, directory: pathlib.Path, train_days: str, validation_days: str
) -> tuple[dict[str, float], str]:
    """Train and measure a model; return (its metrics, ""), or ({}, why it failed).

    Its output goes to `directory/log.txt`. Only the metrics of the model are kept, not the model. The files of a failed
    run, such as the batch that was not finite, are in `directory/model.training`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    worker_processes.output_to(directory / LOG)
    try:
        wanted = train_request.once(config, data_dir, directory / _MODEL, train_days, validation_days, keep=1)
        metrics = means(runs.train(wanted))
    except Exception as error:  # whatever it is, the other trials go on
        return {}, worker_processes.reason(error)
    finally:
        shutil.rmtree(directory / _MODEL, ignore_errors=True)
        tf.keras.backend.clear_session()
    return metrics, ""


def means(metrics: dict[str, Any]) -> dict[str, float]:
    """Means over days of every metric that can be an objective and is defined, over tasks and for each task."""
    tasks = [task for task in next(iter(metrics.values())) if task != USER_FAVOR]
    found = {}
    for name in (*MONITORS, *(f"{task}/{metric}" for task in tasks for metric in MONITORS)):
        with contextlib.suppress(UserError):  # undefined
            found[name] = runs.monitored(metrics, name)
    return found
