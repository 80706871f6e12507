"""The log that tests damage, and its conversion, which they kill."""

import pathlib

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


def forked(directory, since):
    directory = pathlib.Path(directory)
    convert(str(directory / "in" / "*.parquet"), SCHEMA, ROLES, str(directory / "out"),
            how=Options(since=since, form=Form()))
