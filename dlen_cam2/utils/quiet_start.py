"""Suppresses TensorFlow's start-up lines, which no logging level affects."""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import types
from collections.abc import Iterator, Sequence

# What TensorFlow's C++ says of itself while it is loaded: information, warnings and errors in either of its formats,
# and the notice that precedes them. A fatal line (F) begins with none of these.
_NOISE = (
    r"WARNING: All log messages before absl::InitializeLog"
    r"|[IWE]\d{4} \d\d:\d\d:"
    r"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWE] "
    r"|To enable the following instructions: "
)
# Copies its input to its output, line by line, but for the noise. A process, because one that is aborted while it loads
# TensorFlow cannot pass on what it said last.
_COPY = f"""
import re, sys
noise = re.compile({_NOISE!r}.encode())
for line in sys.stdin.buffer:
    if not noise.match(line):
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
"""


def install() -> None:
    """Suppress TensorFlow's start-up lines when it is first imported, by any module.

    Its libraries write these lines to file descriptor 2 as they are loaded, before any logging level can be set.
    Standard error therefore goes through a filter during the import. Everything else passes: tracebacks, our own lines,
    and the line with which TensorFlow aborts. With `TF_CPP_MIN_LOG_LEVEL=0`, which asks for all lines, nothing is
    filtered.
    """
    if "tensorflow" not in sys.modules and os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "0":
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow in its usual place, once, and loads it with the filter."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "tensorflow":
            return None
        with contextlib.suppress(ValueError):  # another thread may have been here first
            sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: types.ModuleType) -> None:
                with _filtered():
                    load(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def _filtered() -> Iterator[None]:
    """Send standard error through `_COPY` until the block ends."""
    if sys.stderr is not None:
        sys.stderr.flush()
    try:
        kept = os.dup(2)
        copy = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _COPY], stdin=subprocess.PIPE, stdout=kept, start_new_session=True
        )  # in a session of its own Ctrl-C does not end it before us
    except OSError:  # no standard error, or no process to be had: nothing to keep quiet, or no way to
        yield
        return
    assert copy.stdin is not None
    os.dup2(copy.stdin.fileno(), 2)
    copy.stdin.close()
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        # Its input ends here, so that all is passed on when it ends. A process that another thread started meanwhile
        # may hold the input open; the filter then stays and is not waited for.
        with contextlib.suppress(subprocess.TimeoutExpired):
            copy.wait(timeout=5)
