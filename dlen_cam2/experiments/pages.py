"""Tables and pictures of a comparison, as every suite's page has them."""

import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dlen_cam2.evaluation.bootstrap import Estimate
from dlen_cam2.experiments.comparison import METRICS, Comparison
from dlen_cam2.utils.markdown import markdown

REPORT = "report.md"
RESULTS = "results.json"


def with_spread(values: np.ndarray) -> str:
    """.7585 (.0021): mean and spread (max - min) over seeds."""
    if not np.all(np.isfinite(values)):
        return "undefined"
    return f"{values.mean():.4f}" + (f" ({np.ptp(values):.4f})" if len(values) > 1 else "")


def signed(value: Estimate) -> str:
    """+.0014 [-.0002, +.0030]"""
    return "undefined" if not np.isfinite(value[0]) else "{:+.4f} [{:+.4f}, {:+.4f}]".format(*value)


def levels(found: Comparison, metric: str) -> str:
    """Each model's mean over seeds and their spread, a task a column."""
    tasks = found.measured.tasks
    return markdown(
        [METRICS[metric], *tasks],
        ([m, *(with_spread(found.level(m, t, metric)) for t in tasks)] for m in found.models),
    )


def against(found: Comparison, metric: str) -> str:
    """Each model's mean over seeds, and its difference to the baseline, as in DLEN's table 1."""
    def entry(model: str, task: str) -> str:
        values = found.level(model, task, metric)
        if model == found.baseline or not np.all(np.isfinite(values)):
            return with_spread(values)
        return f"{values.mean():.4f}, {signed(found.difference(model, found.baseline, task, metric))}"

    tasks = found.measured.tasks
    return markdown([METRICS[metric], *tasks], ([m, *(entry(m, t) for t in tasks)] for m in found.models))


def by_task(found: Comparison) -> list[str]:
    """A section for each task: every model with all that was measured of it."""
    parts = []
    for task in found.measured.tasks:
        rows = []
        for model in found.models:
            cells = [model]
            for metric in METRICS:
                cells.append(with_spread(found.level(model, task, metric)))
                if metric in ("auc", "ne"):
                    same = model == found.baseline
                    cells.append("" if same else signed(found.difference(model, found.baseline, task, metric)))
            rows.append(cells)
        head = [name for metric, label in METRICS.items()
                for name in ([label, f"{label} minus {found.baseline}"] if metric in ("auc", "ne") else [label])]
        parts += [f"## {task}", markdown(["model", *head], rows)]
    return parts


def gains(found: Comparison, metric: str) -> str:
    """Each model of several tasks against the tasks' own models."""
    return estimates(
        f"MTL gain, {METRICS[metric]}", together(found), found.measured.tasks, lambda m, t: found.gain(m, t, metric)
    )


def together(found: Comparison) -> list[str]:
    """The models that MTL gain is about: all networks of several tasks."""
    networks = [m for m in found.models if np.all(found.measured.costs[m]["flops"] > 0)]
    return [m for m in networks if m != found.single]


def estimates(
    head: str, models: Sequence[str], tasks: Sequence[str], of: Callable[[str, str], Estimate]
) -> str:
    """A model a line, a task a column."""
    return markdown([head, *tasks], ([m, *(signed(of(m, t)) for t in tasks)] for m in models))


def costs(found: Comparison) -> str:
    """Parameters, operations and speed of each model."""
    def number(values: np.ndarray) -> str:
        value = float(np.mean(values))
        return f"{value:,.0f}" if np.isfinite(value) else ""

    rows = ([m, *(number(values) for values in found.measured.costs[m].values())] for m in found.models)
    return markdown(["model", "parameters", "FLOPs a row, forward", "rows/s of training"], rows)


MANY_NOTE = "This page has many intervals: of twenty without any difference, about one excludes zero."
COSTS_NOTE = (
    "Parameters include embedding tables. FLOPs are TensorFlow's profile of the prediction of one row, plus the "
    "einsums, which the profiler leaves out; look-ups and sigmoids are not counted. Rows/s is the mean over seeds, "
    "without the first ten steps of a pass. It is a rough guide only, since other cells and other work shared the "
    "machine. For one network a task it is the rate of training all of them."
)


def results(found: Comparison) -> dict[str, Any]:
    """All of it as plain data."""
    tasks = found.measured.tasks

    def each(
        models: Sequence[str], of: Callable[[str, str, str], Any], metrics: Iterable[str] = METRICS
    ) -> dict[str, Any]:
        return {m: {t: {metric: of(m, t, metric) for metric in metrics} for t in tasks} for m in models}

    answer = {
        "levels": each(found.models, lambda m, t, metric: found.level(m, t, metric)),
        "against": found.baseline,
        "differences": each(
            [m for m in found.models if m != found.baseline],
            lambda m, t, metric: found.difference(m, found.baseline, t, metric),
        ),
        "costs": {m: found.measured.costs[m] for m in found.models},
        "rows": {t: int(found.measured.mask[:, k].sum()) for k, t in enumerate(tasks)},
        "positives": {
            t: int((found.measured.labels * found.measured.mask)[:, k].sum()) for k, t in enumerate(tasks)
        },
    }
    if found.single:
        ordered = [metric for metric in METRICS if metric != "calibration"]  # more of it is neither better nor worse
        answer["mtl_gain"] = each(together(found), found.gain, ordered)
    return plain(answer)


def plain(value: Any) -> Any:
    """`value` with undefined numbers as None, for strict JSON."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def draw(
    path: pathlib.Path, panels: Mapping[str, Mapping[str, Mapping[str, Estimate]]], label: str, scale: float = 1.0
) -> None:
    """{row: {model: {column: estimate}}}: every model's estimate with its interval, a panel for each row and column.

    Each panel has a scale of its own: intervals of rare tasks are a hundred times as long as those of clicks.
    """
    from matplotlib.figure import Figure

    models = list(next(iter(panels.values())))
    columns = max(len(row) for by_model in panels.values() for row in by_model.values())
    figure = Figure(figsize=(1.5 + 1.9 * columns, len(panels) * (1.1 + 0.25 * len(models))), layout="constrained")
    parts = figure.subfigures(len(panels), squeeze=False)[:, 0]
    for part, (title, by_model) in zip(parts, panels.items(), strict=True):
        part.suptitle(f"{title}: {label}", fontsize=10)
        names = list(next(iter(by_model.values())))
        axes = part.subplots(1, len(names), squeeze=False)[0]
        for axis, name in zip(axes, names, strict=True):
            value, low, high = scale * np.array([row[name] for row in by_model.values()]).T
            spread = np.maximum([value - low, high - value], 0)  # rounding may put an end on the wrong side
            for place in range(len(models)):
                reach = spread[:, [place]]
                axis.errorbar(value[place], place, xerr=reach, fmt="o", markersize=4, capsize=2, color=f"C{place}")
            axis.axvline(0, color="grey", linewidth=0.8)
            axis.set_yticks(range(len(models)), models if axis is axes[0] else [], fontsize=8)
            axis.set_ylim(len(models) - 0.5, -0.5)
            axis.tick_params(axis="x", labelsize=7)
            axis.locator_params(axis="x", nbins=4)
            axis.set_title(name, fontsize=9)
    figure.savefig(path, dpi=110)
