"""CAM2's experiments: the five variants of its Table 1, by recurring training, over several seeds."""

import copy
import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from dlen_cam2 import __version__, causes, data, recovery, schema_pbtxt, slices
from dlen_cam2.cli import UserError
from dlen_cam2.config import VARIANTS, Config
from dlen_cam2.evaluation import Predictions
from dlen_cam2.metrics import auc, normalized_entropy
from dlen_cam2.paired import Estimate, Resamples, ne_change, over_rows
from dlen_cam2.recurring import LOGGED, active_days, recurring
from dlen_cam2.suites import grid
from dlen_cam2.suites.cells import Arrays

BASELINE = "production"
PROPOSED = "proposed"
TRUE_CONFORMITY = "true conformity (user x popularity)"


@dataclasses.dataclass(frozen=True)
class Kind:
    """The evaluated rows of one kind of exposure, and what every variant and seed predicted for them.

    Attributes:
        labels, mask: (rows, T).
        users, items: (rows,).
        columns: {column: (rows,)}, such as the item's age.
        probabilities: {variant: (seeds, rows, T)}.
        causes: {variant: {"conformity", "relevance": (seeds, rows)}}; production has none.
        truth: {column: (rows,)} of a simulated log, else empty.
    """

    labels: np.ndarray
    mask: np.ndarray
    users: np.ndarray
    items: np.ndarray
    columns: dict[str, np.ndarray]
    probabilities: dict[str, np.ndarray]
    causes: dict[str, dict[str, np.ndarray]]
    truth: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Results:
    """What the page is written from.

    Attributes:
        config: the experiment, as its file says.
        tasks, positive: the tasks' names, and those that are engagement: not negative, and defined for every row.
        warm, days: trained on before any measurement; measured.
        seeds: number of seeds.
        top_k: rows of a user's ranking.
        kinds: the evaluated rows by kind, "logged" first.
        active: {user: active days before the measured ones}.
        age, popularity: the columns' names.
    """

    config: Config
    tasks: tuple[str, ...]
    positive: tuple[int, ...]
    warm: list[str]
    days: list[str]
    seeds: int
    top_k: int
    kinds: dict[str, Kind]
    active: dict[int, int]
    age: str
    popularity: str


def run(
    config: Config, data_dir: str, output: str | os.PathLike, seeds: int, warm_days: int, top_k: int, age: str,
    popularity: str, processes: int = 0,
) -> Results:
    """Train every variant with every seed, day after day; finished cells of an earlier call are kept.

    Args:
        config: the experiment; its variant and seed are set for each cell.
        data_dir: the data set.
        output: cells go to its directory "cells".
        seeds: how many; 0, 1, …
        warm_days: how many days come before the first measured one; 0: half of them.
        top_k: rows of a user's ranking that count as shown.
        age, popularity: columns with the item's age in days, and how popular it was before the row.
        processes: how many cells at a time, see `grid.run`.

    Raises:
        UserError: the data set lacks a key or column, or has too few days.
    """
    schema = schema_pbtxt.load(data_dir)
    for role in ("user", "item"):
        if role not in schema.keys:
            raise UserError(f"{data_dir}: the suite needs a key of the role {role!r}. Received: {dict(schema.keys)}.")
    numeric = [f.name for f in schema.features if f.is_numeric] + list(schema.targets)
    for flag, column in (("age", age), ("popularity", popularity)):
        if column not in numeric:
            raise UserError(
                f"--{flag} must name a numeric column of {data_dir}. Received: {column!r}. Known: {numeric}."
            )
    causes.check_statistic(config.model.cam2, schema.features)
    statistics = data.statistics(data_dir)
    days = sorted(d for d in statistics["days"] if d.isdigit())
    warm_days = warm_days or len(days) // 2
    if not 1 <= warm_days < len(days):
        raise UserError(f"--warm_days must leave a day to measure of {len(days)}. Received: {warm_days}.")
    warm, measured = days[:warm_days], days[warm_days:]

    planned = {}
    for seed in range(seeds):
        for variant in VARIANTS:
            chosen = copy.deepcopy(config)
            chosen.model.cam2.variant, chosen.train.seed = variant, seed
            key = {"version": __version__, "config": dataclasses.asdict(chosen), "data": statistics, "warm": warm,
                   "days": measured}
            planned[variant, seed] = grid.Cell(
                f"{variant}-seed{seed}", key, _train, (chosen, data_dir, warm, measured, age, popularity)
            )
    found = grid.run(list(planned.values()), pathlib.Path(output) / "cells", processes)
    cells = {which: found[one.name] for which, one in planned.items()}

    tasks = schema.select(config.model.tasks).tasks
    kinds = sorted({name.split("/")[0] for name in cells[BASELINE, 0]}, key=lambda kind: (kind != LOGGED, kind))
    return Results(
        config, tuple(t.name for t in tasks),
        tuple(i for i, t in enumerate(tasks) if not t.negative and not t.mask), warm, measured, seeds, top_k,
        {kind: _kind(kind, cells, data_dir, seeds) for kind in kinds}, active_days(data_dir, warm), age,
        popularity,
    )


def _train(
    config: Config, data_dir: str, warm: Sequence[str], measured: Sequence[str], age: str, popularity: str
) -> Arrays:
    """What a cell computes."""
    return _arrays(recurring(config, data_dir, warm, measured, (age, popularity, config.model.cam2.statistic)))


def _arrays(found: Mapping[str, Predictions]) -> Arrays:
    """What a cell keeps: `kind/name` arrays."""
    arrays: Arrays = {}
    for kind, p in found.items():
        arrays |= {f"{kind}/labels": p.labels, f"{kind}/mask": p.mask, f"{kind}/probabilities": p.probabilities}
        for group in ("keys", "columns", "causes"):
            arrays |= {f"{kind}/{group}/{name}": values for name, values in getattr(p, group).items()}
    return arrays


def _kind(kind: str, cells: Mapping[tuple[str, int], Arrays], data_dir: str, seeds: int) -> Kind:
    first = cells[BASELINE, 0]

    def group(arrays: Arrays, name: str) -> dict[str, np.ndarray]:
        prefix = f"{kind}/{name}/"
        return {n.removeprefix(prefix): values for n, values in arrays.items() if n.startswith(prefix)}

    keys = group(first, "keys")
    for name, arrays in cells.items():
        if not np.array_equal(arrays[f"{kind}/labels"], first[f"{kind}/labels"]):
            raise UserError(f"the cells must be of the same rows. Received others from {name}: delete the cells.")
    return Kind(
        first[f"{kind}/labels"], first[f"{kind}/mask"], keys["user"], keys["item"], group(first, "columns"),
        {v: np.stack([cells[v, s][f"{kind}/probabilities"] for s in range(seeds)]) for v in VARIANTS},
        {
            v: {name: np.stack([group(cells[v, s], "causes")[name] for s in range(seeds)])
                for name in group(cells[v, 0], "causes")}
            for v in VARIANTS if v != BASELINE
        },
        recovery.truth_at(data_dir, keys["time"]) if (pathlib.Path(data_dir) / data.TRUTH).is_file() else {},
    )


def ne_changes(results: Results, kind: Kind, resamples: Resamples) -> dict[str, dict[str, Estimate]]:
    """{variant: {"aggregated" or task: change of NE against production}} (CAM2, table 1)."""
    p = kind.probabilities
    return {
        v: ne_change(kind.labels, kind.mask, p[v], p[BASELINE], resamples, results.tasks)
        for v in VARIANTS if v != BASELINE
    }


def levels(
    results: Results, kind: Kind, among: np.ndarray | None = None
) -> dict[str, dict[str, tuple[float, float]]]:
    """{variant: {task: (mean NE, mean AUC) over seeds}} of the rows, or of those `among`; NaN where undefined."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for variant, probabilities in kind.probabilities.items():
        found[variant] = {}
        for k, task in enumerate(results.tasks):
            rows = (kind.mask[:, k] == 1) & (True if among is None else among)
            y = kind.labels[rows, k]
            values = [(normalized_entropy(y, p[rows, k]), auc(y, p[rows, k])) for p in probabilities]
            ne, area = np.mean(np.array(values, float), axis=0)  # None becomes NaN
            found[variant][task] = (float(ne), float(area))
    return found


def row_slices(results: Results, kind: Kind) -> dict[str, dict[str, np.ndarray]]:
    """{family: {slice: mask}} of the rows."""
    return {
        "item age since upload": slices.by_age(kind.columns[results.age]),
        f"popularity ({results.popularity})": slices.by_decile(kind.columns[results.popularity]),
        "user activity": slices.by_activity(kind.users, results.active),
    }


def slice_changes(
    results: Results, kind: Kind, resamples: Resamples, masks: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Estimate]]:
    """{slice: {variant: change of aggregated NE}}; slices without rows are left out."""
    return {
        name: {
            v: ne_change(
                kind.labels[rows], kind.mask[rows], kind.probabilities[v][:, rows],
                kind.probabilities[BASELINE][:, rows], resamples.of(rows), results.tasks,
            )["aggregated"]
            for v in VARIANTS if v != BASELINE
        }
        for name, rows in masks.items() if rows.any()
    }


def expected_engagement(results: Results, kind: Kind, variant: str) -> np.ndarray:
    """(seeds, rows): Σ_t P(t) over the tasks of engagement, which a ranking maximises."""
    return kind.probabilities[variant][:, :, results.positive].sum(axis=2)


def shown(results: Results, kind: Kind, variant: str) -> np.ndarray:
    """(seeds, rows): 1 for the rows among their user's top k by expected engagement, of all measured days together."""
    scores = expected_engagement(results, kind, variant)
    return np.stack([slices.top_k(kind.users, row, results.top_k) for row in scores]).astype(float)


def engagement_by_age(results: Results, kind: Kind, resamples: Resamples) -> dict[str, dict[str, Estimate]]:
    """{age: {variant: change against production of the engagement observed on top-k rows}}.

    An offline reading of CAM2's table 2, which measured it online: a variant is credited with the logged engagement
    of the rows that it ranks among a user's top k.
    """
    observed = kind.labels[:, results.positive].sum(axis=1)
    arms = {v: shown(results, kind, v) * observed for v in VARIANTS}
    masks = {"all ages": np.ones(len(observed), bool), **slices.by_age(kind.columns[results.age])}
    return {
        name: {
            v: resamples.of(rows).change(arms[v][:, rows], arms[BASELINE][:, rows]) for v in VARIANTS if v != BASELINE
        }
        for name, rows in masks.items() if rows.any()
    }


def items_of_engagement(results: Results, kind: Kind, resamples: Resamples) -> dict[str, dict[str, Any]]:
    """{variant: {"50%", "75%": (mean number of items, change against production)}} of predicted top-k engagement.

    CAM2, section 3.3, reports the number of videos that make up 50% and 75% of engagement; more is less concentrated.
    """
    items = np.unique(kind.items, return_inverse=True)[1]
    arms = {v: shown(results, kind, v) * expected_engagement(results, kind, v) for v in VARIANTS}
    found: dict[str, dict[str, Any]] = {v: {} for v in VARIANTS}
    for share in (0.5, 0.75):
        def count(values: np.ndarray, rows: np.ndarray, share: float = share) -> float:
            return slices.concentration(items, values * rows, share)

        for v in VARIANTS:
            mean = float(np.mean([count(row, np.ones(len(items), bool)) for row in arms[v]]))
            found[v][f"{share:.0%}"] = (mean, over_rows(count, arms[v], arms[BASELINE], resamples))
    return found


def correlations(
    results: Results, kind: Kind, against: Mapping[str, np.ndarray]
) -> dict[str, dict[str, list[float]]]:
    """{score: {cause: Spearman correlation for each seed}}, the scores "variant, cause" and two to compare them with.

    X stands in the labels of the causes and among the features of conformity: what matters is what a score has beyond
    X itself, and beyond what production already predicts.
    """
    statistic = results.config.model.cam2.statistic
    scores = {f"X ({statistic})": kind.columns[statistic][None]}
    scores["production, expected engagement"] = expected_engagement(results, kind, BASELINE)
    scores |= {f"{v}, {score}": rows for v, found in kind.causes.items() for score, rows in found.items()}
    return {
        name: {c: [float(spearmanr(row, cause).statistic) for row in rows] for c, cause in against.items()}
        for name, rows in scores.items()
    }


def causes_to_compare(results: Results, kind: Kind) -> dict[str, np.ndarray]:
    """What the scores are compared with: the simulator's true causes, or the popularity column of a real log."""
    if not kind.truth:
        return {results.popularity: kind.columns[results.popularity]}
    return {
        "true popularity": kind.truth["popularity"],
        TRUE_CONFORMITY: kind.truth["conformity"],
        "true interest": kind.truth["relevance"],
    }


def summary(values: Sequence[float]) -> str:
    """Mean over seeds, and the least and the greatest."""
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
