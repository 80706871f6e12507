"""MTL gain by how much two tasks have in common: the synthetic experiment of MMOE and PLE."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from dlen_cam2.config import Config
from dlen_cam2.evaluation.bootstrap import Estimate, over_seeds
from dlen_cam2.experiments import grid, pages, rows, zoo
from dlen_cam2.experiments.comparison import compare
from dlen_cam2.experiments.rows import Log
from dlen_cam2.utils.markdown import markdown
from pipelines import correlated
from pipelines.options import Options
from pipelines.writer.shards import Form

CORRELATIONS = (0.0, 0.2, 0.5, 0.8, 1.0)
NETWORKS = ("shared bottom", "MMOE", "CGC", "PLE")
PICTURE = "mtl_gain_by_correlation.png"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What the sweep found.

    Attributes:
        labels: {p: (seeds,) Pearson correlation of the labels}.
        single: {"auc" or "ne": {p: (seeds,) level of one network a task, mean over tasks}}.
        gains: {"auc" or "ne": {model: {p: MTL gain, mean over tasks, with an interval over seeds}}}.
    """

    labels: dict[float, np.ndarray]
    single: dict[str, dict[float, np.ndarray]]
    gains: dict[str, dict[str, dict[float, Estimate]]]


def run(config: Config, output: pathlib.Path, seeds: int, size: int, processes: int) -> Sweep:
    """Draw `seeds` worlds of `size` rows for each correlation, and train every network on each.

    A seed is that of the world and of the networks in it, so that an interval over seeds is over both.
    """
    models = (zoo.CONSTANT, zoo.TREES, *NETWORKS)
    planned = {}
    for p in CORRELATIONS:
        for seed in range(seeds):
            directory = output / "data" / f"correlated_{size}_p{p:g}_seed{seed}"
            if not directory.exists():
                correlated.write(directory, p, size, seed=seed, how=Options(form=Form("block")))
            log = Log(str(directory), ("train",), ("test",))
            for (model, _, task), one in rows.cells(zoo.rows(config, log, NETWORKS), log, 1, first=seed).items():
                planned[p, seed, model, task] = dataclasses.replace(one, name=f"p{p:g}-{one.name}")
    found = grid.run(list(planned.values()), output / "cells", processes)
    labels = {p: np.zeros(seeds) for p in CORRELATIONS}
    single = {metric: {p: np.zeros(seeds) for p in CORRELATIONS} for metric in ("auc", "ne")}
    gains = {(p, name, metric): np.zeros(seeds) for p in CORRELATIONS for name in models for metric in ("auc", "ne")}
    for p in CORRELATIONS:
        for seed in range(seeds):
            cells = {(m, 0, task): c for (q, s, m, task), c in planned.items() if (q, s) == (p, seed)}
            world = rows.measured(cells, found, correlated.TASKS)
            labels[p][seed] = np.corrcoef(world.labels.T)[0, 1]
            compared = compare(world, "MMOE", zoo.SINGLE, resamples=0)
            for metric in ("auc", "ne"):
                of_tasks = [compared.level(zoo.SINGLE, task, metric)[0] for task in correlated.TASKS]
                single[metric][p][seed] = np.mean(of_tasks)
                for name in models:
                    values = [compared.gain(name, task, metric)[0] for task in correlated.TASKS]
                    gains[p, name, metric][seed] = np.mean(values)
    return Sweep(labels, single, {
        metric: {name: {p: over_seeds(gains[p, name, metric]) for p in CORRELATIONS} for name in models}
        for metric in ("auc", "ne")
    })


def section(sweep: Sweep, seeds: int, size: int) -> list[str]:
    """The part of the page."""
    head = [*(f"p = {p:g}" for p in CORRELATIONS)]
    levels = [
        [name, *(f"{values.mean():.4f}" for values in by_p.values())] for name, by_p in (
            ("correlation of the labels", sweep.labels), ("one network a task, AUC", sweep.single["auc"]),
            ("one network a task, NE", sweep.single["ne"]),
        )
    ]
    parts = [
        "## MTL gain by the correlation of two tasks",
        f"This is MMOE's and PLE's synthetic experiment (`pipelines.correlated`, {size:,} rows, the last fifth "
        "measured). p is the cosine of the tasks' weights. The MTL gain over one network a task is the mean of both "
        f"tasks; above 0 is better. There are {seeds} worlds for each p, each with its own seed of the networks. "
        "Brackets are Student's 95% intervals over worlds. DESIGN: the papers' tasks are regressions; ours predict "
        "whether y is above its median. PLE's paper has a figure and no table: its one number is that PLE's gain is on "
        "average 87.2% above MMOE's. " + zoo.NOTE,
        markdown(["mean over worlds", *head], levels),
    ]
    for metric, title in (("auc", "MTL gain, AUC"), ("ne", "MTL gain, NE (reversed)")):
        table = ([name, *(pages.signed(e) for e in by_p.values())] for name, by_p in sweep.gains[metric].items())
        parts.append(markdown([title, *head], table))
    return [*parts, f"![MTL gain by correlation]({PICTURE})"]


def draw(path: pathlib.Path, sweep: Sweep) -> None:
    """A line for each network with its intervals, AUC and NE side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    for axis, (metric, title) in zip(figure.subplots(1, 2), (("auc", "AUC"), ("ne", "NE, reversed")), strict=True):
        for index, name in enumerate(NETWORKS):
            value, low, high = np.array(list(sweep.gains[metric][name].values())).T
            x = np.array(CORRELATIONS) + 0.01 * (index - (len(NETWORKS) - 1) / 2)
            reach = np.nan_to_num([value - low, high - value])
            axis.errorbar(x, value, yerr=reach, marker="o", markersize=4, capsize=2, linewidth=1, label=name)
        axis.axhline(0, color="grey", linewidth=0.8)
        axis.set(xlabel="p, the tasks' correlation", ylabel=f"MTL gain in {title}")
        axis.set_title(f"{title}: above 0 beats one network a task", fontsize=10)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def plain(sweep: Sweep) -> dict[str, Any]:
    """For `results.json`."""
    return {"labels": sweep.labels, "single": sweep.single, "mtl_gain": sweep.gains}
