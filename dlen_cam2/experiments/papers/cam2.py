"""CAM2's experiments: the five variants of its Table 1, by recurring training, over several seeds."""

import copy
import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from dlen_cam2 import __version__, data
from dlen_cam2.config import Config, as_dict
from dlen_cam2.evaluation import Predictions
from dlen_cam2.evaluation.truth import truth_at
from dlen_cam2.experiments import daily_protocol, grid
from dlen_cam2.experiments.baselines import dice
from dlen_cam2.experiments.cells import Arrays
from dlen_cam2.experiments.recurring import LOGGED, active_days, recurring
from dlen_cam2.models import CAM2
from dlen_cam2.models.causal.cam2.threshold import statistic_of
from dlen_cam2.schema import Schema, pbtxt
from dlen_cam2.utils.errors import UserError

BASELINE = "production"
PROPOSED = "proposed"
# The rows of the paper's Table 1; the first has no branches.
VARIANTS = (BASELINE, "task_arch", "joint_loss", "all_features", PROPOSED)
DICE = "DICE"


@dataclasses.dataclass(frozen=True)
class Kind:
    """The evaluated rows of one kind of exposure, and what every variant and seed predicted for them.

    Attributes:
        labels, mask: (rows, T).
        users, items: (rows,).
        columns: {column: (rows,)}, such as the item's age.
        probabilities: {variant: (seeds, rows, T)}.
        others: {model: (seeds, rows, T)}, probabilities of the models of `daily`.
        causes: {variant: {"conformity", "relevance": (seeds, rows)}}; production has none.
        dice: what DICE says: "relevance" and "conformity", its two products, (seeds, rows); and "engaged" and "space",
            (rows,), the engagement that it was trained on and its sample space.
        truth: {column: (rows,)} of a simulated log, else empty.
    """

    labels: np.ndarray
    mask: np.ndarray
    users: np.ndarray
    items: np.ndarray
    columns: dict[str, np.ndarray]
    probabilities: dict[str, np.ndarray]
    others: dict[str, np.ndarray]
    causes: dict[str, dict[str, np.ndarray]]
    dice: dict[str, np.ndarray]
    truth: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Results:
    """What the page is written from.

    Attributes:
        config: the experiment, as its file says.
        tasks, positive: the tasks' names, and those that are engagement: not negative, and defined for every row.
        schema: with these tasks.
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
    schema: Schema
    warm: list[str]
    days: list[str]
    seeds: int
    top_k: int
    kinds: dict[str, Kind]
    active: dict[int, int]
    age: str
    popularity: str

    @property
    def causal(self) -> CAM2:
        """The branches, as the experiment's file says."""
        assert isinstance(self.config.model.causal, CAM2)
        return self.config.model.causal


def run(
    config: Config, data_dir: str, output: str | os.PathLike, seeds: int, warm_days: int, top_k: int, age: str,
    popularity: str, processes: int = 0,
) -> Results:
    """Train every variant, DICE and the usual models with every seed, day after day; finished cells are kept.

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
    schema = pbtxt.load(data_dir)
    for role in ("user", "item"):
        if role not in schema.keys:
            raise UserError(f"{data_dir} must have a key of the role {role!r}. Received: {dict(schema.keys)}.")
    numeric = [f.name for f in schema.features if f.is_numeric] + list(schema.targets)
    for flag, column in (("age", age), ("popularity", popularity)):
        if column not in numeric:
            raise UserError(
                f"--{flag} must name a numeric column of {data_dir}. Received: {column!r}. Known: {numeric}."
            )
    causal = config.model.causal
    if not isinstance(causal, CAM2):
        raise UserError(f"config.model.causal must be 'cam2', whose variants are compared. Received: {causal!r}.")
    causal = dataclasses.replace(causal, statistic=statistic_of(causal, schema.features))
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, causal=causal))
    statistics = data.statistics(data_dir)
    days = sorted(d for d in statistics["days"] if d.isdigit())
    warm_days = warm_days or len(days) // 2
    if not 1 <= warm_days < len(days):
        raise UserError(f"--warm_days must leave one of {len(days)} days to measure. Received: {warm_days}.")
    warm, measured = days[:warm_days], days[warm_days:]

    planned = {}
    for seed in range(seeds):
        for variant in VARIANTS:
            chosen = copy.deepcopy(config)
            chosen.model.causal = None if variant == BASELINE else dataclasses.replace(causal, variant=variant)
            chosen.train.seed = seed
            key = {"version": __version__, "config": as_dict(chosen), "statistic": causal.statistic, "data": statistics,
                   "warm": warm,
                   "days": measured}
            planned[variant, seed] = grid.Cell(
                f"{variant}-seed{seed}", key, _train,
                (chosen, data_dir, warm, measured, (age, popularity, causal.statistic)),
            )
        planned[DICE, seed] = grid.Cell(
            f"{DICE}-seed{seed}",
            {**planned[BASELINE, seed].key, "model": DICE, "engagement": causal.engagement}, dice.train,
            (planned[BASELINE, seed].arguments[0], data_dir, warm, measured, causal.engagement),
        )
    usual = daily_protocol.cells(config, data_dir, warm, measured, seeds)
    found = grid.run([*planned.values(), *usual.values()], pathlib.Path(output) / "cells", processes)
    cells = {which: found[one.name] for which, one in planned.items()} | daily_protocol.together(usual, found)
    others = list(dict.fromkeys(model for model, _, _ in usual))

    schema = schema.select(config.model.tasks)
    tasks = schema.tasks
    kinds = sorted({name.split("/")[0] for name in cells[BASELINE, 0]}, key=lambda kind: (kind != LOGGED, kind))
    return Results(
        config, tuple(t.name for t in tasks),
        tuple(i for i, t in enumerate(tasks) if not t.negative and not t.mask), schema, warm, measured, seeds, top_k,
        {kind: _kind(kind, cells, others, data_dir, seeds) for kind in kinds}, active_days(data_dir, warm), age,
        popularity,
    )


def _train(
    config: Config, data_dir: str, warm: Sequence[str], measured: Sequence[str], columns: Sequence[str]
) -> Arrays:
    """What a cell computes."""
    return _arrays(recurring(config, data_dir, warm, measured, columns))


def _arrays(found: Mapping[str, Predictions]) -> Arrays:
    """What a cell keeps: `kind/name` arrays."""
    arrays: Arrays = {}
    for kind, p in found.items():
        arrays |= {f"{kind}/labels": p.labels, f"{kind}/mask": p.mask, f"{kind}/probabilities": p.probabilities}
        for group in ("keys", "columns", "causes"):
            arrays |= {f"{kind}/{group}/{name}": values for name, values in getattr(p, group).items()}
    return arrays


def _kind(
    kind: str, cells: Mapping[tuple[str, int], Arrays], others: Sequence[str], data_dir: str, seeds: int
) -> Kind:
    first = cells[BASELINE, 0]

    def group(arrays: Arrays, name: str) -> dict[str, np.ndarray]:
        prefix = f"{kind}/{name}/"
        return {n.removeprefix(prefix): values for n, values in arrays.items() if n.startswith(prefix)}

    keys = group(first, "keys")
    for name, arrays in cells.items():
        of_kind, labels = (cells[DICE, 0], "engaged") if name[0] == DICE else (first, "labels")
        rows, wanted = arrays[f"{kind}/{labels}"], of_kind[f"{kind}/{labels}"]
        if len(rows) != len(keys["user"]) or not np.array_equal(rows, wanted):
            raise UserError(f"all cells must have the same rows: delete the cells. Received: other rows from {name}.")

    def probabilities(names: Sequence[str]) -> dict[str, np.ndarray]:
        return {name: np.stack([cells[name, s][f"{kind}/probabilities"] for s in range(seeds)]) for name in names}

    return Kind(
        first[f"{kind}/labels"], first[f"{kind}/mask"], keys["user"], keys["item"], group(first, "columns"),
        probabilities(VARIANTS), probabilities(others),
        {
            v: {name: np.stack([group(cells[v, s], "causes")[name] for s in range(seeds)])
                for name in group(cells[v, 0], "causes")}
            for v in VARIANTS if v != BASELINE
        },
        {
            **{c: np.stack([cells[DICE, s][f"{kind}/{c}"] for s in range(seeds)]) for c in dice.CAUSES},
            **{name: cells[DICE, 0][f"{kind}/{name}"] for name in ("engaged", "space")},
        },
        truth_at(data_dir, keys["time"]) if (pathlib.Path(data_dir) / data.TRUTH).is_file() else {},
    )


