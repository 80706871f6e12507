"""python -m benchmarks.write --data_dir=DIR: rows/s of writing shards, against `tf.train.Example` row by row.

The rows of DIR become shards in a temporary directory, in one run, in turn, `--rounds` times each:

- rows: a `tf.train.Example` is built for each row in Python and written by `tf.io.TFRecordWriter`;
- example, block: `pipelines.writer.shards.write_shards`, in one process and in `--workers`, and compressed.
"""

import pathlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable

import pyarrow as pa
import tensorflow as tf
from absl import flags

from benchmarks.layouts import rows_of
from dlen_cam2.schema import pbtxt
from dlen_cam2.utils import commands
from pipelines.writer.shards import ROWS_PER_SHARD, Form, processes, write_shards

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "Data set that a pipeline wrote.", required=True)
    flags.DEFINE_integer("workers", 2, "Processes of the parallel candidates.", lower_bound=2)
    flags.DEFINE_integer("rows", 100_000, "Rows to write, at most.", lower_bound=1)
    flags.DEFINE_integer("rounds", 3, "Counted rounds, after one that is not.", lower_bound=1)


def row_by_row(table: pa.Table, path: str) -> None:
    """What a Python loop over rows costs."""
    names = table.column_names
    with tf.io.TFRecordWriter(path) as writer:
        for row in table.to_pylist():
            features = {}
            for name in names:
                values = row[name] if isinstance(row[name], list) else [row[name]]
                if values and isinstance(values[0], (bytes, str)):
                    texts = [v.encode() if isinstance(v, str) else v for v in values]
                    features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=texts))
                elif values and isinstance(values[0], float):
                    features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
                else:
                    features[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def main() -> None:
    schema = pbtxt.load(FLAGS.data_dir)
    table = rows_of(FLAGS.data_dir).slice(0, FLAGS.rows)
    table = pa.table({n: c.cast(_text(c.type)) for n, c in zip(table.column_names, table.columns, strict=True)})
    shards = [table.slice(start, ROWS_PER_SHARD) for start in range(0, len(table), ROWS_PER_SHARD)]

    with tempfile.TemporaryDirectory() as directory, processes(Form(workers=FLAGS.workers)) as pool:

        def ours(**how: object) -> Callable[[], object]:
            form = Form(**how)  # type: ignore[arg-type]

            def write() -> None:
                target = pathlib.Path(directory, "out")
                target.mkdir()
                write_shards(shards, target, "x", form, schema.binary_columns, pool if form.workers > 1 else None)
                shutil.rmtree(target)

            return write

        candidates: dict[str, Callable[[], object]] = {
            "rows": lambda: [row_by_row(t, f"{directory}/rows") for t in shards],
            "example": ours(), f"example, {FLAGS.workers} processes": ours(workers=FLAGS.workers),
            f"example, {FLAGS.workers} processes, GZIP": ours(workers=FLAGS.workers, compression="GZIP"),
            "block": ours(layout="block"),
            f"block, {FLAGS.workers} processes": ours(layout="block", workers=FLAGS.workers),
        }
        seconds: dict[str, list[float]] = {name: [] for name in candidates}
        for _ in range(FLAGS.rounds + 1):
            for name, write in candidates.items():
                start = time.perf_counter()
                write()
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    print(f"{len(table):,} rows, {len(table.column_names)} columns; median of {FLAGS.rounds} rounds")
    for name, median in medians.items():
        print(f"{name:30} {len(table) / median:10,.0f} rows/s, {medians['rows'] / median:.1f} times row by row")


def _text(dtype: pa.DataType) -> pa.DataType:
    if pa.types.is_list(dtype):
        return pa.list_(_text(dtype.value_type))
    return pa.string() if pa.types.is_binary(dtype) else dtype


if __name__ == "__main__":
    commands.run(main, define_flags)
