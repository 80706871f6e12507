"""A log whose columns a test chooses, and the schema that is proposed for it."""

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from dlen_cam2.schema import pbtxt
from pipelines.engines import connect
from pipelines.from_logs import Roles, convert
from pipelines.logs.log_files import open_log
from pipelines.suggestion.suggest import suggest

ROWS, USERS, ITEMS = 3000, 150, 100
DAY = 86_400_000
START = 20_000 * DAY  # 2024-10-04
rng = np.random.default_rng(0)
u, v = rng.integers(0, USERS, ROWS), rng.integers(0, ITEMS, ROWS)
ts = START + np.sort(rng.integers(0, 3 * DAY, ROWS))
chance = rng.random(ROWS)
click = rng.random(ROWS) < 0.3
cart = click & (rng.random(ROWS) < 0.4)
buy = cart & (rng.random(ROWS) < 0.5)


def save(path, columns):
    """A log of columns, which may be arrays or lists with None, as the ending says."""
    table = pa.table({name: pa.array(list(values)) for name, values in columns.items()})
    if path.suffix == ".csv":
        pc.write_csv(table, path, pc.WriteOptions(quoting_style="needed"))
    else:
        pq.write_table(table, path)
    return path


def proposed(path, time="ts", user="uid", item="vid", random=""):
    with connect("duckdb", path.parent / "out") as engine:
        schema, why = suggest(engine, open_log(engine, [path]), time, user, item, random)
    assert pbtxt.loads(pbtxt.dumps(schema)) == schema
    return schema, why


def found(tmp_path, ending=".parquet", **columns):
    """The proposal for a log of these columns beside time, user, item and click."""
    columns = {"ts": ts, "uid": u, "vid": v, "click": click} | columns
    schema, why = proposed(save(tmp_path / f"log{ending}", columns))
    assert set(why) == set(columns) - {"ts"} | {f.name for f in schema.features}
    return schema, why


def converted(tmp_path, ending=".parquet", **columns):
    """The same, and every row of the log can be converted with it."""
    schema, why = found(tmp_path, ending, **columns)
    statistics = convert(str(tmp_path / f"log{ending}"), schema, Roles("ts", "uid", "vid"), str(tmp_path / "out"))
    assert sum(day["rows"] for day in statistics["days"].values()) == ROWS
    return schema, why


def tasks(schema):
    return {t.label: (t.mask, t.negative) for t in schema.tasks}


def features(schema):
    """The proposed features that are columns of the log."""
    return {f.name: f for f in schema.features if not f.computed}


def computed(schema):
    """How the others are computed."""
    return {f.name: f.computed for f in schema.features if f.computed}


def texts(values):
    return [str(value) for value in values]


def some(values, share=0.1):
    """The values, of which a share is missing."""
    return [None if c < share else value for c, value in zip(chance, np.asarray(values).tolist(), strict=True)]
