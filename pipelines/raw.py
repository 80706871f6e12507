"""A split's rows as they are stored: raw columns in numpy, before any indexing, and a hash of each record."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from dlen_cam2.data import example_spec, shards
from dlen_cam2.schema import KEYS, Schema

_BATCH = 4096


class Column(NamedTuple):
    """Values of a column in row order.

    Attributes:
        values: (rows,) int64, float32 or bytes; of a list column the elements of all rows, one row after another.
        lengths: (rows,) elements of each row of a list column; None where each row has one value.
    """

    values: np.ndarray
    lengths: np.ndarray | None = None

    def head(self, rows: int) -> "Column":
        """The first `rows` rows."""
        if self.lengths is None:
            return Column(self.values[:rows])
        return Column(self.values[: self.lengths[:rows].sum()], self.lengths[:rows])

    @classmethod
    def concatenate(cls, parts: Sequence["Column"]) -> "Column":
        """The rows of all parts, of which there is at least one."""
        lengths = [p.lengths for p in parts if p.lengths is not None]
        return cls(np.concatenate([p.values for p in parts]), np.concatenate(lengths) if lengths else None)


@dataclasses.dataclass(frozen=True)
class Split:
    """All rows of a split.

    Attributes:
        rows: how many.
        shard_rows: rows by shard name.
        columns: every column of the schema; empty where there are no rows.
        records: (rows,) 64-bit hashes of the serialised records. Two different records share one with probability
            2^-64, so among 10^8 rows a false pair has a chance of .0003.
        keys: (rows,) 64-bit hashes of (user, item, time); None where the schema does not have all three.
    """

    rows: int
    shard_rows: dict[str, int]
    columns: dict[str, Column]
    records: np.ndarray
    keys: np.ndarray | None


def read_split(directory: str | os.PathLike, schema: Schema, split: str) -> Split:
    """Read a split that `dlen_cam2.data.read` reads without an error."""
    spec = example_spec(schema, labels=True)
    roles = [schema.keys[role] for role in KEYS if role in schema.keys]
    parts: dict[str, list[Column]] = {name: [] for name in spec}
    records, keys, shard_rows = [], [], {}
    for path in shards(directory, [split]):
        count = 0
        for batch in tf.data.TFRecordDataset(path, buffer_size=1 << 20).batch(_BATCH):
            serialised = batch.numpy()
            count += len(serialised)
            records.append(_hashes(serialised))
            raw = tf.io.parse_example(batch, spec)
            for name, tensor in raw.items():
                parts[name].append(_column(tensor))
            if len(roles) == len(KEYS):
                rows = zip(*(raw[name].numpy().tolist() for name in roles), strict=True)
                keys.append(_hashes(repr(row).encode() for row in rows))
        shard_rows[pathlib.Path(path).name] = count
    none = np.zeros(0, np.uint64)
    return Split(
        sum(shard_rows.values()), shard_rows,
        {name: Column.concatenate(found) for name, found in parts.items() if found},
        np.concatenate([none, *records]), np.concatenate([none, *keys]) if len(roles) == len(KEYS) else None,
    )


def _column(tensor: Any) -> Column:
    if isinstance(tensor, tf.RaggedTensor):
        return Column(tensor.values.numpy(), tensor.row_lengths().numpy())
    return Column(tensor.numpy())


def _hashes(items: Iterable[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(hashlib.blake2b(item, digest_size=8).digest() for item in items), np.uint64)
