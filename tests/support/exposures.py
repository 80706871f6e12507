"""Random exposures, their features by the SQL, and the same by a slow reference."""

import contextlib
import math
import pathlib
import tempfile

import numpy as np
import pyarrow as pa
import pytest

from dlen_cam2.schema import Feature, Schema, Task
from pipelines import engines
from pipelines.features.feed import COUNTERS, histories
from pipelines.features.point_in_time import splits

HOUR = 3_600_000
START = 457_000 * HOUR
TYPES = {
    "row": pa.int64(),
    "split": pa.string(),
    "topic": pa.string(),
    "duration_s": pa.float64(),
    "play_s": pa.float64(),
}
FEEDBACK = ("click", "long_view", "like", "profile_enter")
INPUTS = (
    "row",
    "split",
    "time_ms",
    "user_id",
    "video_id",
    "author_id",
    "topic",
    "tab",
    "duration_s",
    "play_s",
    *FEEDBACK,
)
SCHEMA = Schema(
    "log",
    (
        *COUNTERS,
        *histories(9),
        *(Feature(name, "int", "item", "content", size=9, width=1) for name in ("row", "author_id", "tab")),
        Feature("topic", "string", "item", "content", size=9, hashed=True, width=1),
        *(Feature(name, "float", "item", "content") for name in ("duration_s", "play_s")),
    ),
    tuple(map(Task, FEEDBACK)),
    keys={"user": "user_id", "item": "video_id", "time": "time_ms"},
)


def random_log(seed, rows=220, users=3, videos=6, moments=60, older=0.15, durations=False):
    """Few users and few distinct times, so ties abound; some rows are older exposures (split None)."""
    rng = np.random.default_rng(seed)
    times = START + np.sort(rng.integers(0, 5 * HOUR, moments))
    times[1::7] = times[::7][:len(times[1::7])] + HOUR  # just at, and next to, the edge of the hour's window
    times[2::7] = times[::7][:len(times[2::7])] + HOUR + 1
    log = []
    for row in range(rows):
        video = int(rng.integers(videos))
        log.append(
            {
                "row": row,
                "split": str(rng.choice(["d1", "d1_random", "d2"])),
                "time_ms": int(rng.choice(times)),
                "user_id": int(rng.integers(users)),
                "video_id": video,
                "author_id": video % 3 - 1,
                "topic": "ab"[video % 2] * (video != 5),
                "tab": int(rng.integers(2)),
                "duration_s": float(rng.uniform(1, 60)),
                "play_s": float(rng.uniform(0, 90)),
                **{name: int(rng.random() < p) for name, p in zip(FEEDBACK, (0.5, 0.4, 0.3, 0.1), strict=True)},
            }
        )
        if rng.random() < older:
            unknown = ("split", "tab", "play_s", "click", "profile_enter")
            log[-1] |= dict.fromkeys(unknown if durations else (*unknown, "duration_s"))
    return log


def long_log(seed, days=4, **how):
    """Several days, each of which begins three hours before the one before it ends, so most counters are closed."""
    log = random_log(seed, **how)
    rng = np.random.default_rng(seed)
    for e in log:
        if e["split"] is None:
            e["time_ms"] -= int(rng.choice([2, 30, 90])) * HOUR
            continue
        day = int(rng.integers(days))
        e["time_ms"] = START + 24 * HOUR * day + (e["time_ms"] - START) * 28 // 6 - 3 * HOUR
        e["split"] = f"d{day}" + "_random" * int(rng.random() < 0.2)
    return log


@contextlib.contextmanager
def connected(log):
    """An engine with the table `exposures`."""
    columns = {name: pa.array([e[name] for e in log], TYPES.get(name, pa.int64())) for name in INPUTS}
    with tempfile.TemporaryDirectory() as home, engines.connect("duckdb", pathlib.Path(home) / "out") as engine:
        engine.put("exposures", pa.table(columns))
        yield engine


def compute(log, snapshots=None, saved=None, since=""):
    """{row: {column: value}} as the product computes it, and the splits in the order in which they come."""
    with connected(log) as engine:
        snapshots = snapshots or engine.directory / "snapshots"
        found = [(split, rows.read_all()) for split, rows in splits(
            engine, SCHEMA, snapshots, saved, since, unknown=("click", "profile_enter", "play_s"))]
    rows = {}
    for split, table in found:
        assert table.column_names == list(SCHEMA.columns)
        order = [(row["time_ms"], row["user_id"], row["video_id"]) for row in table.to_pylist()]
        assert order == sorted(order)
        for row in table.to_pylist():
            lists = {f.name: row[f.name] or [] for f in histories(1)}  # null is an empty list, see write_dataset
            rows[row["row"]] = row | lists | {"split": split}
    return rows, [split for split, _ in found]


def day_of(e):
    """Days stand in the order of their names; what is older than all days is before them."""
    return e["split"].split("_")[0] if e["split"] is not None else ""


def milliseconds(seconds):
    return math.floor(seconds * 1000 + 0.5)


def reference(log, e):
    """The features of the exposure `e`, by their definition: a loop over the rows that are strictly earlier.

    A row of a later day is not known yet, whatever its time.
    """
    known_by_then = [o for o in log if day_of(o) <= day_of(e)]
    before = [o for o in known_by_then if o["time_ms"] < e["time_ms"]]
    hours = [o for o in known_by_then if o["time_ms"] // HOUR < e["time_ms"] // HOUR]

    def count(rows, name):
        return sum(o[name] or 0 for o in rows)

    def known(rows, name):
        return sum(o[name] is not None for o in rows)

    base = {name: (count(hours, name) + 1) / (known(hours, "long_view" if name == "like" else name) + prior)
            for name, prior in zip(FEEDBACK, (2, 2, 20, 20), strict=True)}
    users = [o for o in before if o["user_id"] == e["user_id"]]
    of = {
        "user": users,
        "video": [o for o in before if o["video_id"] == e["video_id"]],
        "author": [o for o in before if o["author_id"] == e["author_id"]],
        "user_tab": [o for o in users if o["tab"] == e["tab"]],
        "user_topic": [o for o in users if o["topic"] == e["topic"]],
        "user_author": [o for o in users if o["author_id"] == e["author_id"]],
        "user_video": [o for o in users if o["video_id"] == e["video_id"]],
        "user_hour": [o for o in users if e["time_ms"] - o["time_ms"] <= HOUR],
    }
    out = {}
    for who, rows in of.items():
        out |= {f"{who}_impressions": len(rows), f"{who}_logged": known(rows, "click")}
        out |= {f"{who}_{name}s": count(rows, name) for name in FEEDBACK}
    for who, k, rare in (("user", 10, 30), ("video", 20, 50), ("author", 20, 50)):
        for name, weight in zip(FEEDBACK, (k, k, rare, rare), strict=True):
            shown = known(of[who], "click") if name in ("click", "profile_enter") else len(of[who])
            out[f"{who}_{name}_rate"] = (count(of[who], name) + weight * base[name]) / (shown + weight)
    for who, seconds in (("user", 30), ("video", 150)):
        seen = [o for o in of[who] if o["play_s"] is not None]
        played = sum(milliseconds(min(o["play_s"], o["duration_s"])) for o in seen)
        offered = sum(milliseconds(o["duration_s"]) for o in seen)
        out[f"{who}_play_ratio"] = (played + 1000 * seconds) / (offered + 1000 * seconds / 0.3)
    for who, k, rare, shown in (("user_tab", 5, 20, "logged"), ("user_topic", 3, 10, "impressions")):
        for name, weight in zip(FEEDBACK[:3], (k, k, rare), strict=True):
            n = out[f"{who}_logged"] if name == "click" else out[f"{who}_{shown}"]
            out[f"{who}_{name}_rate"] = (count(of[who], name) + weight * out[f"user_{name}_rate"]) / (n + weight)
    out["user_idle_s"] = (e["time_ms"] - max(o["time_ms"] for o in users)) / 1000 if users else 864_000.0
    newest = sorted(users, key=lambda o: (-o["time_ms"], -o["video_id"]))
    for name, keep in (("watched", None), ("long_viewed", "long_view"), ("liked", "like")):
        out[name] = [o["video_id"] for o in newest if keep is None or o[keep] == 1][:20]
    return out


LOGS = {
    "no older": lambda: random_log(0, older=0.0), "logistic": lambda: random_log(1),
    "one user": lambda: random_log(2, rows=400, users=1), "ties": lambda: random_log(3, moments=8),
    "sparse": lambda: random_log(4, rows=30, users=8), "again": lambda: random_log(5),
    "days": lambda: long_log(6, rows=250), "days of one user": lambda: long_log(7, rows=320, users=1),
    "plays that are not known of known videos": lambda: random_log(10, older=0.3, durations=True),
    "many days": lambda: long_log(8, days=9, rows=200), "days with ties": lambda: long_log(9, moments=12),
}


def features(row):
    return {name: value for name, value in row.items() if name not in INPUTS}


def same(a, b):
    """Equal but for the last bits of a sum of floats."""
    return a.keys() == b.keys() and all(
        a[n] == pytest.approx(b[n], rel=1e-12) if isinstance(a[n], float) else a[n] == b[n] for n in a
    )


def one(row, time=0, user=1, video=1, **changes):
    return {
        "row": row,
        "split": "d",
        "time_ms": START + time,
        "user_id": user,
        "video_id": video,
        "author_id": video,
        "topic": "a",
        "tab": 0,
        "duration_s": 10.0,
        "play_s": 5.0,
        **dict.fromkeys(FEEDBACK, 0),
    } | changes
