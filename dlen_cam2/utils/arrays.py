"""Named NumPy arrays, including texts, in one file without pickles."""

import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

from dlen_cam2.utils.files import beside

# Suffixes of what a text array is kept as: the place of each row's text, the texts one after another, and their ends.
_PARTS = ("#codes", "#bytes", "#ends")


def save(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], compress: bool = False) -> None:
    """Write the arrays to a NumPy archive, as a whole or not at all.

    NumPy itself would pickle an array of texts, and loading a pickle runs code. So the distinct texts are stored as
    their bytes, along with the index of the text in each row.

    Args:
        path: the file to write.
        arrays: the arrays by name; numbers of any shape, or texts (str or bytes), (rows,).
        compress: use less space and more time.

    Raises:
        TypeError: an array holds other objects.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    plain: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if array.dtype.kind not in "biufcOSU" or (array.dtype.kind in "OSU" and array.ndim != 1):
            raise TypeError(f"array {name!r} must hold numbers, or texts in one dimension. Received: {array.dtype}, "
                            f"shape {array.shape}.")
        plain |= _coded(name, array) if array.dtype.kind in "OSU" else {name: array}
    with beside(path) as aside, aside.open("wb") as file:
        (np.savez_compressed if compress else np.savez)(file, **plain)  # type: ignore[arg-type]


def load(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Load the arrays that `save` wrote; texts become object arrays of bytes.

    Raises:
        ValueError: the file is damaged, or `save` did not write it.
        OSError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            found = dict(stored)
    except (EOFError, KeyError, NotImplementedError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    for name in [n.removesuffix(_PARTS[0]) for n in found if n.endswith(_PARTS[0])]:
        codes, content, ends = (found.pop(name + part) for part in _PARTS)
        raw, starts = content.tobytes(), [0, *ends.tolist()]
        texts = np.empty(len(ends), object)
        texts[:] = [raw[a:b] for a, b in zip(starts, starts[1:], strict=False)]
        found[name] = texts[codes]
    return found


def _coded(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    texts = [t.encode() if isinstance(t, str) else t for t in array.tolist()]
    if not all(isinstance(t, bytes) for t in texts):
        raise TypeError(f"array {name!r} must hold numbers or texts. Received: {array.dtype}, {array[:3]!r}.")
    known = {text: code for code, text in enumerate(dict.fromkeys(texts))}
    codes = np.array([known[t] for t in texts], np.int64)
    content = np.frombuffer(b"".join(known), np.uint8)
    return dict(zip((name + part for part in _PARTS), (codes, content, np.cumsum([len(t) for t in known], dtype=int)),
                    strict=True))
