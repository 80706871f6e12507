"""A split's rows as stored, in either layout: raw columns before any indexing, and a hash of each row."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import tensorflow as tf

from dlen_cam2 import data
from dlen_cam2.data.parsing import Rectangle
from dlen_cam2.schema import KEYS, Schema


class Column(NamedTuple):
    """The values of a column in row order.

    Attributes:
        values: (rows,), int64, float32 or bytes; for a list column, the elements of all rows, one row after another.
        lengths: (rows,), the number of elements in each row of a list column; None where each row has one value.
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
        """Concatenate the rows of all parts, of which there must be at least one."""
        lengths = [p.lengths for p in parts if p.lengths is not None]
        return cls(np.concatenate([p.values for p in parts]), np.concatenate(lengths) if lengths else None)


@dataclasses.dataclass(frozen=True)
class Split:
    """All rows of a split.

    Attributes:
        rows: the number of rows.
        columns: every column of the schema; empty where there are no rows.
        records: (rows,) 64-bit hashes of all columns. Two different rows share one with probability 2^-64, so among
            10^8 rows a false pair has a chance of .0003.
        keys: (rows,) 64-bit hashes of (user, item, time); None where the schema does not have all three.
    """

    rows: int
    columns: dict[str, Column]
    records: np.ndarray
    keys: np.ndarray | None


def tables(directory: str | os.PathLike, schema: Schema, split: str, names: Iterable[str] = ()) -> Iterator[pa.Table]:
    """Read the rows of `split` as stored, chunk by chunk; bytes stay bytes.

    Args:
        directory, split: a data set and one of its splits.
        schema: what the columns are.
        names: columns to read. Default: all.

    Raises:
        UserError: a shard is absent or damaged.
    """
    with data.explained(directory, schema, [split]):
        for raw in data.raw_columns(data.shards(directory, [split]), schema, names):
            yield pa.table({name: _array(column) for name, column in raw.items()})


def _array(column: Any) -> pa.Array:
    if isinstance(column, Rectangle):
        column = tf.RaggedTensor.from_tensor(column.values, column.lengths)
    if isinstance(column, tf.RaggedTensor):
        offsets = pa.array(column.row_splits.numpy(), pa.int32())
        return pa.ListArray.from_arrays(offsets, _array(column.values))
    return pa.array(column.numpy(), pa.binary() if column.dtype == tf.string else None)


def read_split(directory: str | os.PathLike, schema: Schema, split: str) -> Split:
    """Read all rows of a split that `dlen_cam2.data.read` can read without an error."""
    roles = [schema.keys[role] for role in KEYS if role in schema.keys]
    parts: dict[str, list[Column]] = {name: [] for name in schema.columns}
    records, keys = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
    with duckdb.connect() as connection:
        for table in tables(directory, schema, split):
            for name in parts:
                parts[name].append(_column(table.column(name).combine_chunks()))
            records.append(_hashes(connection, table))
            keys.append(_hashes(connection, table.select(roles)))
    rows = np.concatenate(records)
    return Split(
        len(rows), {name: Column.concatenate(found) for name, found in parts.items() if found},
        rows, np.concatenate(keys) if len(roles) == len(KEYS) else None,
    )


def _column(array: pa.Array) -> Column:
    if pa.types.is_list(array.type):
        return Column(array.flatten().to_numpy(zero_copy_only=False), array.value_lengths().to_numpy())
    return Column(array.to_numpy(zero_copy_only=False))


def _hashes(connection: duckdb.DuckDBPyConnection, table: pa.Table) -> np.ndarray:
    if not table.num_columns:
        return np.zeros(0, np.uint64)
    connection.register("rows", table)
    return connection.sql("SELECT hash(rows) AS h FROM rows").fetchnumpy()["h"]
