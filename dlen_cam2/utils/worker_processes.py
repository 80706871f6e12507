"""Processes that train beside a command: their share of the cores, where their output goes, and their end."""

import multiprocessing
import os
import pathlib
import signal
import sys
import threading
import traceback

import tensorflow as tf

from dlen_cam2.utils.errors import UserError


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def prepare(threads: int) -> None:
    """Make this process end with its parent, leave Ctrl-C to the parent, and keep to its share of the cores."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # LightGBM's
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # several processes may share a GPU
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def output_to(path: pathlib.Path) -> None:
    """Append the output of this process to `path` from now on, including TensorFlow's own lines."""
    sys.stdout.flush()
    with path.open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


def reason(error: Exception) -> str:
    """Why a run failed, for the process that waits for it; the whole traceback goes to this process's log."""
    traceback.print_exception(error)
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
