"""Fit monotone maps from each task's probability to a calibrated one, on a day of logs.

    dlen_cam2 calibrate --model_dir=DIR --data_dir=DIR --day=D --output=FILE.json [--measure_day=E]

Choose a day that the model was not trained on, and pass the maps to `dlen_cam2 export --calibration=FILE.json`. The
command prints what the maps change on that day and on `--measure_day`, which neither the model nor the maps have seen,
and draws `FILE.png`.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import flags

from dlen_cam2 import evaluation
from dlen_cam2.evaluation import Predictions
from dlen_cam2.labels.kind import binary
from dlen_cam2.metrics import calibration_curve
from dlen_cam2.schema import Schema
from dlen_cam2.serving.calibration import ENOUGH, METHODS, fit
from dlen_cam2.training import model_directory
from dlen_cam2.utils import commands, console
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.markdown import markdown

FLAGS = flags.FLAGS

Metrics = dict[str, Any]  # of a day, by task


def define_flags() -> None:
    flags.DEFINE_string("model_dir", None, "Directory of a model that dlen_cam2 train wrote.", required=True)
    flags.DEFINE_string("data_dir", None, "Directory of a data set that a pipeline wrote.", required=True)
    flags.DEFINE_string("day", None, "Day to fit on, later than the training days.", required=True)
    flags.DEFINE_string("measure_day", None, "A second day to measure on, which the maps were not fitted on.")
    flags.DEFINE_enum("method", "isotonic", list(METHODS), "Shape of the maps: a monotone curve, or a line in the "
                      "logit.")
    flags.DEFINE_string("output", None, "JSON file to write; the picture is written beside it.", required=True)


def main() -> None:
    output = pathlib.Path(FLAGS.output)
    if output.suffix != ".json":
        raise UserError(f"--output must end in .json. Received: {output}.")
    model = model_directory.load(FLAGS.model_dir)
    days = [FLAGS.day] + ([FLAGS.measure_day] if FLAGS.measure_day else [])
    if len({*days} - {*model.days}) < len(days):
        raise UserError(
            f"--day and --measure_day must be two days that the model was not trained on. Received: {days}; "
            f"trained on: {model.days}."
        )
    if not binary(model.schema):
        raise UserError(f"{FLAGS.model_dir} must have a task that is a probability to calibrate. Received: "
                        f"{list(model.schema.task_names)}, all numbers.")
    score = evaluation.scorer(model.network, model.read_out)
    before = {day: evaluation.predict(score, model.schema, FLAGS.data_dir, day) for day in days}
    calibration = fit(before[FLAGS.day], model.schema, FLAGS.method, FLAGS.day)
    tasks = model.schema.task_names
    after = {day: calibration.apply(predictions, tasks) for day, predictions in before.items()}
    output.parent.mkdir(parents=True, exist_ok=True)
    picture = output.with_suffix(".png")
    _draw(picture, model.schema, days[-1], before[days[-1]], after[days[-1]])
    calibration.save(output)
    metrics = {day: tuple(evaluation.evaluate(p[day], model.schema, bootstrap=0) for p in (before, after))
               for day in days}
    console.page(table(model.schema, metrics))
    for task in tasks:
        if task not in calibration.knots and not model.schema.tasks[tasks.index(task)].is_number:
            console.say(f"{task} is left uncalibrated: it has fewer than {ENOUGH} positives or {ENOUGH} negatives on "
                        f"{FLAGS.day}")
    console.say(f"calibration: {output}, picture: {picture}")
    worse = _worse(model.schema, *metrics[FLAGS.measure_day]) if FLAGS.measure_day else []
    if worse:
        console.warn(f"on {FLAGS.measure_day}, which was not fitted, calibration raises the NE of {', '.join(worse)}: "
                     "fit on more rows, try --method=platt, or export without it.")
    console.next_step(commands.line(
        "export", model_dir=FLAGS.model_dir, output=commands.SERVED, calibration=None if worse else output))


def _worse(schema: Schema, old: Metrics, new: Metrics) -> list[str]:
    """The tasks whose NE the calibration raises."""
    tasks = [schema.task_names[k] for k in binary(schema)]
    return [task for task in tasks if old[task]["ne"] is not None and new[task]["ne"] > old[task]["ne"]]


def table(schema: Schema, metrics: Mapping[str, tuple[Metrics, ...]]) -> str:
    """Every task on every day, uncalibrated → calibrated, as markdown."""
    lines = []
    for day, (old, new) in metrics.items():
        for task in (schema.task_names[k] for k in binary(schema)):
            cells = [
                "undefined" if old[task][name] is None else f"{old[task][name]:.4f} → {new[task][name]:.4f}"
                for name in ("auc", "ne", "calibration", "ece")
            ]
            lines.append([day, task, f"{old[task]['rows']:,}", f"{old[task]['positives']:,}", *cells])
    return markdown(["day", "task", "rows", "positives", "AUC", "NE", "calibration", "ECE"], lines)


def _draw(path: pathlib.Path, schema: Schema, day: str, before: Predictions, after: Predictions) -> None:
    """For each task the observed rate by predicted probability, uncalibrated and calibrated."""
    from matplotlib.figure import Figure

    places = binary(schema)
    columns = min(4, len(places))
    rows = -(-len(places) // columns)
    figure = Figure(figsize=(3.2 * columns, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for column, axis in zip(places, axes, strict=False):
        task = schema.tasks[column]
        shown = before.mask[:, column] == 1
        labels = before.labels[shown, column]
        bins = int(np.clip(labels.sum() // ENOUGH, 1, 10))  # few positives, few bins
        ends = [0.1]
        for predictions, name in ((before, "uncalibrated"), (after, "calibrated")):
            curve = calibration_curve(labels, predictions.probabilities[shown, column], bins)
            points = np.array([(b["predicted"], b["observed"]) for b in curve]).reshape(-1, 2)
            points = points[(points > 0).all(axis=1)]  # the axes are logarithmic
            axis.plot(*points.T, marker="o", markersize=3, linewidth=1, label=name)
            ends += points.ravel().tolist()
        decades = (10.0 ** np.floor(np.log10(min(ends))), 1.0)
        axis.plot(decades, decades, color="grey", linewidth=0.8, linestyle=":")
        axis.set(xscale="log", yscale="log", xlim=decades, ylim=decades)
        axis.set_title(f"{task.name}, {labels.sum():,.0f} positives", fontsize=10)
    for axis in axes[len(places):]:
        axis.remove()
    axes[0].legend(fontsize=8)
    figure.supxlabel("predicted", fontsize=10)
    figure.supylabel("observed", fontsize=10)
    figure.suptitle(f"Calibration on {day} (equal-mass bins)", fontsize=11)
    aside = path.with_name(f".{path.name}")
    figure.savefig(aside, format="png", dpi=110)
    aside.rename(path)


if __name__ == "__main__":
    commands.run(main, define_flags)
