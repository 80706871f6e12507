"""python -m benchmarks.read --data_dir=DIR: rows/s of the reader in both layouts, against what bounds it.

The rows of DIR, `--copies` times, are written in both layouts into a temporary directory. In one run, in turn,
`--rounds` times each, for each layout:

- memory: parse the columns of records that lie in memory (of rows: `tf.io.parse_example`);
- raw: the least tf.data that reads the files: records, batches, parse, prefetch;
- read: `dlen_cam2.data.read` in file order, with checks, indices and transforms;
- shuffled: the same with shuffling, as training reads.
"""

import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable

import tensorflow as tf
from absl import flags

from benchmarks.layouts import write_layouts
from dlen_cam2 import data
from dlen_cam2.data.parsing import chunk, open_shard, parser
from dlen_cam2.schema import pbtxt
from dlen_cam2.utils import commands

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "Data set that a pipeline wrote.", required=True)
    flags.DEFINE_integer("batch_size", 4096, "Rows of a batch.", lower_bound=1)
    flags.DEFINE_integer("copies", 4, "How often the rows are written.", lower_bound=1, upper_bound=31)
    flags.DEFINE_integer("rounds", 3, "Counted rounds, after one that is not.", lower_bound=1)


def candidates(directory: str) -> dict[str, tuple[int, Callable[[], Iterable]]]:
    """What to measure, by name: the rows of a pass, and the pass."""
    days = list(data.statistics(directory)["days"])
    schema = data.fit(directory, pbtxt.load(directory), days)
    found, first = data.shards(directory, days), data.shards(directory, days[:1])
    records = list(open_shard(list(first.paths), first.compression).batch(chunk(first.layout)))
    parse = tf.function(parser(schema, first.layout), autograph=False)
    # Built once, as training does.
    raw = data.raw_columns(found, schema)
    read = data.read(directory, schema, days, FLAGS.batch_size)
    shuffled = data.read(directory, schema, days, FLAGS.batch_size, shuffle=100_000)
    rows = sum(found.rows)
    return {
        "memory": (sum(first.rows), lambda: map(parse, records)), "raw": (rows, lambda: raw),
        "read": (rows, lambda: read), "shuffled": (rows, lambda: shuffled),
    }


def main() -> None:
    with tempfile.TemporaryDirectory(dir=pathlib.Path(FLAGS.data_dir).resolve().parent) as directory:
        layouts = {layout: candidates(path)
                   for layout, path in write_layouts(FLAGS.data_dir, pathlib.Path(directory), FLAGS.copies).items()}
        speeds: dict[tuple[str, str], list[float]] = {}
        for _ in range(FLAGS.rounds + 1):
            for layout, found in layouts.items():
                for name, (rows, make) in found.items():
                    start = time.perf_counter()
                    for _ in make():
                        pass
                    speeds.setdefault((layout, name), []).append(rows / (time.perf_counter() - start))
    medians = {key: statistics.median(values[1:]) for key, values in speeds.items()}
    print(f"median of {FLAGS.rounds} rounds, batches of {FLAGS.batch_size:,}")
    for (layout, name), values in speeds.items():
        median = medians[layout, name]
        print(f"{layout:8} {name:9} {median:12,.0f} rows/s (min {min(values[1:]):,.0f}, max {max(values[1:]):,.0f}), "
              f"{median / medians[layout, 'memory']:.2f} of memory, {median / medians[layout, 'raw']:.2f} of raw, "
              f"{median / medians['example', name]:.1f} times the rows of example")


if __name__ == "__main__":
    commands.run(main, define_flags)
