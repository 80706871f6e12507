"""python -m benchmarks.steady --data_dir=DIR: do step time and memory grow while a job trains?

Trains `--steps` steps through the reader, with the callbacks and checkpoints of `dlen_cam2 train`, and prints for
each tenth of them the median milliseconds of a step and the memory; then how the last fifth compares with the second.
"""

import ctypes
import dataclasses
import pathlib
import statistics
import tempfile
import time
from typing import Any

import psutil
import tensorflow as tf
from absl import flags

from dlen_cam2 import data
from dlen_cam2.configs import quickstart_mmoe_dlen
from dlen_cam2.training import runs, train_request
from dlen_cam2.utils import commands

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "Data set of pipelines.simulate.", required=True)
    flags.DEFINE_integer("steps", 10_000, "Steps.", lower_bound=100)
    flags.DEFINE_integer("batch_size", 256, "Rows of a step.", lower_bound=1)


class Watch(tf.keras.callbacks.Callback):
    """Milliseconds of each step, and the process's memory every hundred steps."""

    def __init__(self) -> None:
        super().__init__()
        self.milliseconds: list[float] = []
        self.memory: list[int] = []
        self._process = psutil.Process()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.milliseconds.append(1e3 * (time.perf_counter() - self._start))
        if len(self.milliseconds) % 100 == 0:
            # Without what the allocator keeps for later, which says nothing about leaks.
            ctypes.CDLL(None).malloc_trim(0)
            self.memory.append(self._process.memory_info().rss)


def main() -> None:
    known = list(data.statistics(FLAGS.data_dir)["days"])
    days = [day for day in known if "_" not in day]
    rows = sum(data.statistics(FLAGS.data_dir)["days"][day]["rows"] for day in days[:-1])
    config = quickstart_mmoe_dlen.get_config()
    config.train = dataclasses.replace(
        config.train, batch_size=FLAGS.batch_size, bootstrap=0, epochs=-(-FLAGS.steps * FLAGS.batch_size // rows)
    )
    watch = Watch()
    with tempfile.TemporaryDirectory() as directory:
        wanted = train_request.once(
            config, FLAGS.data_dir, pathlib.Path(directory, "model"), f"{days[0]}..{days[-2]}", days[-1],
            checkpoint_steps=500,
        )
        runs.train(wanted, callbacks=[watch])
    tenth = len(watch.milliseconds) // 10
    for part in range(10):
        memory = watch.memory[len(watch.memory) * part // 10: len(watch.memory) * (part + 1) // 10]
        print(f"steps {part * tenth:,}..{(part + 1) * tenth:,}: "
              f"{statistics.median(watch.milliseconds[part * tenth: (part + 1) * tenth]):.2f} ms, "
              f"{max(memory) / 2**20:,.0f} MiB")
    early, late = watch.milliseconds[2 * tenth: 4 * tenth], watch.milliseconds[-2 * tenth:]
    count = len(watch.memory)
    ratio = statistics.median(late) / statistics.median(early)
    print(f"last fifth against the second: {ratio:.3f} times the step time, "
          f"{(max(watch.memory[-count // 5:]) - max(watch.memory[count // 5: 2 * count // 5])) / 2**20:+,.1f} MiB")


if __name__ == "__main__":
    commands.run(main, define_flags)
