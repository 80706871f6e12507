"""The usual models of a table by CAM2's protocol: every day is measured by what was trained on the days before."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from dlen_cam2 import data
from dlen_cam2.config import Config, replaced
from dlen_cam2.experiments import grid, networks, rows, zoo
from dlen_cam2.experiments.cells import Arrays
from dlen_cam2.experiments.recurring import recurring, stages
from dlen_cam2.experiments.rows import Log, Train

NOTE = (
    f"The networks continue from day to day, like production; `{zoo.CONSTANT}` and `{zoo.TREES}` are refitted on all "
    "days before the measured one."
)

Cells = dict[tuple[str, int, str], grid.Cell]


def cells(config: Config, data_dir: str, warm: Sequence[str], measured: Sequence[str], seeds: int) -> Cells:
    """As of `rows.cells`; the network that production is, without branches, is left out.

    Raises:
        UserError: LightGBM is not installed.
    """
    plain = replaced(config, {"model.causal": None})
    production = (config.model.trunk.name, config.model.head.name)
    names = [name for name in zoo.without("dlen") if zoo.networks()[name] != production]
    log = Log(data_dir, tuple(warm), tuple(measured))
    return {
        which: dataclasses.replace(
            one, key={**one.key, "protocol": __name__}, compute=_train, arguments=(one.compute, *one.arguments)
        )
        for which, one in rows.cells(zoo.rows(plain, log, names), log, seeds).items()
    }


def _train(train: Train, config: Config, log: Log) -> Arrays:
    """What a cell computes: "kind/labels" and "kind/probabilities", (rows, T), for each kind of exposure.

    Args:
        train, config: the model.
        log: its days to train on come before any measurement.
    """
    if train is networks.train:
        days = recurring(config, log.data_dir, log.train, log.measured)
        return {f"{kind}/{name}": getattr(p, name) for kind, p in days.items() for name in ("labels", "probabilities")}
    recorded = data.statistics(log.data_dir)["days"]
    known: list[str] = []
    found: dict[str, list[np.ndarray]] = {}
    for trained, by_kind in stages(log.data_dir, log.train, log.measured):
        known += trained
        ends = np.cumsum([recorded[split]["rows"] for split in by_kind.values()])
        arrays = train(config, dataclasses.replace(log, train=tuple(known), measured=tuple(by_kind.values())))
        for name in ("labels", "probabilities"):
            for kind, part in zip(by_kind, np.split(arrays[name], ends[:-1]), strict=True):
                found.setdefault(f"{kind}/{name}", []).append(part)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def together(planned: Cells, found: Mapping[str, Arrays]) -> dict[tuple[str, int], Arrays]:
    """{(model, seed): arrays}, those of a model a task side by side."""
    parts: dict[tuple[str, int], list[Arrays]] = {}
    for (model, seed, _), one in planned.items():
        parts.setdefault((model, seed), []).append(found[one.name])
    return {
        which: {name: np.concatenate([part[name] for part in of_tasks], axis=1) for name in of_tasks[0]}
        for which, of_tasks in parts.items()
    }
