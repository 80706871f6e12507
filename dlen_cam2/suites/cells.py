"""Cells of an experiment: one trained run each, kept on disk so that an interrupted suite goes on where it stopped."""

import hashlib
import json
import os
import pathlib
import uuid
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def load(directory: str | os.PathLike, name: str, key: Mapping[str, Any]) -> Arrays | None:
    """The arrays that `cell` kept of this name and key; None if there are none, or none that can be read."""
    path = _path(directory, name, key)
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        print(f"{name}: {path} cannot be read ({error}), so it is computed again", flush=True)
        return None


def cell(directory: str | os.PathLike, name: str, key: Mapping[str, Any], compute: Callable[[], Arrays]) -> Arrays:
    """The arrays of `compute()`, or those of an earlier call with the same `key`.

    Args:
        directory: where cells are kept.
        name: the cell's name, such as "proposed-seed0".
        key: all that the result depends on, as plain data; another key is another file.
        compute: trains and returns named arrays.
    """
    arrays = load(directory, name, key)
    if arrays is None:
        arrays = compute()
        path = _path(directory, name, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{uuid.uuid4().hex[:8]}.npz")
        np.savez_compressed(aside, **arrays)  # type: ignore[arg-type]
        aside.rename(path)
    return arrays


def _path(directory: str | os.PathLike, name: str, key: Mapping[str, Any]) -> pathlib.Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return pathlib.Path(directory) / f"{name}-{digest}.npz"
