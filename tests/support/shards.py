"""A small data set with a column of every kind, and its shards."""

import json

import numpy as np
import pyarrow as pa
import pytest

from dlen_cam2 import data
from dlen_cam2.schema import Feature, Schema, Task
from pipelines.writer import dataset, shards
from pipelines.writer.shards import Form

import tensorflow as tf  # isort: skip

ROWS = {"1": 23, "2": 11, "2_random": 4}
SCHEMA = Schema("tiny", (
    Feature("user", "int", "user", "content", size=5, width=2),
    Feature("device", "int", "user", "content", size=11, hashed=True, width=2),
    Feature("city", "string", "user", "content", vocabulary=("Zürich", "東京"), width=2),
    Feature("word", "string", "item", "content", size=7, hashed=True, width=2),
    Feature("seen", "int", "user", "content", size=9, width=2, max_length=3),
    Feature("tags", "string", "item", "content", vocabulary=("a", "b"), width=2, max_length=2),
    Feature("count", "float", "item", "statistical", transform="log1p", mean=0.5, std=2.0),
    Feature("seconds", "float", "context", "context", mean=10.0, std=4.0),
), (Task("click"), Task("share", mask="shareable")), ("seconds", "watch"), {"user": "user", "time": "ms"})


def table(rows, seed):
    rng = np.random.default_rng(seed)
    lists = [[int(v) for v in rng.integers(-1, 12, n)] for n in rng.integers(0, 6, rows)]
    return pa.table(
        {
            "user": rng.integers(-2, 8, rows),
            "device": rng.integers(-1, 2**62, rows),
            "city": rng.choice(["Zürich", "東京", "", "Bern"], rows).tolist(),
            "word": rng.choice(["x", "", "快手"], rows).tolist(),
            "seen": pa.array(lists, pa.list_(pa.int64())),
            "tags": pa.array([["a", "b", "q", ""][:n] for n in rng.integers(0, 4, rows)], pa.list_(pa.string())),
            "count": rng.integers(0, 50, rows).astype(np.float32),
            "seconds": rng.uniform(0, 60, rows).astype(np.float32),
            "click": rng.integers(0, 2, rows),
            "share": rng.integers(0, 2, rows),
            "shareable": rng.integers(0, 2, rows),
            "watch": rng.uniform(0, 9, rows).astype(np.float32),
            "ms": 2**60 + 1000 * seed + np.arange(rows),
        }
    )


TABLES = {split: table(rows, i) for i, (split, rows) in enumerate(ROWS.items())}


def write(directory, form=Form(), rows=4, block=3):  # noqa: B008
    """Days 1, 2 and 2_random in 6, 3 and 1 shards; a shard of the block layout has a record of 3 rows and one of 1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "ROWS_PER_SHARD", rows)
        patch.setattr(shards, "ROWS_PER_BLOCK", block)
        dataset.write_dataset(directory, SCHEMA, TABLES.items(), {}, form=form)
    return directory


def times(batches):
    return [int(t) for _, labels in batches for t in labels["ms"]]


def written(*splits):
    return [t for s in splits for t in TABLES[s].column("ms").to_pylist()]


def splitmix(value, buckets):
    if value < 0:
        return 0
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        value = (value ^ value >> shift) * factor % 2**64
    return 1 + (value >> 1) % buckets


def plain(batches):
    """Every row as plain values: bytes of numbers, so that equal means equal to the last bit.

    Not of features that are logarithms: those of a long column are computed by other instructions than the last few.
    """
    rows = []
    for features, labels in batches:
        columns = [np.round(features["item_statistical"].pop("count"), 4) + 0.0]
        columns += [column.numpy() for column in tf.nest.flatten((features, labels))]
        rows += [tuple(column[row].tobytes() for column in columns) for row in range(len(columns[0]))]
    return rows


def shard(stored, index=2, day="1"):
    return sorted((stored / day).glob("tiny.tfrecord-*"))[index]


def resized(path, rows=None):
    """Make the split's manifest agree with the size of the shard on disk (and with its rows)."""
    manifest = path.parent / "_SUCCESS"
    content = json.loads(manifest.read_text())
    entry = content["shards"][path.name]
    entry["bytes"] = path.stat().st_size
    if rows is not None:
        content["rows"] += rows - entry["rows"]
        entry["rows"] = rows
    manifest.write_text(json.dumps(content))


def run(stored, schema=SCHEMA):
    with data.explained(stored, schema, ["1"]):
        return times(data.read(stored, schema, ["1"], 8, shuffle=8))


def boundary(content):
    """Where the second record of a shard begins: length (8), its checksum (4), data, its checksum (4)."""
    return int.from_bytes(content[:8], "little") + 16


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)


def rewrite(stored, **changes):
    """Write the third shard anew, its second record changed: {column: value, or None to leave it out}."""
    path = shard(stored)
    records = [tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(path))]
    for name, value in changes.items():
        columns = records[1].features.feature
        del columns[name]
        if value is not None:
            kind = {int: "int64_list", float: "float_list", bytes: "bytes_list"}[type(value)]
            getattr(columns[name], kind).value.append(value)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record.SerializeToString())
    resized(path)
    return path.name
