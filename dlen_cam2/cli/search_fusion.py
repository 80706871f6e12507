"""Search for the best weights of the fused score.

    dlen_cam2 search_fusion --model_dir=M --data_dir=D --day=A --measure_day=B --maximize=ndcg/long_view \\
        --subject_to='rate/hate<=baseline' --output=DIR

The command ranks the exposures of `--day` again for each user, and writes to DIR:

- fusion.json: the best weights that keep the constraints, for `dlen_cam2 export` and `dlen_cam2 change_fusion`;
- fusion.md, fusion.html: every goal under the baseline and under these weights, on both days, with the change and its
  interval;
- trade_off.png: all fusions that were tried; trials.csv: the same as numbers.

The constraints are kept on `--day`. The last rows of the table show whether they also hold on `--measure_day`, which
nothing was fitted on. Nothing is written if no weights keep the constraints.
"""

import csv
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl import flags

from dlen_cam2 import evaluation
from dlen_cam2.evaluation.bootstrap import Resamples, percent
from dlen_cam2.serving.calibration import Calibration
from dlen_cam2.serving.fusion import FORMS, Fusion
from dlen_cam2.serving.fusion_search import Constraint, Day, Goal, Space, Trial, search
from dlen_cam2.training import model_directory
from dlen_cam2.utils import commands, console, page
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import replaceable, staged
from dlen_cam2.utils.markdown import markdown

FLAGS = flags.FLAGS

FUSION = "fusion.json"
PAGE = "fusion.md"


def define_flags() -> None:
    flags.DEFINE_string("model_dir", None, "Directory of a model that dlen_cam2 train wrote.", required=True)
    flags.DEFINE_string("data_dir", None, "Directory of a data set that a pipeline wrote.", required=True)
    flags.DEFINE_string("day", None, "Day to search on, later than the training days.", required=True)
    flags.DEFINE_string("measure_day", None, "A second day to measure on, which was not searched on; required.",
                        required=True)
    flags.DEFINE_string("maximize", None, "Goal to maximize: ndcg/<task> or rate/<task>.", required=True)
    flags.DEFINE_multi_string(
        "subject_to", None, "Constraint: a goal, <= or >=, and a number or the word baseline; required. The flag may "
        "be repeated, and each constraint gets a panel of the picture.", required=True,
    )
    flags.DEFINE_list("scores", None, "Scores to weight, separated by commas. Default: the tasks that are "
                      "probabilities.")
    flags.DEFINE_string("baseline", None, "JSON file of the fusion to compare with. Default: the product of all tasks "
                        "that are probabilities.")
    flags.DEFINE_string("calibration", None, "JSON file that dlen_cam2 calibrate wrote. Default: no calibration.")
    flags.DEFINE_enum("form", "product", FORMS, "Form of the fused score: a product of powers, or a weighted sum.")
    flags.DEFINE_integer("top", 10, "Number of first ranks of each user that count.", lower_bound=1)
    flags.DEFINE_integer("trials", 3000, "Approximate number of fusions to try.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Seed of the search and of the bootstrap.", lower_bound=0)
    flags.DEFINE_string("output", None, "Directory to write the report and the files to.", required=True)


def main() -> None:
    replaceable(FLAGS.output, FUSION)
    model = model_directory.load(FLAGS.model_dir)
    schema = model.schema
    names = [FLAGS.day, FLAGS.measure_day]
    if names[0] == names[1] or set(names) & set(model.days):
        raise UserError(f"--day and --measure_day must be two days that the model was not trained on. "
                            f"Received: {names}; trained on: {model.days}.")
    maximize = Goal.parse(FLAGS.maximize, schema)
    constraints = [Constraint.parse(text, schema) for text in FLAGS.subject_to]
    goals = list(dict.fromkeys([maximize, *(c.goal for c in constraints)]))
    baseline = Fusion.load(FLAGS.baseline) if FLAGS.baseline else Fusion.default(schema.tasks)
    score = evaluation.scorer(
        model.network, model.read_out, Calibration.load(FLAGS.calibration) if FLAGS.calibration else None
    )
    days = {}
    for name in names:
        predictions = evaluation.predict(score, schema, FLAGS.data_dir, name)
        try:
            days[name] = Day(predictions, schema, goals, FLAGS.top)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
    day = days[FLAGS.day]
    baseline.checked(list(day.scores), day.ranges)
    weighed = FLAGS.scores or [task.name for task in schema.tasks if not task.is_number] or schema.task_names
    space = Space(day, FLAGS.form, weighed)
    best, trials = search(day, space, baseline, maximize, constraints, FLAGS.trials, FLAGS.seed)
    text = "\n\n".join([table(days, baseline, best.fusion, constraints, FLAGS.seed), weights(baseline, best.fusion)])
    with staged(FLAGS.output, FUSION) as stage:
        best.fusion.save(stage / FUSION)
        _write_trials(stage / "trials.csv", trials)
        draw(stage / "trade_off.png", days, baseline, best.fusion, maximize, constraints, trials)
        page.write(stage / PAGE, (
            f"# Fusion for {maximize}, subject to {', '.join(map(str, constraints))}\n\nGoals count the first "
            f"{FLAGS.top} rows of each user. {len(trials):,} fusions were tried on {FLAGS.day}, none on "
            f"{FLAGS.measure_day}. Brackets are 95% intervals of the relative change, by a paired bootstrap over "
            f"users.\n\n{text}\n\n"
            "![all fusions that were tried](trade_off.png)\n"
        ))
    console.page(text)
    output = pathlib.Path(FLAGS.output)
    console.say(f"report: {page.html_of(output / PAGE)}")
    console.next_step(commands.line(
        "export", model_dir=FLAGS.model_dir, output=commands.SERVED, calibration=FLAGS.calibration,
        fusion=output / FUSION))


def table(
    days: Mapping[str, Day], baseline: Fusion, chosen: Fusion, constraints: Sequence[Constraint], seed: int = 0
) -> str:
    """Every goal of every day under both fusions, the change, and whether the constraints hold, as markdown.

    `seed` is that of the bootstrap over users.
    """
    lines = []
    for name, day in days.items():
        before, after = day.by_user(baseline), day.by_user(chosen)
        resamples = Resamples.draw(np.arange(before.shape[1]), seed=seed)
        for goal, old, new in zip(day.goals, before, after, strict=True):
            counted = np.flatnonzero(~np.isnan(old))
            change = resamples.of(counted).change(new[None, counted], old[None, counted])
            values = np.nanmean(old), np.nanmean(new)
            rules = [f"{c}: {'broken' if c.violation(values[1], values[0]) else 'kept'}" for c in constraints
                     if c.goal == goal]
            lines.append([name, str(goal), f"{len(counted):,}", *(f"{v:.5f}" for v in values), percent(change),
                          ", ".join(rules)])
    return markdown(["day", "goal", "users", "baseline", "chosen", "change", "constraint"], lines)


def weights(baseline: Fusion, chosen: Fusion) -> str:
    """The numbers of both fusions as markdown."""
    names = list(dict.fromkeys([*baseline.weights, *chosen.weights]))
    lines = [[f"weight of {name}", *(f"{f.weights.get(name, 0.0):g}" for f in (baseline, chosen))] for name in names]
    lines += [[name, f"{getattr(baseline, name):g}", f"{getattr(chosen, name):g}"] for name in ("power", "floor")]
    for name in dict.fromkeys([*baseline.ranges, *chosen.ranges]):
        ends = [f.ranges.get(name, ()) for f in (baseline, chosen)]
        lines.append([f"range of {name}", *(" to ".join(f"{end:g}" for end in each) for each in ends)])
    return markdown(["", f"baseline ({baseline.form})", f"chosen ({chosen.form})"], lines)


def _write_trials(path: pathlib.Path, trials: Sequence[Trial]) -> None:
    """A line for each trial; the first is the baseline."""
    names = list(dict.fromkeys(name for trial in trials[:2] for name in trial.fusion.weights))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["form", *trials[0].values, "violation", "power", "floor", *(f"weight/{n}" for n in names)])
        for trial in trials:
            fusion = trial.fusion
            writer.writerow([fusion.form, *trial.values.values(), trial.violation, fusion.power, fusion.floor,
                             *(fusion.weights.get(name, 0.0) for name in names)])


def draw(
    path: str | os.PathLike, days: Mapping[str, Day], baseline: Fusion, chosen: Fusion, maximize: Goal,
    constraints: Sequence[Constraint], trials: Sequence[Trial],
) -> None:
    """The goal against the goal of each constraint: all trials, those that no other beats in both, and the bound.

    Args:
        path: of the picture.
        days: the day that was searched, then others, on which `baseline` and `chosen` are shown too.
        baseline, chosen: fusions.
        maximize, constraints: what was searched for.
        trials: what was tried, the baseline first.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(constraints), 5.3), layout="constrained")
    axes = figure.subplots(1, len(constraints), squeeze=False)[0]
    values = {name: [day.measure(fusion) for fusion in (baseline, chosen)] for name, day in days.items()}
    y = np.array([trial.values[maximize] for trial in trials])
    kept = np.array([not trial.violation for trial in trials])
    for axis, constraint in zip(axes, constraints, strict=True):
        x = np.array([trial.values[constraint.goal] for trial in trials])
        axis.scatter(x[~kept], y[~kept], s=6, color="lightgrey", linewidths=0, label="breaks a constraint")
        axis.scatter(x[kept], y[kept], s=6, color="C0", linewidths=0, label="keeps all constraints")
        front = front_of(x if constraint.sign == "<=" else -x, y)
        axis.plot(x[front], y[front], color="C1", linewidth=1, marker=".", markersize=4, label="Pareto front")
        axis.axvline(x[0] if constraint.bound is None else constraint.bound, color="grey", linewidth=0.8, linestyle=":")
        for number, (name, pair) in enumerate(values.items()):
            for point, marker, size, which in zip(pair, ("ks", "r*"), (7, 12), ("baseline", "chosen"), strict=True):
                axis.plot(point[constraint.goal], point[maximize], marker, markersize=size, label=f"{which}, {name}",
                          fillstyle="none" if number else "full")
        axis.set(xlabel=str(constraint.goal), ylabel=str(maximize))
        axis.set_title(f"dotted: {constraint}", fontsize=9)
        axis.locator_params(axis="x", nbins=5)
    figure.suptitle(f"{len(trials):,} fusions on {next(iter(days))}", fontsize=11)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", fontsize=7,
                  ncols=min(4, 2 + len(constraints)))
    figure.savefig(path, dpi=110)


def front_of(cost: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The places of the points that no other beats in both, by cost: less costs or more value."""
    order = np.lexsort((-value, cost))
    best_before = np.maximum.accumulate(np.concatenate([[-np.inf], value[order][:-1]]))
    return order[value[order] > best_before]


if __name__ == "__main__":
    commands.run(main, define_flags)
