"""Compare models with the known truth of simulated data.

    dlen_cam2 compare_with_truth --data_dir=DIR --model_dirs=A,B --day=D --output=DIR

The command reads `truth.parquet`, beside the shards, and writes `recovery.md`, `recovery.html` and `recovery.png`:

- mean |p̂ - p|: the mean distance of a task's probability from the true one;
- P(UP): the AUC of the latent state against the true preference, and the share of the way from 0.5 to the AUC of the
  oracle (the true P(UP)) that it covers.
"""

import pathlib

import numpy as np
from absl import flags

from dlen_cam2 import evaluation
from dlen_cam2.evaluation import Predictions
from dlen_cam2.evaluation.truth import recovery, table, truth_at
from dlen_cam2.training import model_directory
from dlen_cam2.utils import commands, console, page
from dlen_cam2.utils.files import staged

FLAGS = flags.FLAGS

REPORT = "recovery.md"


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "Directory of a data set that pipelines.simulate wrote.", required=True)
    flags.DEFINE_list("model_dirs", None, "Directories of models that were trained on it, separated by commas.",
                      required=True)
    flags.DEFINE_string("day", None, "Day to measure on.", required=True)
    flags.DEFINE_string("output", None, "Directory to write recovery.md, recovery.html and recovery.png to.",
                        required=True)


def main() -> None:
    results, shown = {}, {}
    for directory in FLAGS.model_dirs:
        model = model_directory.load(directory)
        score = evaluation.scorer(model.network, model.read_out)
        predictions = evaluation.predict(score, model.schema, FLAGS.data_dir, FLAGS.day)
        truth = truth_at(FLAGS.data_dir, predictions.keys["time"])
        results[model.config.name] = recovery(predictions, model.schema, truth)
        shown[model.config.name] = (predictions, truth)
    text = table(results)
    with staged(FLAGS.output, REPORT) as stage:
        _draw(stage / "recovery.png", model.schema.task_names[0], shown)
        page.write(stage / REPORT, f"# Recovery of the truth on {FLAGS.day}\n\n{text}\n\n"
                                   "![predicted by true probability](recovery.png)\n")
    console.page(text)
    console.next_step(f"open {page.html_of(pathlib.Path(FLAGS.output, REPORT))}")


def _draw(path: pathlib.Path, task: str, shown: dict[str, tuple[Predictions, dict[str, np.ndarray]]]) -> None:
    """By decile of the truth: the first task's predicted probability, and P(UP), for each model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, (predictions, truth) in shown.items():
        left.plot(*_deciles(truth[f"p_{task}"], predictions.probabilities[:, 0]), marker="o", label=name)
        if predictions.p_up is not None:
            right.plot(*_deciles(truth["p_up"], predictions.p_up), marker="o", label=name)
    for axis, title in ((left, f"P({task}): predicted by true"), (right, "P(UP): predicted by true")):
        axis.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=0.8)
        axis.set(xlabel="true (means of deciles)", ylabel="predicted", title=title, xlim=(0, 1), ylim=(0, 1))
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def _deciles(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    parts = np.array_split(np.argsort(x, kind="stable"), 10)
    return np.array([x[p].mean() for p in parts]), np.array([y[p].mean() for p in parts])


if __name__ == "__main__":
    commands.run(main, define_flags)
