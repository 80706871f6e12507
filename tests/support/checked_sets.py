"""A small data set without any fault, and ways to damage it."""

import hashlib
import json

import numpy as np
import pyarrow as pa
import tensorflow as tf

from dlen_cam2.schema import Feature, Schema, Task
from pipelines.writer.dataset import write_dataset

DAYS = ("20240101", "20240102", "20240103")
ROWS = 600
HOSTILE = "<b>bold</b> & $x$"
SCHEMA = Schema("hand", (
    Feature("user", "int", "user", "content", size=50, width=2),
    Feature("city", "string", "user", "content", vocabulary=("a", "b", "c"), width=2),
    Feature("seen", "int", "user", "content", size=9, width=2, max_length=3),
    Feature("count", "float", "item", "statistical", transform="log1p"),
    Feature(HOSTILE, "float", "item", "statistical"),
), (Task("click"), Task("share", mask="click")), ("watch",), {"user": "user", "item": "item", "time": "ms"})


def tables():
    """Columns by day, without any fault."""
    rng = np.random.default_rng(0)
    return {day: {
        "user": rng.integers(0, 50, ROWS), "city": rng.choice(["a", "b", "c"], ROWS).tolist(),
        "seen": [rng.integers(0, 9, n).tolist() for n in rng.integers(0, 4, ROWS)],
        "count": rng.exponential(5, ROWS), HOSTILE: rng.normal(size=ROWS),
        "click": (rng.random(ROWS) < 0.3).astype(int), "share": (rng.random(ROWS) < 0.2).astype(int),
        "watch": rng.random(ROWS), "item": rng.integers(0, 99, ROWS), "ms": 1000 * index + np.arange(ROWS),
    } for index, day in enumerate(DAYS)}


def write(directory, columns, schema=SCHEMA):
    write_dataset(directory, schema, [(day, pa.table(c)) for day, c in columns.items()], {})
    return directory


def shard(directory, day=DAYS[1]):
    return directory / day / "hand.tfrecord-00000-of-00001"


def named(path):
    """What a shard is called in a report."""
    return f"{path.parent.name}/{path.name}"


def edit(path, change):
    """Apply `change` to the content of a JSON file: statistics.json, or a split's manifest."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def forge(path, change):
    """Rewrite a shard's records by `change`, and the manifest with it, as a wrong pipeline would."""
    records = change([r.numpy() for r in tf.data.TFRecordDataset(str(path))])
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    seal = {"rows": len(records), "bytes": path.stat().st_size, "sha256": digest}
    edit(path.parent / "_SUCCESS", lambda m: m.update(rows=len(records), shards={path.name: seal}))


def with_value(column, kind, value):
    """A change of records that sets `column` of the third row."""
    def change(records):
        example = tf.train.Example.FromString(records[2])
        getattr(example.features.feature[column], kind).value[:] = [value]
        return [*records[:2], example.SerializeToString(), *records[3:]]
    return change


def statuses(report):
    return {f.check: f.status for f in report.findings if f.status != "PASS"}


def faults(report, name):
    return " | ".join(next(f.line for f in report.findings if f.check == name).splitlines())
