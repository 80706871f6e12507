"""A directory of versions of one model, as TensorFlow Serving reads it: DIRECTORY/<number>/saved_model.pb."""

import dataclasses
import os
import pathlib
import re
import shutil
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import read_bytes

SAVED_MODEL = "saved_model.pb"


def numbers(directory: str | os.PathLike) -> list[int]:
    """The versions in `directory`, ascending: its subdirectories whose name is a number in plain decimal.

    TensorFlow Serving accepts any name that parses as int64 (`ParseVersionNumber` in
    sources/storage_path/file_system_storage_path_source.cc), so for it "007" is version 7 too. No command here writes
    such a name, and all of them ignore it, as they do hidden and other names.
    """
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        return []
    found = [path.name for path in directory.iterdir() if path.is_dir()]
    return sorted(int(name) for name in found if re.fullmatch("0|[1-9][0-9]*", name))


def following(directory: str | os.PathLike) -> pathlib.Path:
    """The path of the next version: one above the newest number, or 1 in a directory that does not exist yet.

    Raises:
        UserError: `directory` is a file.
    """
    directory = pathlib.Path(directory)
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} must be a directory. Received: a file.")
    return directory / str(max(numbers(directory), default=0) + 1)


def resolve(path: str | os.PathLike) -> pathlib.Path:
    """The newest version in a directory of versions; any other path is returned unchanged."""
    found = numbers(path)
    return pathlib.Path(path) / str(found[-1]) if found else pathlib.Path(path)


def check(version: str | os.PathLike) -> None:
    """Refuse a version that TensorFlow Serving could not load.

    Raises:
        UserError: saved_model.pb is missing or damaged, or no graph in it has the tag "serve".
    """
    path = pathlib.Path(version) / SAVED_MODEL
    if not path.is_file():
        raise UserError(f"{version} holds no SavedModel. Received: a directory without {SAVED_MODEL}.")
    try:
        graphs = saved_model_pb2.SavedModel.FromString(read_bytes(path)).meta_graphs
    except DecodeError as error:
        raise UserError(f"{path} must be a SavedModel. Received: {error}.") from error
    tags = [sorted(graph.meta_info_def.tags) for graph in graphs]
    if ["serve"] not in tags:
        raise UserError(f"{path} must hold a graph with the tag 'serve' alone. Received tags: {tags}.")


def prune(directory: str | os.PathLike, keep: int, protected: Iterable[int]) -> list[int]:
    """Remove all versions except the `keep` (at least 1) newest and the `protected` ones. Returns those removed.

    A version is renamed to a hidden name before its files are removed, so that a reader finds it whole or not at all.
    """
    directory, protected = pathlib.Path(directory), set(protected)
    doomed = [number for number in numbers(directory)[:-keep] if number not in protected]
    for number in doomed:
        (directory / str(number)).rename(directory / f".{number}.removed-{uuid.uuid4().hex[:8]}")
    for hidden in directory.glob(".*.removed-*"):  # also what a run that was killed left
        shutil.rmtree(hidden, ignore_errors=True)
    return doomed


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A version in a separate graph and session, which end with it.

    Attributes:
        signatures: `SignatureDef` by name.
    """

    signatures: Mapping[str, Any]
    _session: tf.compat.v1.Session

    def run(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Run a signature and return its outputs by name. Raises TensorFlow's errors if `inputs` do not fit it."""
        wanted = self.signatures[signature]
        fetch = {name: tensor.name for name, tensor in sorted(wanted.outputs.items())}
        return self._session.run(fetch, {wanted.inputs[name].name: value for name, value in inputs.items()})


def load(version: str | os.PathLike) -> Loaded:
    """Restore a version as a server does, without knowing how it was built.

    Raises:
        UserError: the directory holds no SavedModel, or one that cannot be restored.
    """
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # it would advise the Python loader, which is not what a server uses
    try:
        with tf.Graph().as_default() as graph:
            session = tf.compat.v1.Session(graph=graph)
            meta = tf.compat.v1.saved_model.load(session, ["serve"], os.fspath(version))
    except (OSError, tf.errors.OpError, RuntimeError) as error:
        raise UserError(f"{version} holds no SavedModel. Received: {str(error).splitlines()[0]}") from error
    finally:
        logger.setLevel(level)
    # Names with two underscores are TensorFlow's own, for its loaders.
    return Loaded({name: s for name, s in meta.signature_def.items() if not name.startswith("__")}, session)
