"""Compare models with the known truth of simulated data.

    dlen_cam2 compare_with_truth --data_dir=DIR --model_dirs=A,B --day=D --output=DIR

Reads `truth.parquet` beside the shards and writes `recovery.md` and `recovery.png`.

- mean |p̂ - p|: how far a task's probability is from the true one;
- P(UP): AUC of the latent state against the true preference, and the share of the way from 0.5 to the AUC of
  the oracle (the true P(UP)) that it covers.
"""

import pathlib
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from absl import flags

from dlen_cam2 import data, evaluation
from dlen_cam2.evaluation import Predictions
from dlen_cam2.evaluation.metrics import auc
from dlen_cam2.schema import Schema
from dlen_cam2.training import model_directory
from dlen_cam2.utils import commands
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import staged
from dlen_cam2.utils.markdown import markdown

FLAGS = flags.FLAGS

REPORT = "recovery.md"


def truth_at(directory: str, times: np.ndarray) -> dict[str, np.ndarray]:
    """The truth columns of the rows of these times, which are unique in a simulated log.

    Raises:
        UserError: the data set has no truth file, or a row is not in it.
    """
    path = pathlib.Path(directory) / data.TRUTH
    if not path.is_file():
        raise UserError(f"{path} does not exist: only data sets of pipelines.simulate have a known truth.")
    stored = pq.read_table(path)
    table = {name: stored.column(name).to_numpy() for name in stored.column_names if name != "split"}
    rows = np.searchsorted(table["time_ms"], times)
    rows = np.minimum(rows, len(table["time_ms"]) - 1)
    if not np.array_equal(table["time_ms"][rows], times):
        raise UserError(f"{path} lacks rows of the day: it belongs to another data set.")
    return {name: column[rows] for name, column in table.items()}


def recovery(predictions: Predictions, schema: Schema, truth: dict[str, np.ndarray]) -> dict[str, Any]:
    """`error`: {task: mean |p̂ - p|} and its mean over tasks; with a latent state `p_up`, `oracle`, `way`."""
    error = {
        task: float(np.mean(np.abs(predictions.probabilities[:, i] - truth[f"p_{task}"])))
        for i, task in enumerate(schema.task_names)
    }
    result: dict[str, Any] = {"error": error, "mean_error": float(np.mean(list(error.values())))}
    if predictions.p_up is not None:
        oracle = auc(truth["preferred"], truth["p_up"])
        found = auc(truth["preferred"], predictions.p_up)
        if oracle is not None and found is not None:
            result |= {"p_up": found, "oracle": oracle, "way": (found - 0.5) / (oracle - 0.5)}
    return result


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "Data set that pipelines.simulate wrote.", required=True)
    flags.DEFINE_list("model_dirs", None, "Models trained on it.", required=True)
    flags.DEFINE_string("day", None, "Day to measure on.", required=True)
    flags.DEFINE_string("output", None, "Directory for recovery.md and recovery.png.", required=True)


def main() -> None:
    results, shown = {}, {}
    for directory in FLAGS.model_dirs:
        model = model_directory.load(directory)
        score = evaluation.scorer(model.network, model.schema)
        predictions = evaluation.predict(score, model.schema, FLAGS.data_dir, FLAGS.day)
        truth = truth_at(FLAGS.data_dir, predictions.keys["time"])
        results[model.config.name] = recovery(predictions, model.schema, truth)
        shown[model.config.name] = (predictions, truth)
    text = table(results)
    with staged(FLAGS.output, REPORT) as stage:
        _draw(stage / "recovery.png", model.schema.task_names[0], shown)
        (stage / REPORT).write_text(f"# Recovery of the truth on {FLAGS.day}\n\n{text}\n\n![](recovery.png)\n")
    print(text)
    print(f"picture: {pathlib.Path(FLAGS.output) / 'recovery.png'}")


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results as a markdown table, a model a row; "error" is the mean |p̂ - p|."""
    tasks = list(next(iter(results.values()))["error"])
    # No bars in a head: markdown would read them as columns.
    head = ["model", *[f"error {t}" for t in tasks], "mean", "AUC P(UP)", "oracle", "share of the way"]
    lines = []
    for name, r in results.items():
        latent = [f"{r['p_up']:.4f}", f"{r['oracle']:.4f}", f"{r['way']:.1%}"] if "way" in r else ["", "", ""]
        lines.append([name, *[f"{r['error'][t]:.4f}" for t in tasks], f"{r['mean_error']:.4f}", *latent])
    return markdown(head, lines)


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
