"""Parse the records of a shard into raw columns, in either layout.

- `example`: a record is one row, a `tf.train.Example`.
- `block`: a record is a `tf.train.Example` that holds a few thousand rows as columns, each stored as the bytes of one
  little-endian array. NAME is float32, or uint8 for a label or a mask; NAME/int32 or NAME/int64 holds integers,
  whichever width the block needs. For a list column, NAME/lengths (int32) gives the number of values in each row,
  and integers are padded with -1 to the longest list of the block. Strings are not an array but a bytes list; in a
  list column, the values of one row follow those of the row before.
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

    A missing categorical value becomes -1 or "" (index 0); numbers, labels and keys are required.
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
    """A function from (n,) serialised records (n = 1 in the block layout) to raw columns: (B,), lists ragged.

    Args:
        schema: what the columns are.
        layout: one of `dlen_cam2.data.manifest.LAYOUTS`.
        names: columns to parse; others are skipped. Default: all of the schema.
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
    """The block's integers, from whichever of the two columns holds them."""
    return tf.cond(
        tf.equal(tf.strings.length(wide), 0),
        lambda: tf.cast(tf.io.decode_raw(narrow, tf.int32), tf.int64), lambda: tf.io.decode_raw(wide, tf.int64),
    )


class Rectangle(NamedTuple):
    """A list column as a matrix, padded with -1 to the longest list.

    Attributes:
        values: (B, W), the padded lists.
        lengths: (B,), the number of values in each list.
    """

    values: tf.Tensor
    lengths: tf.Tensor

    def to_tensor(self, default: int, shape: tuple[None, int]) -> tf.Tensor:
        """The lists as (B, L), truncated to L and padded with -1, which is the only `default` for integers."""
        width = shape[1]
        values = tf.pad(self.values[:, :width], [[0, 0], [0, tf.maximum(width - tf.shape(self.values)[1], 0)]],
                        constant_values=default)
        return tf.ensure_shape(values, shape)


def padded(raw: Raw, schema: Schema) -> Raw:
    """Raw columns with lists as (B, max_length), truncated to that length and padded with -1 or ""."""
    lists = {f.name: f for f in schema.features if f.is_list}
    return {
        name: column.to_tensor(-1 if lists[name].dtype == "int" else "", shape=(None, lists[name].max_length))
        if name in lists else column
        for name, column in raw.items()
    }


def parse_examples(serialized: tf.Tensor, schema: Schema, labels: bool) -> Raw:
    """Parse (B,) serialised `tf.train.Example`s into raw columns: (B,), or (B, max_length) padded with -1 or ""."""
    return padded(tf.io.parse_example(serialized, example_spec(schema, labels)), schema)


def chunk(layout: str) -> int:
    """The number of records that a parser takes at once."""
    return 1 if layout == "block" else CHUNK


def open_shard(path: str | tf.Tensor, compression: str) -> tf.data.Dataset:
    """The records of a shard, or of several shards one after another if there are several paths."""
    # tf.data.TFRecordDataset makes the same, inside of a function of the path that is traced each time, for 20 ms.
    made = tf.raw_ops.TFRecordDataset(
        filenames=tf.reshape(path, [-1]), compression_type=compression, buffer_size=_BUFFER
    )
    return tf.data.experimental.from_variant(made, tf.TensorSpec([], tf.string))


def raw_columns(shards: Shards, schema: Schema, names: Iterable[str] = ()) -> tf.data.Dataset:
    """The raw columns of `shards`, chunk by chunk, in stored order."""
    records = open_shard(list(shards.paths), shards.compression).batch(chunk(shards.layout))
    return steady(records.map(parser(schema, shards.layout, names), PARALLEL))


def steady(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Prefetch, and keep the parallelism as written.

    tf.data's autotuning sometimes settles on one parse at a time, which halves the speed of all later passes.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.prefetch(2).with_options(options)
