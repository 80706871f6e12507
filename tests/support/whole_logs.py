"""A small log without a fault, what it becomes, and what lies in a directory."""

import pathlib

import pyarrow as pa

from dlen_cam2.schema import Feature, Schema, Task
from pipelines.from_logs import Roles, convert
from pipelines.options import Options
from pipelines.writer.shards import Form
from tests.support.logs import DAY, START

NOW = START + 30 * DAY
ROLES = Roles("ts", "uid", "vid", now_ms=NOW)
SCHEMA = Schema(
    "log",
    (
        Feature("uid", "int", "user", "content", size=64, hashed=True, width=4),
        Feature("vid", "int", "item", "content", min_count=1, width=4),
        Feature("age", "int", "user", "content", size=100, width=2),
        Feature("city", "string", "user", "content", min_count=1, width=2),
        Feature("seen", "int", "user", "content", size=1000, width=4, max_length=3),
        Feature("duration_s", "float", "item", "content", transform="log1p"),
        Feature("ctr", "float", "item", "statistical", transform="logit"),
    ),
    (Task("click", label="is_click"),),
    ("play_s",),
)
TYPES = {"seen": pa.list_(pa.int64()), "city": pa.string(),
         **dict.fromkeys(("duration_s", "ctr", "play_s"), pa.float64())}
ROWS = 20


def log_rows():
    return [
        {"ts": START + i * DAY // 10, "uid": i % 4, "vid": 10 + i, "age": 20 + i, "city": f"city {i % 3}",
         "seen": [1, 2], "duration_s": 10.5, "ctr": 0.25, "is_click": i % 2, "play_s": float(i)}
        for i in range(ROWS)
    ]


def content_of(directory):
    """Every file, hidden ones too."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def forked(directory, since):
    directory = pathlib.Path(directory)
    convert(str(directory / "in" / "*.parquet"), SCHEMA, ROLES, str(directory / "out"),
            how=Options(since=since, form=Form()))
