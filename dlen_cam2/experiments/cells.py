"""Cells of an experiment: one trained run each, kept on disk so that an interrupted suite goes on where it stopped."""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dlen_cam2.utils import arrays, console

Arrays = dict[str, np.ndarray]


def load(directory: str | os.PathLike, name: str, key: Mapping[str, Any]) -> Arrays | None:
    """The arrays that `cell` kept of this name and key; None if there are none, or none that can be read."""
    path = _path(directory, name, key)
    try:
        return arrays.load(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        console.warn(f"{path} cannot be read ({error}), so cell {name} is computed again")
        return None


def cell(directory: str | os.PathLike, name: str, key: Mapping[str, Any], compute: Callable[[], Arrays]) -> Arrays:
    """The arrays of `compute()`, or those of an earlier call with the same `key`.

    Args:
        directory: where cells are kept.
        name: the cell's name, such as "proposed-seed0".
        key: all that the result depends on, as plain data; another key is another file.
        compute: trains and returns named arrays.
    """
    found = load(directory, name, key)
    if found is None:
        found = compute()
        arrays.save(_path(directory, name, key), found, compress=True)
    return found


def _path(directory: str | os.PathLike, name: str, key: Mapping[str, Any]) -> pathlib.Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return pathlib.Path(directory) / f"{name}-{digest}.npz"
