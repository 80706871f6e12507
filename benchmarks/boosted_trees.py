"""python -m benchmarks.boosted_trees --data_dir=DIR --train_days=A..B --eval_days=C: LightGBM on the same features.

The trees of `dlen_cam2.experiments.baselines.boosted_trees`, without the networks of a suite. Prints a table of the
mean over seeds.
"""

import numpy as np
from absl import flags

from dlen_cam2 import data
from dlen_cam2.config import Config, replaced
from dlen_cam2.experiments.baselines import boosted_trees
from dlen_cam2.experiments.rows import Log
from dlen_cam2.metrics import auc, normalized_entropy
from dlen_cam2.schema import pbtxt
from dlen_cam2.utils import commands

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "Data set that a pipeline wrote.", required=True)
    flags.DEFINE_string("train_days", None, "Days to train on.", required=True)
    flags.DEFINE_string("eval_days", None, "Days to measure on, together.", required=True)
    flags.DEFINE_integer("seeds", 3, "Seeds.", lower_bound=1)


def main() -> None:
    known = list(data.statistics(FLAGS.data_dir)["days"])
    days = (tuple(data.parse_days(text, known)) for text in (FLAGS.train_days, FLAGS.eval_days))
    log = Log(FLAGS.data_dir, *days)
    found = [boosted_trees.train(replaced(Config(), {"train.seed": seed}), log) for seed in range(FLAGS.seeds)]
    print(f"LightGBM, {boosted_trees.ROUNDS} trees, mean (spread) over {FLAGS.seeds} seeds")
    print("| task | positives | AUC | NE |\n|---|---|---|---|", flush=True)
    for k, task in enumerate(pbtxt.load(FLAGS.data_dir).task_names):
        rows = found[0]["mask"][:, k] == 1
        labels = found[0]["labels"][rows, k]
        cells = []
        for metric in (auc, normalized_entropy):
            values = [metric(labels, arrays["probabilities"][rows, k]) for arrays in found]
            cells.append("undefined" if None in values else f"{np.mean(values):.4f} ({np.ptp(values):.4f})")
        print(f"| {task} | {int(labels.sum()):,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    commands.run(main, define_flags)
