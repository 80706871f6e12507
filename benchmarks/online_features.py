"""python -m benchmarks.online_features --data_dir=DIR: how long do the computed features of a request take?

Opens the newest snapshot of a data set of `pipelines.simulate` or `pipelines.kuairand`, and asks for the features of a
user's candidates, both drawn from the exposures that the snapshot keeps. After each request, the first candidate is
shown, and gets its feedback. It prints the milliseconds of each call, p50 and p99, and how long opening took.
"""

import pathlib
import tempfile
import time
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from absl import flags

from dlen_cam2.utils import commands, console
from dlen_cam2.utils.markdown import markdown
from pipelines.features.online import OnlineFeatures, stores

FLAGS = flags.FLAGS
WARM = 50


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "Data set with the feed's computed features.", required=True)
    flags.DEFINE_list("candidates", ["1", "100", "500", "2000"], "Numbers of candidates.")
    flags.DEFINE_integer("requests", 500, "Requests that are timed.", lower_bound=1)
    flags.DEFINE_float("fsync_s", 1.0, "Seconds between two flushes of the log to the disk.")


def requests(tail: dict[str, np.ndarray], features: OnlineFeatures, candidates: int) -> list[dict[str, float]]:
    """The milliseconds of the calls of each request."""
    rng = np.random.default_rng(0)
    user, item, clock = (features.schema.keys[role] for role in ("user", "item", "time"))
    columns = [c for c in tail if not c.startswith("__") and c not in features.feedback_columns]
    _, firsts = np.unique(tail[item], return_index=True)
    now, found = int(tail["__ts"].max()) + 1000, []
    for _ in range(WARM + FLAGS.requests):
        now += int(rng.integers(1, 60_000))
        rows = rng.choice(firsts, candidates, replace=candidates > len(firsts))
        asked = {c: tail[c][rows] for c in columns if c not in (user, "tab")}
        who, tab = tail[user][rng.integers(len(tail[user]))], int(rng.integers(3))
        times = [time.perf_counter()]
        features.features(who, asked, {"tab": tab}, now)
        times.append(time.perf_counter())
        exposure = {c: values[0] for c, values in asked.items()} | {user: who, "tab": tab, clock: now}
        number = features.update(exposure)
        times.append(time.perf_counter())
        played: dict[str, Any] = {c: int(rng.random() < 0.3) for c in features.feedback_columns}
        features.feedback(number, played | {"play_s": float(rng.uniform(0, 30))})
        times.append(time.perf_counter())
        found.append(dict(zip(("features", "update", "feedback"), 1e3 * np.diff(times), strict=True)))
    return found[WARM:]


def main() -> None:
    rows = []
    for number in map(int, FLAGS.candidates):
        with tempfile.TemporaryDirectory() as home:
            begun = time.perf_counter()
            store = stores.Directory(pathlib.Path(home) / "store", fsync_s=FLAGS.fsync_s)
            with OnlineFeatures.open(FLAGS.data_dir, store=store) as features:
                opened = time.perf_counter() - begun
                directory = pathlib.Path(FLAGS.data_dir) / "snapshots" / features.day
                table = pq.read_table(directory / "tail.parquet")
                tail = {name: table[name].to_numpy() for name in table.column_names}
                found = requests(tail, features, number)
        for call in ("features", "update", "feedback"):
            if call == "features" or number == int(FLAGS.candidates[-1]):
                p50, p99 = np.percentile([times[call] for times in found], [50, 99])
                rows.append([call, f"{number:,}" if call == "features" else "", f"{p50:.2f}", f"{p99:.2f}"])
    computed = sum(f.computed is not None for f in features.schema.features)
    console.say(f"{computed} computed features; opening the snapshot of {features.day} took {opened:.2f} s")
    console.page(markdown(["call", "candidates", "p50 ms", "p99 ms"], rows))


if __name__ == "__main__":
    commands.run(main, define_flags)
