"""`report.md` and its picture: the report that training writes for people to read."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlen_cam2.config import Config, as_dict
from dlen_cam2.data import suffix
from dlen_cam2.evaluation import USER_FAVOR, USER_FAVOR_NOTE, Predictions, behaviours
from dlen_cam2.labels.kind import binary
from dlen_cam2.metrics import calibration_curve
from dlen_cam2.schema import Schema, Task
from dlen_cam2.utils import page
from dlen_cam2.utils.markdown import markdown

PAGE = "report.md"
PICTURE = "report.png"
COLUMNS_NOTE = (
    "Brackets are 95% intervals by a bootstrap over users. AUC and GAUC (AUC within a user, averaged) are .5 for a "
    "random order and 1 for a perfect one. NE is the cross-entropy divided by the cross-entropy of the constant base "
    "rate; below 1 is better than the base rate. Calibration is predicted over observed positives; 1 is right. ECE is "
    "the mean gap between predicted and observed rates. MAE and RMSE are in the label's unit."
)
ENTIRE_SPACE_NOTE = (
    "A task that follows another (a purchase after a click) is measured twice: by its own probability, on the rows "
    "where the task before it is positive; and in its entire space, by the product of the probabilities of the chain, "
    "on all rows of the first task."
)


def table(metrics: Mapping[str, Any]) -> str:
    """Metrics as markdown tables; 95% intervals over users in brackets, "undefined" where there is no value.

    A task that follows others has a second line, for its entire space. Regression tasks have a separate table.
    """
    lines, numbers = [], []
    for day, tasks in metrics.items():
        named = [(name, m) for task, found in tasks.items() for name, m in (
            (task, found), (in_entire_space(task), found.get("entire_space"))) if m]
        for name, m in named:
            if _is_number(m):
                cells = [_cell(m, metric) for metric in ("mean", "mae", "rmse", "rank_correlation", "calibration")]
                numbers.append([day, name, f"{m['rows']:,}", *cells])
                continue
            cells = [day, name, f"{m['rows']:,}", f"{m['positives']:,}"]
            cells += [_cell(m, name) for name in ("auc", "gauc", "ne", "calibration", "ece")]
            lines.append(cells)
    found = [(["day", "task", "rows", "positives", "AUC", "GAUC", "NE", "calibration", "ECE"], lines),
             (["day", "task", "rows", "mean", "MAE", "RMSE", "rank correlation", "calibration"], numbers)]
    return "\n\n".join(markdown(head, rows) for head, rows in found if rows)


def _is_number(metrics: Mapping[str, Any]) -> bool:
    """Whether these are the metrics of a regression task."""
    return "positives" not in metrics


def in_entire_space(task: str) -> str:
    """The name in tables of a task that is measured in its entire space."""
    return f"{task} (entire space)"


def _cell(metrics: Mapping[str, Any], name: str) -> str:
    if metrics[name] is None:
        return "undefined"
    interval = metrics["intervals"].get(name)
    # Four digits of a probability; of seconds, or of cents, five in all.
    if abs(metrics[name]) >= 10:
        return f"{metrics[name]:.5g}" + (f" [{interval[0]:.5g}, {interval[1]:.5g}]" if interval else "")
    return f"{metrics[name]:.4f}" + (f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else "")


def write(
    directory: pathlib.Path, config: Config, schema: Schema, metrics: Mapping[str, Any],
    predictions: Mapping[str, Predictions], train_days: str, more: str = "",
) -> None:
    """Write `report.md`, with `more` after its first table, `report.html` and `report.png` into `directory`."""
    draw(directory / PICTURE, schema, metrics, predictions)
    notes = [ENTIRE_SPACE_NOTE] * any("entire_space" in m for tasks in metrics.values() for m in tasks.values())
    notes += [f"`{USER_FAVOR}`: {USER_FAVOR_NOTE}"] * any(USER_FAVOR in m for m in metrics.values())
    page.write(directory / PAGE, "\n\n".join([
        f"# {config.name}: {config.model.trunk.name} trunk, {config.model.head.name} head",
        f"Trained on {train_days}, measured on {', '.join(metrics)}. {COLUMNS_NOTE}",
        "## All tasks", table(metrics), *notes, *([more] if more else []),
        f"![AUC and NE by day, and calibration]({PICTURE})",
        *(part for task in schema.task_names for part in _section(task, metrics)),
        "## Configuration", f"```json\n{json.dumps(as_dict(config), indent=1)}\n```",
    ]) + "\n")


def _section(task: str, metrics: Mapping[str, Any]) -> list[str]:
    """The section of one task: its latest day in words, and a table of all days."""
    of_task = {day: {task: tasks[task]} for day, tasks in metrics.items()}
    latest = next((day for day in reversed(of_task) if not suffix(day)), list(of_task)[-1])
    return [f"## {task}", _in_words(latest, of_task[latest][task]), table(of_task)]


def _in_words(day: str, found: Mapping[str, Any]) -> str:
    """The metrics of a task on a day, explained in words."""
    if _is_number(found):
        if found["mae"] is None:
            return f"On {day} no row has a label, so nothing can be measured."
        return (f"On {day} the label's mean over {found['rows']:,} rows is {found['mean']:.5g}; predictions are off by "
                f"{found['mae']:.5g} on average (MAE).")
    begin = f"On {day} {found['positives']:,} of {found['rows']:,} rows are positive"
    if found["auc"] is None or found["ne"] is None:
        return f"{begin}, so AUC and NE are undefined: they need positives and negatives."
    better, (low, high) = 1 - found["ne"], found["intervals"].get("ne") or (found["ne"],) * 2
    text = (
        f"{begin} ({found['positives'] / found['rows']:.2%}). The model scores a positive row above a negative one in "
        f"{found['auc']:.1%} of all pairs (AUC). Its cross-entropy is {abs(better):.1%} "
        f"{'below' if better >= 0 else 'above'} the cross-entropy of the constant base rate (NE)"
        f"{', a difference within noise' if low <= 1 <= high else ''}"
    )
    if found["calibration"] is None:
        return f"{text}."
    return f"{text}, and it predicts {found['calibration']:.2f} times as many positives as there are (calibration)."


def draw(
    path: pathlib.Path, schema: Schema, metrics: Mapping[str, Any], predictions: Mapping[str, Predictions]
) -> None:
    """Draw AUC and NE of every task by day; for the largest split, calibration and P(UP) by positive behaviours."""
    from matplotlib.figure import Figure

    tasks = [schema.tasks[k] for k in binary(schema)]
    numbers = [k for k, task in enumerate(schema.tasks) if task not in tasks]
    largest = max(predictions, key=lambda day: len(predictions[day].labels))
    shown = predictions[largest]
    panels = 3 * bool(tasks) + (shown.p_up is not None) + bool(numbers)
    figure = Figure(figsize=(4.6 * panels, 4.2), layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    if numbers:
        _numbers(axes.pop(), largest, schema, numbers, shown)
    days = list(metrics)
    if not tasks:
        figure.savefig(path, dpi=110)
        return
    for axis, name, label in ((axes[0], "auc", "AUC"), (axes[1], "ne", "NE (below 1: better than base rate)")):
        _by_day(axis, days, tasks, metrics, name)
        axis.set_title(f"{label} by day", fontsize=10)
    axes[1].axhline(1.0, color="grey", linewidth=0.8, linestyle=":")
    axes[0].legend(fontsize=7)

    for column, task in zip(binary(schema), tasks, strict=True):
        rows = shown.mask[:, column] == 1
        labels = shown.labels[rows, column]
        # Few positives, few bins: a point of less than 20 positives is noise.
        bins = int(np.clip(labels.sum() // 20, 1, 10))
        curve = calibration_curve(labels, shown.probabilities[rows, column], bins)
        points = [(b["predicted"], b["observed"]) for b in curve if b["observed"] > 0]
        if points:
            axes[2].plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1, label=task.name)
    low = max(1e-5, min((p for p in axes[2].get_xlim() if p > 0), default=1e-5))
    axes[2].plot([low, 1], [low, 1], color="grey", linewidth=0.8, linestyle=":")
    axes[2].set(xscale="log", yscale="log", xlabel="predicted", ylabel="observed")
    axes[2].set_title(f"Calibration on {largest} (equal-mass bins)", fontsize=10)

    if shown.p_up is not None:
        count = behaviours(shown, schema)
        groups = [shown.p_up[count == c] for c in range(count.max(initial=0) + 1)]
        kept = [(c, g) for c, g in enumerate(groups) if len(g)]
        axes[3].boxplot([g for _, g in kept], showfliers=False, medianprops={"color": "C1"})
        axes[3].set_xticks(range(1, len(kept) + 1), [f"{c}\nn={len(g):,}" for c, g in kept], fontsize=7)
        axes[3].set(xlabel="positive behaviours of the row", ylabel="P(UP)", ylim=(0, 1))
        axes[3].set_title(f"P(UP) by positive behaviours on {largest}", fontsize=10)
    figure.savefig(path, dpi=110)


def _numbers(axis: Any, day: str, schema: Schema, tasks: Sequence[int], shown: Predictions) -> None:
    """Draw the mean label by tenths of the prediction, both relative to the task's mean."""
    for k in tasks:
        rows = shown.mask[:, k] == 1
        y, p = shown.labels[rows, k], shown.probabilities[rows, k]
        scale = abs(y.mean()) if len(y) and y.mean() else 1.0
        tenths = [part for part in np.array_split(np.argsort(p, kind="stable"), 10) if len(part)]
        points = [(p[part].mean() / scale, y[part].mean() / scale) for part in tenths]
        axis.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1, label=schema.task_names[k])
    axis.axline((1, 1), slope=1, color="grey", linewidth=0.8, linestyle=":")
    axis.set(xlabel="predicted, over the mean", ylabel="observed, over the mean")
    axis.set_title(f"Numbers on {day} (tenths)", fontsize=10)
    axis.legend(fontsize=7)


def _by_day(axis: Any, days: list[str], tasks: Sequence[Task], metrics: Mapping[str, Any], name: str) -> None:
    """Draw one point with its interval for each task and day, tasks side by side.

    A line joins the days of one kind: logged days, and separately those of another split, such as `_random`.
    """
    kinds: dict[str, list[int]] = {}
    for place, day in enumerate(days):
        kinds.setdefault(suffix(day), []).append(place)
    for index, task in enumerate(tasks):
        values = [metrics[day][task.name] for day in days]
        x = np.arange(len(days)) + (index - (len(tasks) - 1) / 2) * 0.8 / len(tasks)
        y = np.array([np.nan if v[name] is None else v[name] for v in values])
        intervals = [v["intervals"].get(name) or (m, m) for v, m in zip(values, y, strict=True)]
        spread = np.abs(np.array(intervals).T - y)
        for number, of in enumerate(kinds.values()):
            axis.errorbar(x[of], y[of], yerr=spread[:, of], marker="o", markersize=4, linewidth=1, capsize=2,
                          color=f"C{index}", fillstyle="none" if number else "full", label="" if number else task.name)
    axis.set_xticks(range(len(days)), days, rotation=30 if len(days) > 2 else 0, fontsize=8)
