"""Records of a shard to raw columns, in either layout.

- `example`: a record is one row, a `tf.train.Example`.
- `block`: a record is a `tf.train.Example` that holds a few thousand rows as columns, each the bytes of one
  little-endian array: NAME is float32, or, of a label or mask, uint8; NAME/int32 or NAME/int64 are integers,
  whichever the block needs. Of a list column NAME/lengths (int32) says how many values each row has; integers are
  filled up with -1 to the longest of the block. Strings are no array but a bytes list, of a list column one row's
  after another's.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import tensorflow as tf

from dlen_cam2.data.manifest import LENGTHS, NARROW, WIDE, Shards
from dlen_cam2.schema import Schema

# Types of raw columns.
DTYPES = {"int": tf.int64, "float": tf.float32, "string": tf.string}
# Rows that are parsed together: enough that the cost of starting each operation is spread over many.
CHUNK = 8192
# Chunks that are parsed at once.
PARALLEL = max(2, os.cpu_count() or 1)
_BUFFER = 1 << 20

Raw = dict[str, tf.Tensor]


def example_spec(schema: Schema, labels: bool) -> dict[str, Any]:
    """The `tf.io.parse_example` specification of the schema's columns.

    A missing categorical value becomes -1 or "" (index 0); numbers, labels and keys must be there.
    """
    lists = {f.name: f for f in schema.features if f.is_list}
    optional = {f.name: {"int": -1, "string": ""}[f.dtype] for f in schema.features if not f.is_numeric}
    names = schema.columns if labels else {f.name: f.dtype for f in schema.features}
    return {
        name: tf.io.RaggedFeature(DTYPES[dtype], row_splits_dtype=tf.int64)
        if name in lists
        else tf.io.FixedLenFeature([], DTYPES[dtype], optional.get(name))
        for name, dtype in names.items()
    }


def parser(schema: Schema, layout: str, names: Iterable[str] = ()) -> Callable[[tf.Tensor], Raw]:
    """A function from (n,) serialised records (of the block layout, n = 1) to raw columns: (B,), lists ragged.

    Args:
        schema: what the columns are.
        layout: one of `dlen_cam2.data.manifest.LAYOUTS`.
        names: columns to parse; others are passed over. Default: all of the schema.
    """
    keep = tuple(names) or tuple(schema.columns)
    if layout == "block":
        return lambda serialized: _parse_block(serialized[0], schema, keep)
    spec = {name: parse for name, parse in example_spec(schema, labels=True).items() if name in keep}
    return lambda serialized: tf.io.parse_example(serialized, spec)


def _parse_block(serialized: tf.Tensor, schema: Schema, names: Iterable[str]) -> Raw:
    types = {name: schema.columns[name] for name in names}
    lists = {f.name for f in schema.features if f.is_list} & types.keys()
    integers = [name for name, dtype in types.items() if dtype == "int" and name not in schema.binary_columns]
    array = tf.io.FixedLenFeature([], tf.string, "")
    spec: dict[str, Any] = {
        name: tf.io.RaggedFeature(tf.string) if dtype == "string" else array for name, dtype in types.items()
    }
    spec |= {name + suffix: array for name in integers for suffix in (NARROW, WIDE)}
    spec |= {name + LENGTHS: tf.io.FixedLenFeature([], tf.string) for name in lists}
    fields = tf.io.parse_single_example(serialized, spec)
    raw = {}
    for name, dtype in types.items():
        values = fields[name]
        if name in schema.binary_columns:
            values = tf.cast(tf.io.decode_raw(values, tf.uint8), tf.int64)
        elif dtype == "float":
            values = tf.io.decode_raw(values, tf.float32)
        elif dtype == "int":
            values = _integers(fields[name + NARROW], fields[name + WIDE])
        if name in lists:
            lengths = tf.cast(tf.io.decode_raw(fields[name + LENGTHS], tf.int32), tf.int64)
            if dtype == "string":
                values = tf.RaggedTensor.from_row_lengths(values, lengths)
            else:
                width = tf.reduce_max(tf.concat([lengths, [0]], 0))
                values = Rectangle(tf.reshape(values, tf.stack([tf.size(lengths, tf.int64), width])), lengths)
        raw[name] = values
    return raw


def _integers(narrow: tf.Tensor, wide: tf.Tensor) -> tf.Tensor:
    """The block's integers, of which one of the two columns has the bytes."""
    return tf.cond(
        tf.equal(tf.strings.length(wide), 0),
        lambda: tf.cast(tf.io.decode_raw(narrow, tf.int32), tf.int64), lambda: tf.io.decode_raw(wide, tf.int64),
    )


class Rectangle(NamedTuple):
    """A list column, filled up with -1 to the longest list.

    Attributes:
        values: (B, W).
        lengths: (B,).
    """

    values: tf.Tensor
    lengths: tf.Tensor

    def to_tensor(self, default: int, shape: tuple[None, int]) -> tf.Tensor:
        """(B, L): cut after L, filled up with -1, which is the only `default` of integers."""
        width = shape[1]
        values = tf.pad(self.values[:, :width], [[0, 0], [0, tf.maximum(width - tf.shape(self.values)[1], 0)]],
                        constant_values=default)
        return tf.ensure_shape(values, shape)


def padded(raw: Raw, schema: Schema) -> Raw:
    """Raw columns with lists as (B, max_length), cut after that and filled up with -1 or ""."""
    lists = {f.name: f for f in schema.features if f.is_list}
    return {
        name: column.to_tensor(-1 if lists[name].dtype == "int" else "", shape=(None, lists[name].max_length))
        if name in lists else column
        for name, column in raw.items()
    }


def parse_examples(serialized: tf.Tensor, schema: Schema, labels: bool) -> Raw:
    """(B,) serialised `tf.train.Example`s -> raw columns, (B,) or (B, max_length) padded with -1 or ""."""
    return padded(tf.io.parse_example(serialized, example_spec(schema, labels)), schema)


def chunk(layout: str) -> int:
    """How many records a parser takes at once."""
    return 1 if layout == "block" else CHUNK


def open_shard(path: str | tf.Tensor, compression: str) -> tf.data.Dataset:
    """The records of a shard (or, given several paths, of one after another)."""
    return tf.data.TFRecordDataset(path, compression_type=compression, buffer_size=_BUFFER)


def raw_columns(shards: Shards, schema: Schema, names: Iterable[str] = ()) -> tf.data.Dataset:
    """Raw columns of `shards`, chunk by chunk, in the order in which they were written."""
    records = open_shard(list(shards.paths), shards.compression).batch(chunk(shards.layout))
    return steady(records.map(parser(schema, shards.layout, names), PARALLEL))


def steady(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Prefetch, and leave the parallelism as it is written.

    tf.data's own tuning now and then settles for one parse at a time, which halves the speed of all later passes.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.prefetch(2).with_options(options)
