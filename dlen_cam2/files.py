"""Directories and files that are either whole or absent."""

import contextlib
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator
from typing import Any

from dlen_cam2.cli import UserError


@contextlib.contextmanager
def staged(directory: str | os.PathLike, marker: str) -> Iterator[pathlib.Path]:
    """Yield an empty directory that becomes `directory` when the block ends without an error.

    The work is written beside the target, flushed to disk and renamed, so a reader sees the previous
    version, or nothing, or the new version, and never half of one. After an error nothing is left.

    Args:
        directory: the target. An existing one is replaced only if it is empty or holds `marker`.
        marker: a file that every finished directory of this kind contains.

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


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` to `path` so that readers see the old file or the new one, never a part."""
    path = pathlib.Path(path)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    aside.write_text(text, encoding="utf-8")
    _fsync(aside)
    aside.rename(path)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write strict JSON (`null` for undefined; NaN and infinity are refused) through `write_text`."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file. Raises `UserError` naming the file if it is absent or not JSON."""
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except (ValueError, OSError) as error:
        raise UserError(f"{path} must be a JSON file. Received: {error}.") from error


def _fsync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
