"""Logs of every format, and what a data set of them holds."""

import csv
import gzip
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dlen_cam2.data import manifest
from dlen_cam2.schema import Feature, Schema, Task, pbtxt
from pipelines import from_logs, raw
from pipelines.from_logs import Roles

DAY = 86_400_000
START = 19107 * DAY  # 2022-04-25
ROLES = Roles("ts", "uid", "vid")
SCHEMA = Schema(
    "log",
    (
        Feature("uid", "int", "user", "content", size=64, hashed=True, width=4),
        Feature("vid", "int", "item", "content", min_count=1, oov_buckets=2, width=4),
        Feature("age", "int", "user", "content", size=100, width=2),
        Feature("city", "string", "user", "content", min_count=1, width=2),
        Feature("tags", "string", "item", "content", size=32, hashed=True, width=2, max_length=4),
        Feature("seen", "int", "user", "content", size=1000, width=4, max_length=3),
        Feature("price", "float", "item", "content", transform="log1p"),
        Feature("ctr", "float", "item", "statistical", transform="logit"),
        Feature("heat", "float", "context", "context"),
    ),
    (Task("click", label="is_click"), Task("like", label="is_like", mask="shown")),
    ("play_s",),
)
TYPES = {
    "city": pa.string(), "note": pa.string(), "tags": pa.list_(pa.string()), "seen": pa.list_(pa.int64()),
    "is_click": pa.bool_(),
    **dict.fromkeys(("price", "ctr", "heat", "play_s"), pa.float64()),
}


def write(path, rows, types=TYPES, lists=json.dumps):
    """A log in the format that the ending says; in CSV a list is what `lists` makes of it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".parquet":
        columns = {n: pa.array([row.get(n) for row in rows], types.get(n)) for n in names}
        pq.write_table(pa.table(columns), path)
        return path
    if "json" in path.name:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        def cell(value):
            if isinstance(value, list):
                return lists(value)
            return str(value).lower() if isinstance(value, bool) else value

        file = io.StringIO()
        writer = csv.writer(file, delimiter="\t" if ".tsv" in path.name else ",", lineterminator="\n")
        writer.writerows([names, *([cell(row.get(n)) for n in names] for row in rows)])
        text = file.getvalue()
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def kept(rows, schema=SCHEMA):
    """What a data set of these rows holds: the schema's columns, in its types, in the log's order."""
    absent = {"int": -1, "string": "", "float": None}
    lists = {f.name for f in schema.features if f.is_list}

    def value(name, dtype, found):
        if name in lists:
            return found or []
        if found is None:
            return absent[dtype]
        return float(np.float32(found)) if dtype == "float" else int(found) if dtype == "int" else found

    return [{name: value(name, dtype, row[name]) for name, dtype in schema.columns.items()} for row in rows]


def read(output, split):
    """The rows of a split, in their order."""
    def text(value):
        return [text(v) for v in value] if isinstance(value, list) else \
            value.decode() if isinstance(value, bytes) else value

    schema = pbtxt.load(output)
    return [{name: text(value) for name, value in row.items()}
            for table in raw.tables(output, schema, split) for row in table.select(list(schema.columns)).to_pylist()]


def read_all(output):
    return [row for split in manifest.statistics(output)["days"] for row in read(output, split)]


def keyed(schema=SCHEMA, roles=ROLES):
    return from_logs._with_keys(schema, roles)
