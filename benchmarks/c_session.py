"""Requests to a SavedModel from a C program, as TensorFlow Serving's C++ sends them: no Python is timed.

The program, `c_session.c`, is compiled against the library in TensorFlow's wheel.
"""

import functools
import os
import pathlib
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from dlen_cam2.serving import versions

_SOURCE = pathlib.Path(__file__).with_name("c_session.c")
# Kinds of NumPy's types, and how C stores them.
_STORED = {"f": "<f4", "i": "<i8"}


class Answer(NamedTuple):
    """What came of the same request, sent over and over.

    Attributes:
        load: milliseconds of loading the SavedModel.
        milliseconds: (runs,), of each request.
        scores: {output: (N,)}, of the last.
    """

    load: float
    milliseconds: np.ndarray
    scores: dict[str, np.ndarray]


def send(version: str | os.PathLike, signature: str, columns: Mapping[str, Any], runs: int = 1) -> Answer:
    """Load a version in a process of its own, and send it a request so many times. Raises `CalledProcessError`."""
    content = (pathlib.Path(version) / versions.SAVED_MODEL).read_bytes()
    wanted = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0].signature_def[signature]
    sent = b"".join(_tensor(tensor, columns[name]) for name, tensor in sorted(wanted.inputs.items()))
    outputs = sorted(wanted.outputs)
    command = [_program(), os.fspath(version), str(runs), *(wanted.outputs[name].name for name in outputs)]
    done = subprocess.run(command, input=sent, capture_output=True, check=True)
    (load, *milliseconds), *scores = (np.array(line.split(), float) for line in done.stdout.decode().splitlines())
    return Answer(load, np.array(milliseconds), dict(zip(outputs, scores, strict=True)))


def _tensor(info: Any, column: Any) -> bytes:
    is_text = info.dtype == tf.string.as_datatype_enum
    values = np.array(column, object if is_text else None)  # NumPy's own bytes would lose zeros at their end
    shape = " ".join(map(str, values.shape))
    head = f"{info.name} {info.dtype} {values.ndim} {shape}\n".encode()
    if not is_text:
        return head + values.astype(_STORED[values.dtype.kind]).tobytes()
    texts = [tf.compat.as_bytes(text) for text in values.ravel()]
    return head + b"".join(struct.pack("<Q", len(text)) + text for text in texts)


@functools.cache
def _program() -> str:
    """The compiled program."""
    library = tf.sysconfig.get_lib()
    target = str(pathlib.Path(tempfile.mkdtemp()) / "c_session")
    linked = [f"{library}/libtensorflow_cc.so.2", f"{library}/libtensorflow_framework.so.2", f"-Wl,-rpath,{library}"]
    subprocess.run(["gcc", "-O2", f"-I{tf.sysconfig.get_include()}", str(_SOURCE), "-o", target, *linked], check=True)
    return target
