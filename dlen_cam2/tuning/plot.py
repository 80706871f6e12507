"""A picture of a search."""

import pathlib
from typing import Any

import numpy as np

from dlen_cam2.config import larger_is_better
from dlen_cam2.tuning.result import CONFIGURED, Found


def draw(path: pathlib.Path, found: Found) -> None:
    """Draw the best value by trial, and the objective against every hyperparameter that varies.

    Points are trials, the star is the best, the ring the given configuration, and crosses at the bottom are failures.
    """
    from matplotlib.figure import Figure

    objective = found.asked["objective"]
    measured = [trial for trial in found.trials if not trial.reason]
    panels = len(found.varied) + 1
    columns = min(panels, 4)
    lines = -(-panels // columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for axis in axes[panels:]:
        axis.set_visible(False)
    for axis in axes[:panels:columns]:
        axis.set_ylabel(objective)

    order = {trial.name: float(place) for place, trial in enumerate(found.trials)}
    best = np.maximum.accumulate if larger_is_better(objective) else np.minimum.accumulate
    axes[0].step(
        [order[trial.name] for trial in measured], best([trial.metrics[objective] for trial in measured]),
        where="post", linewidth=1, label="best so far",
    )
    _points(axes[0], found, order)
    axes[0].set_xticks(list(order.values()), list(order), fontsize=7, rotation=90)
    axes[0].set_title("trials, in their order", fontsize=10)
    axes[0].legend(fontsize=7)
    # An Int and a Float of the space have a scale, a Choice has none.
    scales = {chosen["config"]["name"]: chosen["config"].get("sampling") for chosen in found.asked["space"]}
    for axis, key in zip(axes[1:], found.varied, strict=False):
        _points(axis, found, _places(axis, {t.name: t.values.get(key) for t in found.trials}, scales.get(key)))
        axis.set_title(short(key), fontsize=10)
    figure.savefig(path, dpi=110)


def _places(axis: Any, values: dict[str, Any], sampling: str | None) -> dict[str, float]:
    """The position of each trial on the x axis: at its number, or for choices, at the index of its choice."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    if sampling:
        if sampling == "log":
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_locator(NullLocator())
        elif all(isinstance(value, int) for value in values.values()):
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.tick_params(axis="x", labelsize=7)
        return {name: np.nan if value is None else float(value) for name, value in values.items()}
    distinct = sorted(
        set(values.values()), key=lambda value: (value is not None, isinstance(value, tuple | str), value)
    )
    axis.set_xticks(range(len(distinct)), [text(value) for value in distinct], fontsize=7)
    axis.set_xlim(-0.5, len(distinct) - 0.5)
    return {name: float(distinct.index(value)) for name, value in values.items()}


def _points(axis: Any, found: Found, places: dict[str, float]) -> None:
    for trial in found.trials:
        place = [places[trial.name]]
        if trial.reason:
            axis.scatter(place, [0.02], marker="x", color="grey", transform=axis.get_xaxis_transform())
            continue
        value = [trial.metrics[found.asked["objective"]]]
        if trial.name == CONFIGURED:
            axis.scatter(place, value, facecolors="none", edgecolors="C1", s=90, label="as given")
        else:
            axis.scatter(place, value, color="C0", alpha=0.7, s=22)
        if trial is found.best:
            axis.scatter(place, value, marker="*", color="C3", s=90, zorder=3, label="best")


def short(key: str) -> str:
    """The key of the configuration without its section."""
    return key.partition(".")[2]


def text(value: Any) -> str:
    """A value as readable text: (128, 64) is "128 64", and a missing value is ""."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
