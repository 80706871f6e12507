"""python -m benchmarks.precision --data_dir=DIR --train_days=A..B --eval_days=C: what mixed bfloat16 costs in quality.

Trains the quickstart's MMOE with float32 and with mixed bfloat16, from the same weights and on the same batches, for
each seed, and prints the AUC of every task, mean over seeds, and the paired differences. A processor without bfloat16
computes the same numbers, slowly.
"""

import dataclasses
import pathlib
import tempfile

import numpy as np
from absl import flags

from dlen_cam2.configs import quickstart_mmoe
from dlen_cam2.training import runs, train_request
from dlen_cam2.utils import commands
from dlen_cam2.utils.markdown import markdown

FLAGS = flags.FLAGS
PRECISIONS = ("float32", "mixed_bfloat16")


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "Data set of pipelines.simulate.", required=True)
    flags.DEFINE_string("train_days", None, "Days to train on.", required=True)
    flags.DEFINE_string("eval_days", None, "A day to measure on.", required=True)
    flags.DEFINE_integer("seeds", 5, "Seeds 0, 1, …", lower_bound=2)


def aucs(precision: str, seed: int) -> dict[str, float]:
    """AUC by task on the measured day."""
    config = quickstart_mmoe.get_config()
    config.train = dataclasses.replace(config.train, precision=precision, seed=seed, bootstrap=0)
    with tempfile.TemporaryDirectory() as home:
        model = pathlib.Path(home, "model")
        metrics = runs.train(train_request.once(config, FLAGS.data_dir, model, FLAGS.train_days, FLAGS.eval_days))
    (tasks,) = metrics.values()
    return {name: values["auc"] for name, values in tasks.items()}


def main() -> None:
    found = {p: [aucs(p, seed) for seed in range(FLAGS.seeds)] for p in PRECISIONS}
    names = list(found["float32"][0])
    by_task = {p: np.array([[each[name] for name in names] for each in found[p]]) for p in PRECISIONS}
    by_task = {p: np.column_stack([values, values.mean(axis=1)]) for p, values in by_task.items()}
    change = by_task["mixed_bfloat16"] - by_task["float32"]
    error = change.std(axis=0, ddof=1) / FLAGS.seeds**0.5
    rows = (
        [name, *(f"{by_task[p][:, k].mean():.5f}" for p in PRECISIONS), f"{change[:, k].mean():+.5f}",
         f"{error[k]:.5f}"]
        for k, name in enumerate([*names, "mean of the tasks"])
    )
    print(f"AUC, mean of {FLAGS.seeds} seeds\n\n"
          + markdown(["task", *PRECISIONS, "difference", "its standard error"], rows))


if __name__ == "__main__":
    commands.run(main, define_flags)
