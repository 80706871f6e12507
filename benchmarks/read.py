"""python -m benchmarks.read --data_dir=DIR: rows/s of the reader, against what bounds it.

In one run, in turn, `--rounds` times each:

- parse: `tf.io.parse_example` alone, on serialised rows that lie in memory in batches (the ceiling);
- read: `dlen_cam2.data.read` from the shards in file order;
- shuffled: the same with shuffling, as training reads.
"""

import statistics
import time
from collections.abc import Callable, Iterable

import tensorflow as tf
from absl import flags

from dlen_cam2 import cli, data, schema_pbtxt

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "Data set that a pipeline wrote.", required=True)
    flags.DEFINE_integer("batch_size", 4096, "Rows of a batch.", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "Counted rounds, after one that is not.", lower_bound=1)


def main() -> None:
    directory = FLAGS.data_dir
    schema = schema_pbtxt.load(directory)
    days = list(data.statistics(directory)["days"])
    rows = sum(data.statistics(directory)["days"][day]["rows"] for day in days)
    batches = list(tf.data.TFRecordDataset(data.shards(directory, days)).batch(FLAGS.batch_size))
    parse = tf.function(lambda batch: data.parse_examples(batch, schema, labels=True), autograph=False)
    # Built once, as training does; a round is one pass.
    in_order = data.read(directory, schema, days, FLAGS.batch_size)
    shuffled = data.read(directory, schema, days, FLAGS.batch_size, shuffle=100_000)
    candidates: dict[str, Callable[[], Iterable]] = {
        "parse": lambda: map(parse, batches), "read": lambda: in_order, "shuffled": lambda: shuffled,
    }
    speeds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(FLAGS.rounds + 1):
        for name, make in candidates.items():
            start = time.perf_counter()
            for _ in make():
                pass
            speeds[name].append(rows / (time.perf_counter() - start))
    ceiling = statistics.median(speeds["parse"][1:])
    print(f"{rows:,} rows, {len(schema.columns)} columns, batches of {FLAGS.batch_size:,}; {FLAGS.rounds} rounds")
    for name, values in speeds.items():
        median = statistics.median(values[1:])
        print(f"{name:9} {median:10,.0f} rows/s (min {min(values[1:]):,.0f}, max {max(values[1:]):,.0f}), "
              f"{median / ceiling:.2f} of parse")


if __name__ == "__main__":
    cli.run(main, define_flags)
