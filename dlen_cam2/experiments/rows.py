"""Rows of a table: a named model each, how it is trained and measured, and what is kept of it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dlen_cam2 import __version__, data, evaluation
from dlen_cam2.config import Config, as_dict, replaced
from dlen_cam2.evaluation import Predictions, Score
from dlen_cam2.evaluation.report import in_entire_space
from dlen_cam2.experiments import grid
from dlen_cam2.experiments.cells import Arrays
from dlen_cam2.schema import Schema, pbtxt
from dlen_cam2.utils.errors import UserError

COSTS = ("parameters", "flops", "rows_per_second")


@dataclasses.dataclass(frozen=True)
class Log:
    """What a table's models are trained and measured on.

    Attributes:
        data_dir: a data set of the pipelines.
        train, measured: its splits.
        columns: numeric columns to keep beside the predictions.
    """

    data_dir: str
    train: tuple[str, ...]
    measured: tuple[str, ...]
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if both := sorted(set(self.train) & set(self.measured)):
            raise UserError(f"a day may be trained on or measured, not both. Received in both: {both}.")

    def schema(self, config: Config) -> Schema:
        """What the model of `config` sees, fitted on the training days."""
        model = config.model
        stored = pbtxt.load(self.data_dir).select(model.tasks, model.features, model.without)
        return data.fit(self.data_dir, stored.weigh(model.task_weights), self.train)

    def predictions(self, score: Score, schema: Schema) -> Predictions:
        """Of all measured splits together; `score` is what `evaluation.scorer` returns, or does the same."""
        schema = dataclasses.replace(schema, targets=tuple(dict.fromkeys((*schema.targets, *self.columns))))
        return evaluation.together(
            [evaluation.predict(score, schema, self.data_dir, split) for split in self.measured]
        )


# Trains the model of a configuration and measures it: `kept(predictions, …)`.
Train = Callable[[Config, Log], Arrays]


@dataclasses.dataclass(frozen=True)
class Row:
    """A model of a table.

    Attributes:
        name: as the page shows it.
        configs: {task: the model of that task alone}, or {"": the model of all tasks}; the seed is set for each cell.
        train: a function of a module, since other processes call it.
    """

    name: str
    configs: dict[str, Config]
    train: Train

    @classmethod
    def of_each_task(cls, name: str, config: Config, tasks: Sequence[str], train: Train) -> "Row":
        """One model for each task, which sees that task alone."""
        alone = {task: replaced(config, {"model.tasks": (task,), "model.task_weights": ()}) for task in tasks}
        return cls(name, alone, train)

    def file_name(self, task: str, *more: str) -> str:
        """Of what is kept of the model of `task` ("": of all tasks), such as "single_task-like-seed0"."""
        return "-".join(filter(None, (self.name.replace(" ", "_"), task, *more)))


def kept(predictions: Predictions, **more: float | np.ndarray) -> Arrays:
    """What a cell keeps of a model; `more` are its `COSTS`, and what a suite asks of its own."""
    arrays = {"labels": predictions.labels, "mask": predictions.mask, "probabilities": predictions.probabilities}
    for group in ("keys", "columns"):
        arrays |= {f"{group}/{name}": values for name, values in getattr(predictions, group).items()}
    if predictions.p_up is not None:
        arrays["p_up"] = predictions.p_up
    return arrays | {name: np.asarray(value) for name, value in more.items()}


@dataclasses.dataclass(frozen=True)
class Measured:
    """The measured rows, and what every model and seed predicted for them.

    Attributes:
        tasks: the T names.
        labels, mask: (rows, T).
        users: (rows,) whose row it is; without a user key each row is its own.
        probabilities: {model: (seeds, rows, T)}.
        costs: {model: {one of `COSTS`: (seeds,)}}; NaN where a model has none. Of a model a task they are those of all.
        others: {model: {array: (seeds, …)}}, what else the cells kept.
    """

    tasks: tuple[str, ...]
    labels: np.ndarray
    mask: np.ndarray
    users: np.ndarray
    probabilities: dict[str, np.ndarray]
    costs: dict[str, dict[str, np.ndarray]]
    others: dict[str, dict[str, np.ndarray]]

    @property
    def seeds(self) -> int:
        return len(next(iter(self.probabilities.values())))

    def with_entire_space(self, schema: Schema) -> "Measured":
        """The same with a column more for each task that follows others, see `evaluation.entire_space`.

        `schema` has the tasks of these columns, in their order.
        """
        found = {m: evaluation.entire_space(schema, self.labels, self.mask, p) for m, p in self.probabilities.items()}
        first = next(iter(found.values()))
        if not first:
            return self
        labels, mask = (np.stack([columns[k] for columns in first.values()], axis=1) for k in (0, 1))
        return dataclasses.replace(
            self, tasks=(*self.tasks, *map(in_entire_space, first)),
            labels=np.concatenate([self.labels, labels], axis=1), mask=np.concatenate([self.mask, mask], axis=1),
            probabilities={
                m: np.concatenate([p, np.stack([columns[2] for columns in found[m].values()], axis=-1)], axis=-1)
                for m, p in self.probabilities.items()
            },
        )


def cells(rows: Sequence[Row], log: Log, seeds: int, first: int = 0) -> dict[tuple[str, int, str], grid.Cell]:
    """{(model, index of the seed, task or ""): cell}, seed after seed, so that a suite that is stopped has whole ones.

    Args:
        rows, log: what to train and on what.
        seeds: how many: `first`, `first` + 1, …
        first: the first seed.
    """
    found: dict[tuple[str, int, str], grid.Cell] = {}
    statistics = data.statistics(log.data_dir)
    for index in range(seeds):
        for row in rows:
            for task, config in row.configs.items():
                config = replaced(config, {"train.seed": first + index})
                key = {"version": __version__, "model": row.train.__module__, "config": as_dict(config),
                       "data": statistics, "train": log.train, "measured": log.measured}
                name = row.file_name(task, f"seed{first + index}")
                found[row.name, index, task] = grid.Cell(name, key, row.train, (config, log))
    return found


def measured(
    planned: Mapping[tuple[str, int, str], grid.Cell], found: Mapping[str, Arrays], tasks: Sequence[str]
) -> Measured:
    """What the grid found, model by model.

    Raises:
        UserError: cells are of other rows than the first one.
    """
    parts: dict[str, list[list[Arrays]]] = {}
    for (model, seed, _), one in planned.items():
        by_seed = parts.setdefault(model, [])
        if len(by_seed) == seed:
            by_seed.append([])
        by_seed[seed].append(found[one.name])
    whole = {model: [_side_by_side(of_tasks) for of_tasks in by_seed] for model, by_seed in parts.items()}
    first = next(iter(whole.values()))[0]
    for model, of_seeds in whole.items():
        if any(not np.array_equal(arrays[n], first[n]) for arrays in of_seeds for n in ("labels", "mask")):
            raise UserError(f"all cells must have the same rows: delete the cells. Received: other rows from {model}.")

    def stacked(by_seed: Sequence[Arrays], names: Sequence[str]) -> dict[str, np.ndarray]:
        return {n: np.stack([arrays[n] for arrays in by_seed]) for n in names if n in by_seed[0]}

    usual = {"labels", "mask", "probabilities", *COSTS}
    rows = len(first["labels"])
    return Measured(
        tuple(tasks), first["labels"], first["mask"], first.get("keys/user", np.arange(rows)),
        {model: stacked(by_seed, ["probabilities"])["probabilities"] for model, by_seed in whole.items()},
        {model: stacked(by_seed, COSTS) for model, by_seed in whole.items()},
        {model: stacked(by_seed, [n for n in by_seed[0] if n not in usual]) for model, by_seed in whole.items()},
    )


def _side_by_side(parts: Sequence[Arrays]) -> Arrays:
    """One model a task as one: their columns beside each other, their costs added up."""
    if len(parts) == 1:
        return parts[0]
    arrays = {n: values for n, values in parts[0].items() if n.startswith(("keys/", "columns/"))}
    arrays |= {n: np.concatenate([p[n] for p in parts], axis=1) for n in ("labels", "mask", "probabilities")}
    arrays |= {n: np.sum([p[n] for p in parts], axis=0) for n in ("parameters", "flops")}
    # Each model reads all rows.
    return arrays | {"rows_per_second": 1 / np.sum([1 / p["rows_per_second"] for p in parts], axis=0)}
