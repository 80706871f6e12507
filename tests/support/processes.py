"""Processes of their own that do not import TensorFlow each: they are forked from one that has, and has run nothing.

An import takes four seconds of processor time. Of this package no module is imported there, so each process finds them
as new as one that a user starts. Nothing here may import more than the standard library.
"""

import multiprocessing
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver

ROOT = pathlib.Path(__file__).parents[2]
_LIBRARIES = ("tensorflow", "tf_keras", "scipy.stats", "pyarrow", "matplotlib.figure")
_CONTEXT = multiprocessing.get_context("forkserver")


class Started:
    """`python WORDS` in such a process, with the methods of a `subprocess.Popen` whose outputs are pipes of text."""

    def __init__(
        self, words: Sequence[object], environment: Mapping[str, str] = os.environ, directory: pathlib.Path = ROOT
    ):
        self.args = [sys.executable, *map(str, words)]
        self._said = [tempfile.NamedTemporaryFile() for _ in range(2)]
        _CONTEXT.set_forkserver_preload([*_LIBRARIES])
        self._process = _CONTEXT.Process(
            target=_run, args=(self.args[1:], dict(environment), directory, *(file.name for file in self._said)))
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    poll = returncode.fget

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote to standard output and to standard error, when it has ended."""
        self.wait(timeout)
        out, err = (pathlib.Path(file.name).read_text(encoding="utf-8") for file in self._said)
        return out, err


def run(words: Sequence[object], directory: pathlib.Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`python WORDS`, to its end."""
    process = Started(words, directory=directory)
    try:
        said = process.communicate(timeout=900)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.wait(), *said)


def end() -> None:
    """End the process that has imported the libraries, and wait for it."""
    forkserver._forkserver._stop()


def _run(words: list[str], environment: dict[str, str], directory: pathlib.Path, out: str, err: str) -> None:
    for number, path in ((1, out), (2, err)):
        with open(path, "w", encoding="utf-8") as file:
            os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    flag, what, *rest = words
    sys.argv = [flag, *rest]
    if flag == "-c":
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    else:
        runpy.run_module(what, run_name="__main__", alter_sys=True)
