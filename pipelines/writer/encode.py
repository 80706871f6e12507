"""Encodes columns as serialised `tf.train.Example`s, a column at a time: one for each row, or one for a block of rows.

Building `tf.train.Example` objects row by row in Python encodes about 15-20k rows/s (40 columns). Here every
fixed-size column becomes one slice of a byte matrix, filled by numpy, and only strings and lists are joined
per row. The bytes are plain protobuf: `tf.train.Example.FromString` reads them.

Wire format (protobuf encoding guide; feature.proto, example.proto of TensorFlow):
`Example{1: Features{1: entry{1: key, 2: Feature{1: bytes | 2: floats | 3: ints}}}}`, each list `{1: values}`.
Integers of one column are written as varints padded to one common width, which the format permits.
"""

import functools
from collections.abc import Callable, Collection, Iterator

import numpy as np
import pyarrow as pa

from dlen_cam2.data.manifest import LENGTHS, NARROW, WIDE

_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 0x0A, 0x12, 0x1A  # field numbers 1, 2, 3 of Feature, length-delimited


def examples(table: pa.Table) -> Iterator[bytes]:
    """Yield one serialised `tf.train.Example` per row.

    Args:
        table: columns of int64, float32, string, list<int64> or list<string>, without nulls.

    Raises:
        TypeError: a column has another type.
    """
    fixed: list[np.ndarray] = []
    variable: list[Callable[[int], bytes]] = []
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        key = name.encode()
        if pa.types.is_int64(column.type):
            payload = _varints(column.to_numpy())
            fixed.append(_prefixed(_entry_head(key, _INT64_LIST, payload.shape[1]), payload))
        elif pa.types.is_float32(column.type):
            payload = column.to_numpy().astype("<f4").view(np.uint8).reshape(-1, 4)
            fixed.append(_prefixed(_entry_head(key, _FLOAT_LIST, 4), payload))
        elif pa.types.is_string(column.type):
            variable.append(_string_column(key, column))
        elif pa.types.is_list(column.type) and pa.types.is_int64(column.type.value_type):
            variable.append(_int_list_column(key, column))
        elif pa.types.is_list(column.type) and pa.types.is_string(column.type.value_type):
            variable.append(_string_list_column(key, column))
        else:
            raise TypeError(f"column {name!r} must be int64, float32, string or a list. Received: {column.type}.")
    width = sum(block.shape[1] for block in fixed)
    block = np.concatenate(fixed, axis=1).tobytes() if fixed else b""
    for row in range(table.num_rows):
        features = b"".join([block[row * width : (row + 1) * width], *[column(row) for column in variable]])
        yield b"\x0a" + _varint(len(features)) + features


def block(table: pa.Table, binary: Collection[str]) -> bytes:
    """Encode all rows as one `tf.train.Example` that holds columns, see `dlen_cam2.data.parsing`.

    Args:
        table: columns as for `examples`.
        binary: int64 columns of 0 and 1, which are written as single bytes.

    Raises:
        TypeError: a column has another type.
    """
    entries = []
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        if pa.types.is_list(column.type):
            lengths = np.diff(column.offsets.to_numpy()).astype("<i4")
            entries.append(_wrap((name + LENGTHS).encode(), _BYTES_LIST, _bytes_value(lengths.tobytes())))
            column = column.flatten()
            if pa.types.is_int64(column.type):
                column = pa.array(_rectangle(column.to_numpy(), lengths).ravel())
        if pa.types.is_string(column.type):
            encoded = column.dictionary_encode()
            values = [_bytes_value(v.encode()) for v in encoded.dictionary.to_pylist()]
            content = b"".join([values[c] for c in encoded.indices.to_numpy().tolist()])
        elif pa.types.is_int64(column.type):
            values = column.to_numpy()
            fits = not len(values) or -(2**31) <= values.min() and values.max() < 2**31
            name += "" if name in binary else NARROW if fits else WIDE
            content = _bytes_value(values.astype("u1" if name in binary else "<i4" if fits else "<i8").tobytes())
        elif pa.types.is_float32(column.type) and not pa.types.is_list(table.schema.field(name).type):
            content = _bytes_value(column.to_numpy().astype("<f4").tobytes())
        else:
            raise TypeError(f"column {name!r} must be int64, float32, string or a list. Received: {column.type}.")
        entries.append(_wrap(name.encode(), _BYTES_LIST, content))
    features = b"".join(entries)
    return b"\x0a" + _varint(len(features)) + features


def _rectangle(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Concatenated lists as rows that are padded with -1."""
    width = int(lengths.max(initial=0))
    out = np.full((len(lengths), width), -1, np.int64)
    out[np.arange(width) < lengths[:, None]] = values
    return out


@functools.lru_cache(maxsize=65536)
def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varints(values: np.ndarray) -> np.ndarray:
    """Every value as a varint, bytes (n, w), with the width w that the widest value needs."""
    bits = values.astype(np.uint64)
    width = max(1, -(-int(bits.max(initial=0)).bit_length() // 7))
    shifts = np.arange(width, dtype=np.uint64) * np.uint64(7)
    out = (bits[:, None] >> shifts & np.uint64(0x7F)).astype(np.uint8)
    out[:, :-1] |= 0x80
    return out


def _prefixed(head: bytes, payload: np.ndarray) -> np.ndarray:
    prefix = np.frombuffer(head, np.uint8)
    return np.concatenate([np.broadcast_to(prefix, (len(payload), len(prefix))), payload], axis=1)


def _entry_head(key: bytes, kind: int, payload: int) -> bytes:
    """The part of a map entry that comes before `payload` bytes of packed numbers."""
    values = b"\x0a" + _varint(payload)
    return _wrap(key, kind, values, payload)


def _wrap(key: bytes, kind: int, content: bytes, more: int = 0) -> bytes:
    """The map entry `key -> Feature{kind: content}`, leaving room for `more` bytes that follow `content`."""
    feature = bytes([kind]) + _varint(len(content) + more) + content
    body = b"\x0a" + _varint(len(key)) + key + b"\x12" + _varint(len(feature) + more) + feature
    return b"\x0a" + _varint(len(body) + more) + body


def _bytes_value(raw: bytes) -> bytes:
    return b"\x0a" + _varint(len(raw)) + raw


def _string_column(key: bytes, column: pa.Array) -> Callable[[int], bytes]:
    encoded = column.dictionary_encode()
    entries = [_wrap(key, _BYTES_LIST, _bytes_value(v.encode())) for v in encoded.dictionary.to_pylist()]
    codes = encoded.indices.to_numpy().tolist()
    return lambda row: entries[codes[row]]


def _int_list_column(key: bytes, column: pa.Array) -> Callable[[int], bytes]:
    offsets = column.offsets.to_numpy() - column.offsets[0].as_py()
    values = _varints(column.flatten().to_numpy())
    width = values.shape[1]
    payload, ends = values.tobytes(), (offsets * width).tolist()
    lengths = np.unique(np.diff(ends)).tolist()
    heads = {n: _entry_head(key, _INT64_LIST, n) if n else _wrap(key, _INT64_LIST, b"") for n in lengths}

    def entry(row: int) -> bytes:
        start, end = ends[row], ends[row + 1]
        return heads[end - start] + payload[start:end]

    return entry


def _string_list_column(key: bytes, column: pa.Array) -> Callable[[int], bytes]:
    offsets = (column.offsets.to_numpy() - column.offsets[0].as_py()).tolist()
    encoded = column.flatten().dictionary_encode()
    values = [_bytes_value(v.encode()) for v in encoded.dictionary.to_pylist()]
    codes = encoded.indices.to_numpy().tolist()
    return lambda row: _wrap(
        key, _BYTES_LIST, b"".join([values[c] for c in codes[offsets[row] : offsets[row + 1]]])
    )
