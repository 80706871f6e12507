"""Logs of every format, with rows of every type, and what a data set of them holds."""

import csv
import dataclasses
import gzip
import io
import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dlen_cam2.data import manifest
from dlen_cam2.schema import Feature, Schema, Task, pbtxt
from pipelines.engines import connect
from pipelines.features.feed import COUNTERS, histories
from pipelines.from_logs import Roles
from pipelines.logs import conversion
from pipelines.logs.log_files import open_log
from pipelines.suggestion.suggest import suggest
from pipelines.writer import stored_rows

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
CITIES = ["Bonn", 'the "old" town', "two\nlines", "a, b; c|d", "Zürich 東京 🙂", "it's", " padded ", "back\\slash",
          "NULL", "null", "true", "007", "[x", "#1", "tab\there", None]


def log_rows(count=32, days=2, seed=0):
    """Rows of every type in time order, some with values that are missing where they may be."""
    rng = random.Random(seed)
    return [
        {
            "ts": START + i * days * DAY // count + i, "uid": 10**15 + i % 5, "vid": rng.randrange(9),
            "age": rng.choice([18, 99, -5, None]), "city": CITIES[i % len(CITIES)],
            "tags": rng.choice([None, [], ["a"], ["b", "a", "ü"], ['q"', "c,d"]]),
            "seen": rng.choice([None, [], [7], [1, 2, 999]]), "price": rng.choice([0.0, 1.5, 1e6]),
            "ctr": rng.choice([0.0, 0.25, 1.0]), "heat": rng.choice([-3.25, 0.0, 1e-9]), "is_click": rng.random() < 0.5,
            "is_like": rng.randrange(2), "shown": rng.randrange(2), "play_s": rng.random() * 60, "note": "not read",
        }
        for i in range(count)
    ]


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
            for table in stored_rows.tables(output, schema, split)
            for row in table.select(list(schema.columns)).to_pylist()]


def read_all(output):
    return [row for split in manifest.statistics(output)["days"] for row in read(output, split)]


def keyed(schema=SCHEMA, roles=ROLES):
    return conversion.with_keys(schema, roles)


def spaced(values):
    return " ".join(map(str, values))


SMALL = Schema("small", (Feature("vid", "int", "item", "content", min_count=1, width=2),), (Task("click"),))


def fed(count=60, days=3, seed=0):
    """A log with what counters are made of, by other names where tasks and roles give them."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        video = rng.randrange(6)
        rows.append({
            "ts": START + i * days * DAY // count // 60_000 * 60_000, "uid": rng.randrange(4), "vid": video,
            "author_id": video % 3, "topic": "ab"[video % 2], "tab": rng.randrange(2), "duration_s": 10.0 + video,
            "play_s": rng.random() * 20, "is_click": rng.randrange(2), "long_view": rng.randrange(2),
            "is_like": rng.randrange(2), "note": i,
        })
    for i in range(3, count, 7):
        rows[i]["ts"] = rows[i - 1]["ts"]
    return rows


def counters(columns, videos=0, **names):
    """The features of a feed that can be computed from these columns and tasks of a log, whose keys have other names.

    With `videos`, the histories are among them.
    """
    found = []
    for feature in (*COUNTERS, *(histories(videos) if videos else ())):
        c = feature.computed
        by, value = tuple(names.get(name, name) for name in c.by), names.get(c.value, c.value)
        c = dataclasses.replace(c, by=by, value=value)
        if set(c.columns) <= set(columns):
            found.append(dataclasses.replace(feature, computed=c))
    return tuple(found)


FED = ("uid", "video_id", "author_id", "topic", "tab", "duration_s", "play_s", "click", "long_view", "like")
COUNTED = Schema(
    "counted",
    (
        Feature("uid", "int", "user", "content", size=8, hashed=True, width=2),
        Feature("video_id", "int", "item", "content", size=9, width=16),
        Feature("note", "int", "item", "content", size=99, width=2),
        *counters(FED, 9, user_id="uid"),
    ),
    (Task("click", label="is_click"), Task("like", label="is_like")),
)
AT = Roles("ts", "uid", "video_id")


def named(rows):
    return [{"video_id" if name == "vid" else name: value for name, value in row.items()} for row in rows]


def varied(count=1500):
    """A log with one column for each rule of `suggest`."""
    rng = random.Random(0)
    return [
        {
            "ts": START + i * 60_000, "uid": (u := rng.randrange(40)), "vid": (v := rng.randrange(60)),
            "is_click": rng.randrange(2), "skip": int(rng.random() < 0.2), "flag": rng.randrange(2),
            "watch_time": rng.randrange(60_000), "city": f"city {u % 7}", "age": 20 + u, "fans_count": 10 ** (u % 7),
            "category": "abc"[v % 3], "item_ctr": round(v / 60, 3), "price": 2.0 ** (v % 17), "balance": u - 20.5,
            "tags": [f"t{v}", "common"][: 1 + v % 2], "session": f"s{i}", "hour": i // 60 % 24, "empty": None,
        }
        for i in range(count)
    ]


def proposed(path, *others):
    with connect("duckdb", path.parent / "out") as engine:
        paths = [path, *(path.with_name(name) for name in others)]
        return suggest(engine, open_log(engine, paths), "ts", "uid", "vid")
