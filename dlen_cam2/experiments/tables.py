"""A table of models on one log: trained, compared, and written as a page."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlen_cam2.config import Config
from dlen_cam2.evaluation.report import ENTIRE_SPACE_NOTE, in_entire_space
from dlen_cam2.experiments import grid, pages, rows, tuned, zoo
from dlen_cam2.experiments.comparison import Comparison, compare
from dlen_cam2.experiments.rows import Log
from dlen_cam2.schema import pbtxt
from dlen_cam2.utils import page
from dlen_cam2.utils.files import write_json
from dlen_cam2.utils.markdown import markdown


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the user asks of a suite.

    Attributes:
        config: sizes and rates that the rows have in common.
        log: what they are trained and measured on.
        output: the directory of the page and the cells.
        seeds: seeds 0, 1, … of every row.
        processes: cells at a time, see `grid.run`.
        trials: of each row's search for hyperparameters; 0: as configured.
        validation: splits that the searches measure on; they train on the other training splits.
    """

    config: Config
    log: Log
    output: pathlib.Path
    seeds: int
    processes: int = 0
    trials: int = 0
    validation: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Table:
    """What came of it: the comparison, and the searches for hyperparameters, none without `Asked.trials`."""

    compared: Comparison
    searches: Sequence[tuned.Search] = ()


def run(asked: Asked, names: Sequence[str]) -> Table:
    """Train the baselines and the networks `names`, each with every seed, and compare them with MMOE."""
    chosen = zoo.rows(asked.config, asked.log, names)
    searches: Sequence[tuned.Search] = ()
    if asked.trials:
        chosen, searches = tuned.tuned(
            chosen, asked.log, asked.validation, asked.trials, asked.output / "tuning", asked.processes
        )
    planned = rows.cells(chosen, asked.log, asked.seeds)
    found = grid.run(list(planned.values()), asked.output / "cells", asked.processes)
    schema = pbtxt.load(asked.log.data_dir).select(asked.config.model.tasks)
    measured = rows.measured(planned, found, schema.task_names).with_entire_space(schema)
    return Table(compare(measured, zoo.BASELINE, zoo.SINGLE), searches)


def write(asked: Asked, table: Table, title: str, more: Sequence[str], plain: Mapping[str, Any]) -> None:
    """Write `report.md`, `report.html`, `results.json`, `differences.png` and `mtl_gain.png` into `asked.output`.

    Args:
        asked, table: what was asked for and what came of it.
        title: of the page.
        more: sections of this suite alone, after the tables that all have.
        plain: what `results.json` has besides.
    """
    found, tasks = table.compared, table.compared.measured.tasks
    if table.searches:
        more = [*more, tuned.section(table.searches, asked.trials, asked.validation)]
        plain = {**plain, "searches": [dataclasses.asdict(search) for search in table.searches]}
    networks = pages.together(found)
    others = [m for m in networks if m != found.baseline]
    gauc = any(np.any(np.isfinite(found.level(found.baseline, t, "gauc"))) for t in tasks)
    parts = [
        f"# {title}", _head(asked, found),
        f"## AUC, and the difference to {found.baseline}", pages.against(found, "auc"),
        f"## NE, and the difference to {found.baseline}; less is better", pages.against(found, "ne"),
        "## Calibration: predicted over observed positives, mean over seeds (spread)",
        pages.levels(found, "calibration"),
        *(["## GAUC, mean over seeds (spread)", pages.levels(found, "gauc")] if gauc else []),
        "## MTL gain",
        f"The gain over `{found.single}` is `M_mtl - M_single`, and `M_single - M_mtl` for NE (PLE, eq 11); above 0 is "
        "better.",
        pages.gains(found, "auc"), pages.gains(found, "ne"),
        *pages.by_task(found),
        "## Cost", pages.costs(found), pages.COSTS_NOTE, *more,
        "![differences](differences.png)\n![MTL gain](mtl_gain.png)",
    ]
    pages.draw(asked.output / "differences.png", {
        f"{label} minus {found.baseline}": {
            m: {t: found.difference(m, found.baseline, t, metric) for t in tasks} for m in others
        } for metric, label in (("auc", "AUC"), ("ne", "NE"))
    }, "difference, 95% interval")
    pages.draw(asked.output / "mtl_gain.png", {
        f"{label} (above 0: better than {found.single})": {
            m: {t: found.gain(m, t, metric) for t in tasks} for m in networks
        } for metric, label in (("auc", "AUC"), ("ne", "NE, reversed"))
    }, "MTL gain, 95% interval")
    write_json(asked.output / pages.RESULTS, pages.results(found) | pages.plain(plain))
    page.write(asked.output / pages.REPORT, "\n\n".join(parts) + "\n")


def _head(asked: Asked, found: Comparison) -> str:
    measured = found.measured
    seeds = "one seed" if asked.seeds == 1 else f"{asked.seeds} seeds"
    over = "users" if len(np.unique(measured.users)) < len(measured.users) else "rows (each is its own user)"
    counts = markdown(["task", "rows", "positives"], (
        [t, f"{measured.mask[:, k].sum():,.0f}", f"{(measured.labels * measured.mask)[:, k].sum():,.0f}"]
        for k, t in enumerate(measured.tasks)
    ))
    effort = "Every row has the hyperparameters of the configuration: no search was run for this page."
    if asked.trials:
        effort = f"Each network was tuned with {asked.trials} trials on {', '.join(asked.validation)}, see below."
    notes = zoo.NOTE + (f" {zoo.ESMM_NOTE}" if "ESMM" in found.models else "")
    if any(in_entire_space(task) in measured.tasks for task in measured.tasks):
        notes += f" {ENTIRE_SPACE_NOTE}"
    return (
        f"`{asked.config.name}`, trained on {_span(asked.log.train)}, measured on {_span(asked.log.measured)}, "
        f"{seeds}. {effort} Brackets are 95% paired intervals over {over}"
        f"{' and seeds' if asked.seeds > 1 else ', not over seeds'}. {pages.MANY_NOTE} {notes}\n\n"
        f"Measured rows:\n\n{counts}"
    )


def _span(splits: Sequence[str]) -> str:
    return ", ".join(splits) if len(splits) < 3 else f"{splits[0]}..{splits[-1]}"
