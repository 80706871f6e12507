"""python -m benchmarks.vocabulary: what a training step costs with tables of 10k to 10M rows.

MMOE on batches that lie in memory, with `--features` categorical features, each with a table of its own; ids are
uniform over the vocabulary. For each size one process after another runs `--rounds` times; their medians are compared.
"""

import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import tensorflow as tf
from absl import flags

from dlen_cam2 import cli
from dlen_cam2.config import ModelConfig, TrainConfig
from dlen_cam2.models import build
from dlen_cam2.optimizers import composite
from dlen_cam2.ranker import Ranker
from dlen_cam2.schema import Feature, Schema, Task

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_list("sizes", ["10000", "100000", "1000000", "10000000"], "Rows of the first feature's table.")
    flags.DEFINE_integer("features", 8, "Categorical features; all but the first have 10k rows.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 4096, "Rows of a step.", lower_bound=1)
    flags.DEFINE_integer("steps", 40, "Steps that are timed in a process.", lower_bound=3)
    flags.DEFINE_integer("rounds", 3, "Processes for each size.", lower_bound=1)
    flags.DEFINE_integer("child", 0, "Used by the command itself: time this size.")


def measure(size: int) -> dict[str, float]:
    """Median seconds of a step, and the process's peak memory in bytes."""
    sizes = [size] + [10_000] * (FLAGS.features - 1)
    features = tuple(Feature(f"f{n}", "int", "user", "content", size=rows, width=16) for n, rows in enumerate(sizes))
    schema = Schema("vocabulary", features, (Task("click", positive_rate=0.3), Task("like", positive_rate=0.1)))
    network = build(ModelConfig(expert_units=(128, 64)), schema)
    ranker = Ranker(network, schema)
    ranker.compile(optimizer=composite(network, TrainConfig()))
    rng = np.random.default_rng(0)
    batches = []
    for _ in range(8):
        ids = {f.name: tf.constant(rng.integers(1, f.size, FLAGS.batch_size)) for f in features}
        labels = {t.name: tf.constant(rng.integers(0, 2, FLAGS.batch_size), tf.float32) for t in schema.tasks}
        batches.append(({"user_content": ids}, labels))
    step = tf.function(ranker.train_step)
    for batch in batches:
        step(batch)
    seconds = []
    for number in range(FLAGS.steps):
        start = time.perf_counter()
        step(batches[number % len(batches)])["loss"].numpy()
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds), "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def main() -> None:
    if FLAGS.child:
        print(json.dumps(measure(FLAGS.child)))
        return
    sizes = [int(size) for size in FLAGS.sizes]
    found: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    for _ in range(FLAGS.rounds):
        for size in sizes:
            command = [sys.executable, "-m", "benchmarks.vocabulary", f"--child={size}", f"--steps={FLAGS.steps}",
                       f"--batch_size={FLAGS.batch_size}", f"--features={FLAGS.features}"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[size].append(json.loads(done.stdout.splitlines()[-1]))
    base = statistics.median(m["seconds"] for m in found[sizes[0]])
    print(f"batch {FLAGS.batch_size:,}, {FLAGS.features} features, median of {FLAGS.rounds} processes")
    for size, measured in found.items():
        seconds = statistics.median(m["seconds"] for m in measured)
        print(f"{size:12,} rows: {seconds * 1e3:7.2f} ms a step, {seconds / base:.2f} times the smallest, "
              f"peak {max(m['bytes'] for m in measured) / 2**30:.2f} GiB")


if __name__ == "__main__":
    cli.run(main, define_flags)
