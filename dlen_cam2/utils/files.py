"""Directories and files that are either whole or absent. Reading works for any path that `tf.io.gfile` can read."""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator
from typing import Any

from dlen_cam2.utils.errors import UserError


@contextlib.contextmanager
def staged(directory: str | os.PathLike, marker: str) -> Iterator[pathlib.Path]:
    """Yield an empty directory that becomes `directory` when the block ends without an error.

    The content is written beside the target, flushed to disk and renamed, so a reader sees the previous version (or
    nothing) or the new version, and never half of one. After an error, nothing is left behind.

    Args:
        directory: the target. An existing directory is replaced only if it is empty or holds `marker`.
        marker: a file that every finished directory of this kind contains.

    Raises:
        UserError: the target is a file, or a directory that holds something else.
    """
    target = replaceable(directory, marker)
    token = uuid.uuid4().hex[:8]
    stage = target.parent / f".{target.name}.incomplete-{token}"
    try:
        stage.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{target} cannot be created: {error}.") from error
    try:
        yield stage
        for path in sorted(stage.rglob("*"), reverse=True):
            _fsync(path)
        _fsync(stage)
        old = target.parent / f".{target.name}.old-{token}"
        if target.exists():
            target.rename(old)
        stage.rename(target)
        _fsync(target.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def replaceable(directory: str | os.PathLike, marker: str) -> pathlib.Path:
    """The absolute path of a directory that `staged` may write.

    Raises:
        UserError: the target is a file, or a directory that holds something else.
    """
    target = pathlib.Path(directory).resolve()
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} must be a directory. Received: a file.")
    if target.is_dir() and any(target.iterdir()) and not (target / marker).exists():
        raise UserError(
            f"{target} is not empty and was not written by this command (it has no {marker}), so it will not "
            f"be replaced. Received: a directory with {sorted(p.name for p in target.iterdir())[:5]}."
        )
    return target


@contextlib.contextmanager
def locked(path: str | os.PathLike, used_by: str) -> Iterator[None]:
    """Hold a lock on the file until the block or the process ends, however it ends.

    Raises:
        UserError: another process holds the lock; the message is the file's directory, "is in use: " and `used_by`.
    """
    path = pathlib.Path(path)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"{path.parent} is in use: {used_by}.") from error
        yield


def join(directory: str | os.PathLike, *names: str) -> str:
    """The path of `names` under `directory`, which may be remote ("gs://bucket/data")."""
    return os.path.join(os.fspath(directory), *names)


def read_bytes(path: str | os.PathLike) -> bytes:
    """The content of the file. Raises `UserError` naming the file if it cannot be read."""
    try:
        if _is_remote(path):
            with _gfile().GFile(os.fspath(path), "rb") as file:
                return bytes(file.read())
        return pathlib.Path(path).read_bytes()
    except (OSError, _remote_errors(path)) as error:
        raise UserError(f"{path} cannot be read. Received: {error}.") from error


def size(path: str | os.PathLike) -> int:
    """The size of the file in bytes; -1 if there is no such file."""
    try:
        if _is_remote(path):
            return int(_gfile().stat(os.fspath(path)).length)
        return os.stat(path).st_size if os.path.isfile(path) else -1
    except (OSError, _remote_errors(path)):
        return -1


def names(directory: str | os.PathLike) -> list[str]:
    """The names in the directory. Raises `UserError` naming it if it does not exist."""
    try:
        if _is_remote(directory):
            return sorted(name.rstrip("/") for name in _gfile().listdir(os.fspath(directory)))
        return sorted(os.listdir(directory))
    except (OSError, _remote_errors(directory)) as error:
        raise UserError(f"{directory} cannot be listed. Received: {error}.") from error


def _is_remote(path: str | os.PathLike) -> bool:
    return "://" in os.fspath(path)


def _gfile() -> Any:
    import tensorflow as tf  # here, so that commands on local files need not wait for it

    return tf.io.gfile


def _remote_errors(path: str | os.PathLike) -> type[Exception]:
    if not _is_remote(path):
        return OSError
    import tensorflow as tf

    return tf.errors.OpError


@contextlib.contextmanager
def beside(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yield a path beside `path` to write to; the file becomes `path` when the block ends without an error.

    Readers see the old file or the new one, never a part of it.
    """
    path = pathlib.Path(path)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield aside
        _fsync(aside)
        aside.rename(path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` to `path` so that readers see the old file or the new one, never a part of it."""
    with beside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write strict JSON (`null` for undefined; NaN and infinity are refused) through `write_text`."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file. Raises `UserError` naming the file if it is missing or not JSON."""
    if size(path) < 0:
        raise UserError(f"{path} does not exist.")
    try:
        return json.loads(read_bytes(path).decode())
    except ValueError as error:
        raise UserError(f"{path} must be a JSON file. Received: {error}.") from error


def _fsync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
