"""python -m benchmarks.feed --output=DIR: how long does a training step wait for its rows, which come from disk?

Rows of the yardstick (`benchmarks/yardstick.py`) are written as a data set in both layouts. In one run, by turns,
`--rounds` times, the same network trains on batches

- that lie in memory, made beforehand;
- of `dlen_cam2.data.read` with shuffling, as `dlen_cam2 train` reads.

"waiting" is the share of the time in which the training loop stands still until the next batch is there. Most of it is
the first window of a pass, half a second, so a pass should be as long as those over a day's log. On few cores reading
also takes time from the products, which the speed against that in memory shows.
"""

import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
from absl import flags

from benchmarks.contenders import ours
from benchmarks.yardstick import MODELS, SIZES, Batch, Request, batches
from dlen_cam2 import data
from dlen_cam2.config import Config, TrainConfig
from dlen_cam2.data.manifest import LAYOUTS
from dlen_cam2.schema import pbtxt
from dlen_cam2.training import jobs
from dlen_cam2.training.distribution import Place
from dlen_cam2.utils import commands
from dlen_cam2.utils.files import write_text
from dlen_cam2.utils.markdown import markdown
from pipelines.writer.dataset import write_dataset
from pipelines.writer.shards import Form

FLAGS = flags.FLAGS
WARM = 8


def define_flags() -> None:
    flags.DEFINE_string("output", None, "Directory for feed.md.", required=True)
    flags.DEFINE_enum("size", "yardstick", list(SIZES), "The yardstick, or a quick one to try.")
    flags.DEFINE_list("models", list(MODELS), "Of mmoe and ple.")
    flags.DEFINE_integer("batches", 240, "Batches of the data set.", lower_bound=WARM)
    flags.DEFINE_integer("steps", 240, "Steps that are timed, each time.", lower_bound=1)
    flags.DEFINE_integer("rounds", 3, "Times, by turns.", lower_bound=1)


def table_of(drawn: list[Batch]) -> pa.Table:
    """The rows as columns of the yardstick's schema."""
    ids, numbers, labels = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    columns = {f"s{n}": column + 1 for n, column in enumerate(ids.T)}
    columns |= {f"d{n}": column for n, column in enumerate(numbers.T)}
    return pa.table(columns | {f"t{n}": column.astype(np.int64) for n, column in enumerate(labels.T)})


def timed(step: Callable[[Any], Any], source: Iterator[Any], steps: int) -> tuple[float, float]:
    """Seconds of `steps` steps, and how many of them were spent waiting for a batch."""
    for _ in range(WARM):
        step(next(source))["loss"].numpy()
    waited, begun = 0.0, time.perf_counter()
    for _ in range(steps):
        start = time.perf_counter()
        batch = next(source)
        waited += time.perf_counter() - start
        step(batch)["loss"].numpy()
    return time.perf_counter() - begun, waited


def main() -> None:
    size = SIZES[FLAGS.size]
    drawn = batches(size, FLAGS.batches)
    head = ["", "", "rows/s (range)", "waiting", "of the speed in memory"]
    rows = []
    with tempfile.TemporaryDirectory() as home:
        for layout in LAYOUTS:
            directory = pathlib.Path(home, layout)
            write_dataset(directory, ours.schema(size), [("20240101", table_of(drawn))], {}, form=Form(layout))
        for model in FLAGS.models:
            config = Config("yardstick", ours.model_config(Request(model, FLAGS.size)), TrainConfig())
            job = jobs.assemble(config, "", ours.schema(size), {}, "fail", Place())
            step = tf.function(job.ranker.train_step, autograph=False)
            memory = [ours.features(batch) for batch in drawn[:8]]
            sources: dict[str, Callable[[], Any]] = {
                "in memory": lambda memory=memory: tf.data.Dataset.from_tensor_slices(
                    tf.nest.map_structure(lambda *parts: tf.stack(parts), *memory)
                ).repeat().prefetch(2)
            }
            for layout in LAYOUTS:
                path = pathlib.Path(home, layout)
                schema = data.fit(path, pbtxt.load(path), ["20240101"])
                sources[f"shards of {layout}s"] = lambda path=path, schema=schema: data.read(
                    path, schema, ["20240101"], size.batch, shuffle=100_000
                ).repeat()
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in sources}
            made = {name: iter(source()) for name, source in sources.items()}
            for turn in range(FLAGS.rounds):
                for name, source in made.items():
                    seconds, waited = timed(step, source, FLAGS.steps)
                    found[name].append((FLAGS.steps * size.batch / seconds, waited / seconds))
                    print(f"round {turn + 1} of {FLAGS.rounds}, {model}, {name}: {found[name][-1][0]:,.0f} rows/s, "
                          f"{found[name][-1][1]:.1%} waiting", flush=True)
            base = statistics.median(speed for speed, _ in found["in memory"])
            for name, figures in found.items():
                speeds, waits = zip(*figures, strict=True)
                rows.append([
                    model, name, f"{statistics.median(speeds):,.0f} ({min(speeds):,.0f} to {max(speeds):,.0f})",
                    f"{statistics.median(waits):.1%}", f"{statistics.median(speeds) / base:.2f}",
                ])
    text = f"# From disk to a step\n\nMedian of {FLAGS.rounds} times {FLAGS.steps} steps.\n\n{markdown(head, rows)}\n"
    pathlib.Path(FLAGS.output).mkdir(parents=True, exist_ok=True)
    write_text(pathlib.Path(FLAGS.output) / "feed.md", text)
    print(text)


if __name__ == "__main__":
    commands.run(main, define_flags)
