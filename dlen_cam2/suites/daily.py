"""The usual models of a table by CAM2's protocol: every day is measured by what was trained on the days before."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from dlen_cam2 import __version__, data
from dlen_cam2.config import Cam2Config, Config, replaced
from dlen_cam2.recurring import recurring, stages
from dlen_cam2.suites import grid, networks, zoo
from dlen_cam2.suites.cells import Arrays
from dlen_cam2.suites.rows import Log, Row, Train

NETWORKS = ("shared bottom", "ESMM", "MMOE", "CGC", "PLE")
NOTE = (
    f"The networks go on from day to day like production; `{zoo.CONSTANT}` and `{zoo.TREES}` are fitted anew to all "
    "days before the measured one."
)

Cells = dict[str, list[dict[str, grid.Cell]]]


def cells(config: Config, data_dir: str, warm: Sequence[str], measured: Sequence[str], seeds: int) -> Cells:
    """{model: for each seed {task or "": cell}}; the network that production is, without branches, is left out.

    Raises:
        UserError: LightGBM is not installed.
    """
    plain = replaced(config, {"model.cam2": dataclasses.asdict(Cam2Config())})
    production = (config.model.trunk, config.model.head)
    rows = zoo.rows(plain, Log(data_dir, tuple(warm), tuple(measured)),
                    [name for name in NETWORKS if zoo.NETWORKS[name] != production])
    return {row.name: [_cells(row, data_dir, warm, measured, seed) for seed in range(seeds)] for row in rows}


def _cells(row: Row, data_dir: str, warm: Sequence[str], measured: Sequence[str], seed: int) -> dict[str, grid.Cell]:
    found = {}
    for task, config in row.configs.items():
        config = replaced(config, {"train.seed": seed})
        key = {"version": __version__, "model": row.train.__module__, "config": dataclasses.asdict(config),
               "data": data.statistics(data_dir), "warm": warm, "days": measured}
        found[task] = grid.Cell(
            row.file_name(task, f"seed{seed}"), key, _train, (row.train, config, data_dir, warm, measured)
        )
    return found


def _train(train: Train, config: Config, data_dir: str, warm: Sequence[str], measured: Sequence[str]) -> Arrays:
    """What a cell computes: "kind/labels" and "kind/probabilities", (rows, T), for each kind of exposure."""
    if train is networks.train:
        days = recurring(config, data_dir, warm, measured)
        return {f"{kind}/{name}": getattr(p, name) for kind, p in days.items() for name in ("labels", "probabilities")}
    known: list[str] = []
    found: dict[str, list[np.ndarray]] = {}
    for trained, by_kind in stages(data_dir, warm, measured):
        known += trained
        rows = [data.statistics(data_dir)["days"][split]["rows"] for split in by_kind.values()]
        arrays = train(config, Log(data_dir, tuple(known), tuple(by_kind.values())))
        for name in ("labels", "probabilities"):
            for kind, part in zip(by_kind, np.split(arrays[name], np.cumsum(rows)[:-1]), strict=True):
                found.setdefault(f"{kind}/{name}", []).append(part)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def side_by_side(of_tasks: Mapping[str, grid.Cell], found: Mapping[str, Arrays]) -> Arrays:
    """The arrays of a model, whether it is one of all tasks or one a task."""
    parts = [found[cell.name] for cell in of_tasks.values()]
    return {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
