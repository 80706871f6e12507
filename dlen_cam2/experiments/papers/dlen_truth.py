"""DLEN on a feed whose truth is known: how high the cap should be, and what is left of its gain as its story breaks."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from dlen_cam2.config import Config, replaced
from dlen_cam2.data import statistics
from dlen_cam2.evaluation import Predictions
from dlen_cam2.evaluation.bootstrap import Estimate, Resamples, over_seeds, percent
from dlen_cam2.evaluation.truth import recovery, truth_at
from dlen_cam2.experiments import grid, networks, rows, zoo
from dlen_cam2.experiments.rows import Log, Measured, Row
from dlen_cam2.metrics import cross_entropy
from dlen_cam2.schema import Schema
from dlen_cam2.utils.markdown import markdown
from pipelines import simulate
from pipelines.options import Options
from pipelines.writer.shards import Form

# The paper's range is 0.1 to 0.5; None: no cap at all.
ALPHAS = (0.05, 0.1, 0.3, 0.5, 1.0, None)
BROKEN = (0.0, 0.25, 0.5, 0.75, 1.0)
DLEN, BASELINE = "MMOE-DLEN", "MMOE"
PICTURE = "story.png"


@dataclasses.dataclass(frozen=True)
class Caps:
    """By cap factor c ("uncapped" too): cap use by task, P(UP), |p̂ - p|.

    Attributes:
        use: {c: {task: mean of P(k|¬UP) / α over the measured rows, over seeds}}.
        true_use: {task: the same of the simulator's P(k|¬UP) and cap}, for the tasks that have a cap.
        way: {c: (seeds,) share of the way from .5 to the oracle's AUC of P(UP); below 0 it is upside down}.
        error: {c: mean |p̂ - p| over tasks, over seeds}.
    """

    use: dict[str, dict[str, Estimate]]
    true_use: dict[str, float]
    way: dict[str, np.ndarray]
    error: dict[str, Estimate]


@dataclasses.dataclass(frozen=True)
class Story:
    """By `World.broken`: DLEN against MMOE, relative, paired by users and seeds, and what its gain has lost.

    Attributes:
        level: {"error" or "ne": {broken: that of MMOE, mean over seeds}}; the NE is of all tasks' rows together.
        changes: {"error" or "ne": {broken: DLEN / MMOE - 1}}; below 0 DLEN is better.
        lost: {"error" or "ne": {broken: that change minus the one where the story holds}}; above 0 the gain shrank.
        way: {broken: (seeds,) share of the way to the oracle's AUC of P(UP)}.
    """

    level: dict[str, dict[float, float]]
    changes: dict[str, dict[float, Estimate]]
    lost: dict[str, dict[float, Estimate]]
    way: dict[float, np.ndarray]


def feed(output: pathlib.Path, size: int, broken: float) -> Log:
    """A simulated feed of seed 0, written if it is not there; the last day is measured as it was logged."""
    directory = output / "data" / f"feed_{size}_broken{broken:g}"
    if not directory.exists():
        simulate.write(simulate.World(size, 0, broken=broken), str(directory), Options(form=Form("block")))
    days = [day for day in statistics(directory)["days"] if day.isdigit()]
    return Log(str(directory), tuple(days[:-1]), (days[-1],))


def run(config: Config, output: pathlib.Path, seeds: int, size: int, processes: int) -> tuple[Caps, Story]:
    """Train DLEN with every cap, and DLEN and MMOE with every `broken`."""
    logs = {broken: feed(output, size, broken) for broken in BROKEN}
    planned: dict[Any, dict[tuple[str, int, str], grid.Cell]] = {}
    for alpha in ALPHAS:
        cap = {"model.head.alpha": alpha} if alpha else {"model.head.alpha_constant": 1.0}
        capped = replaced(zoo.network(config, DLEN).configs[""], cap)
        row = Row(_named(alpha), {"": capped}, networks.train)
        planned[alpha, "cap"] = rows.cells([row], logs[0.0], seeds)
    for broken, log in logs.items():
        planned[broken, "story"] = {
            key: dataclasses.replace(one, name=f"broken{broken:g}-{one.name}")
            for key, one in rows.cells([zoo.network(config, name) for name in (BASELINE, DLEN)], log, seeds).items()
        }
    every = [one for cells in planned.values() for one in cells.values()]
    found = grid.run(every, output / "cells", processes)
    schema = logs[0.0].schema(config)
    measured = {key: rows.measured(cells, found, schema.task_names) for key, cells in planned.items()}
    caps = {_named(a): measured[a, "cap"] for a in ALPHAS}
    return _caps(caps, logs[0.0], schema), _story({b: (measured[b, "story"], log) for b, log in logs.items()}, schema)


def _named(alpha: float | None) -> str:
    return f"c = {alpha:g}" if alpha else "uncapped"


def _recovered(measured: Measured, model: str, log: Log, schema: Schema) -> list[dict[str, Any]]:
    """`recovery.recovery` of each seed."""
    others = measured.others[model]
    truth = truth_at(log.data_dir, others["keys/time"][0])
    answers = []
    for seed, p in enumerate(measured.probabilities[model]):
        p_up = others["p_up"][seed] if "p_up" in others else None
        shown = Predictions(measured.labels, measured.mask, p, p_up, {}, {}, {}, {})
        answers.append(recovery(shown, schema, truth))
    return answers


def _caps(by_cap: Mapping[str, Measured], log: Log, schema: Schema) -> Caps:
    use, way, error = {}, {}, {}
    for name, measured in by_cap.items():
        answers = _recovered(measured, name, log, schema)
        used = measured.others[name]["cap_use"]
        use[name] = {task: over_seeds(used[:, k]) for k, task in enumerate(schema.task_names)}
        way[name] = np.array([a["way"] for a in answers])
        error[name] = over_seeds(np.array([a["mean_error"] for a in answers]))
    return Caps(use, _true_use(measured.others[name]["keys/time"][0], log), way, error)


def _true_use(times: np.ndarray, log: Log) -> dict[str, float]:
    truth = truth_at(log.data_dir, times)
    source = statistics(log.data_dir)["source"]
    return {
        task: float(truth[f"p_{task}_given_not_up"].mean() / (source["world"]["cap"] * rate))
        for task, rate in source["cap_rates"].items()
    }


def _story(by_broken: Mapping[float, tuple[Measured, Log]], schema: Schema) -> Story:
    draws: dict[str, dict[float, np.ndarray]] = {"error": {}, "ne": {}}
    level: dict[str, dict[float, float]] = {"error": {}, "ne": {}}
    way = {}
    # Who meets what is the same in all these worlds, and so are the draws.
    resamples = Resamples.draw(by_broken[0.0][0].users)
    for broken, (measured, log) in by_broken.items():
        truth = truth_at(log.data_dir, measured.others[DLEN]["keys/time"][0])
        p = np.stack([truth[f"p_{task}"] for task in schema.task_names], axis=1)
        losses = {
            "error": lambda predicted, p=p: np.abs(predicted - p),
            "ne": lambda predicted, y=measured.labels: cross_entropy(y, predicted),
        }
        rates = np.broadcast_to(measured.labels.mean(axis=0), measured.labels.shape)
        units = {"error": p.size, "ne": cross_entropy(measured.labels, rates).sum()}
        for name, loss in losses.items():
            arms = [loss(measured.probabilities[model]).sum(axis=2) for model in (DLEN, BASELINE)]
            draws[name][broken] = resamples.changes(*arms)
            level[name][broken] = float(arms[1].sum(axis=1).mean() / units[name])
        way[broken] = np.array([a["way"] for a in _recovered(measured, DLEN, log, schema)])
    return Story(
        level,
        {name: {b: resamples.interval(d) for b, d in by.items()} for name, by in draws.items()},
        {name: {b: resamples.interval(d - by[0.0]) for b, d in by.items()} for name, by in draws.items()},
        way,
    )


def section(caps: Caps, story: Story, seeds: int, size: int) -> list[str]:
    """The part of the page."""
    tasks = list(next(iter(caps.use.values())))
    cap_rows = (
        [name, *(f"{caps.use[name][t][0]:.2f}" for t in tasks), _range(caps.way[name]), _level(caps.error[name])]
        for name in caps.use
    )
    truth = ["truth", *(f"{caps.true_use[t]:.2f}" if t in caps.true_use else "" for t in tasks), "100%", "0"]
    story_rows = (
        [f"{b:g}", f"{story.level['error'][b]:.4f}", percent(story.changes["error"][b]),
         percent(story.lost["error"][b]) if b else "", f"{story.level['ne'][b]:.4f}", percent(story.changes["ne"][b]),
         percent(story.lost["ne"][b]) if b else "", _range(story.way[b])]
        for b in BROKEN
    )
    return [
        "## DLEN's cap",
        f"The data are the simulated feed (`pipelines.simulate --seed=0`, {size:,} rows), where DLEN's story holds. c "
        "is the factor of the positive rate (0.1 to 0.5 in the paper). The true cap is 0.2 times the share of rows "
        "with both preference and the behaviour, so a little less than 0.2 times the positive rate; long_view has no "
        "cap. Cap use is the mean of P(k|¬UP) / α over the measured day, each with its own α. P(UP) is the share of "
        f"the way from .5 to the oracle's AUC, mean over {seeds} seeds (least to greatest); below 0 the state was "
        "found upside down. Brackets are Student's 95% intervals over seeds.",
        markdown(["cap", *(f"use, {t}" for t in tasks), "P(UP)", "mean abs(p̂ - p)"], [*cap_rows, truth]),
        "## DLEN's gain as its story breaks",
        "With `broken` = 0 (see `pipelines.simulate`) the story holds. With 1 the cap is violated and preference says "
        "nothing about behaviours. `broken` also makes behaviours more frequent, so each part begins with MMOE's own "
        "level. Changes are of MMOE-DLEN relative to MMOE over all tasks together; below 0 DLEN is better. Brackets "
        "are paired 95% intervals over users and seeds. Lost is the change minus the change at 0; above 0 the gain "
        "shrank. At 1 the behaviours say nothing about P(UP), so its column shows nothing that was learned from them.",
        markdown(
            ["broken", "MMOE's mean abs(p̂ - p)", "change", "lost", "MMOE's NE", "change", "lost",
             "P(UP), share of the way"], story_rows,
        ),
        f"![DLEN's cap and story]({PICTURE})",
    ]


def _range(shares: np.ndarray) -> str:
    return f"{shares.mean():.1%}" + (f" ({shares.min():.1%} to {shares.max():.1%})" if len(shares) > 1 else "")


def _level(value: Estimate) -> str:
    return "{:.4f} [{:.4f}, {:.4f}]".format(*value) if np.isfinite(value[1]) else f"{value[0]:.4f}"


def draw(path: pathlib.Path, caps: Caps, story: Story) -> None:
    """P(UP) by cap, cap use by cap, and the gain by `broken`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4), layout="constrained")
    way, use, gain = figure.subplots(1, 3)
    places, names = np.arange(len(caps.way)), list(caps.way)
    for seed, shares in enumerate(np.array(list(caps.way.values())).T):
        way.plot(places, shares, marker="o", markersize=4, linewidth=0.8, label=f"seed {seed}")
    way.axhline(0, color="grey", linewidth=0.8)
    way.legend(fontsize=7)
    way.set(ylabel="share of the way to the oracle", title="P(UP) by cap")
    for task in next(iter(caps.use.values())):
        use.plot(places, [caps.use[name][task][0] for name in names], marker="o", markersize=4, label=task)
    use.set(ylabel="mean of P(k|¬UP) / α", title="Cap use", ylim=(0, 1))
    use.legend(fontsize=7)
    for axis in (way, use):
        axis.set_xticks(places, names, fontsize=8)
    for name, label in (("error", "mean |p̂-p|"), ("ne", "NE")):
        value, reach = _bars([story.changes[name][b] for b in BROKEN])
        gain.errorbar(BROKEN, 100 * value, 100 * reach, marker="o", capsize=2, label=label)
    gain.axhline(0, color="grey", linewidth=0.8)
    gain.set(xlabel="broken", ylabel="MMOE-DLEN against MMOE, %", title="Below 0: DLEN is better")
    gain.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def _bars(estimates: list[Estimate]) -> tuple[np.ndarray, np.ndarray]:
    value, low, high = np.array(estimates).T
    return value, np.maximum(np.nan_to_num([value - low, high - value]), 0)
