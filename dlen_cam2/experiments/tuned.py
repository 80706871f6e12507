"""Equal effort: each network of a table gets a search for hyperparameters of the same budget."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from dlen_cam2.configs import spaces
from dlen_cam2.experiments import networks
from dlen_cam2.experiments.rows import Log, Row
from dlen_cam2.utils import console, worker_processes
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.markdown import markdown

OBJECTIVE, TUNER = "ne", "random"


@dataclasses.dataclass(frozen=True)
class Search:
    """What a search of one network came to.

    Attributes:
        model, task: whose it was; the task is "" for a network of all tasks.
        configured, best: mean NE on the validation days, as configured and of the best trial; None: it failed.
        values: `{key: value}` of the best trial; empty where no trial was better than what was configured.
        failed: how many trials failed.
    """

    model: str
    task: str
    configured: float | None
    best: float
    values: Mapping[str, Any]
    failed: int


def tuned(
    rows: Sequence[Row], log: Log, validation: Sequence[str], trials: int, output: str | os.PathLike, processes: int = 0
) -> tuple[list[Row], list[Search]]:
    """The rows with the best configurations of `trials` trials of each network (of one model a task: of each).

    A search trains on the log's training days without `validation` and measures there; the rows are then trained on
    all training days. Rows that are no networks stay as they are.

    Args:
        rows, log: of the table.
        validation: splits of the training days, or others that are not measured.
        trials: random choices from the space that fits a network's trunk and head, besides the configured one.
        output: a directory for the searches, which go on where they were stopped.
        processes: trials at a time; 0: as many as there are cores.

    Raises:
        UserError: there is nothing to train on besides `validation`, or all trials of a network failed.
    """
    from dlen_cam2 import tuning  # here, so that a suite which tunes nothing does not wait for keras-tuner

    if strange := sorted(set(validation) & set(log.measured)):
        raise UserError(f"a validation day chooses hyperparameters, so it may not be measured. Received: {strange}.")
    train = [day for day in log.train if day not in validation]
    if not train or not validation:
        raise UserError(
            "--trials needs days to train on, and other days to validate on, named by --validation_days. Received: "
            f"training days {list(log.train)}, validation days {list(validation)}."
        )
    found, searches = [], []
    for row in rows:
        if row.train is not networks.train:
            found.append(row)
            continue
        configs = {}
        for task, config in row.configs.items():
            name = row.file_name(task)
            console.say(f"tuning {name} with {trials} trials")
            best = tuning.search(
                config, spaces.fitting(config), log.data_dir, ",".join(train), ",".join(validation), OBJECTIVE, TUNER,
                trials, 0, pathlib.Path(output) / name, processes or worker_processes.cores(),
            )
            configs[task] = best.config
            searches.append(Search(
                row.name, task, best.trials[0].metrics.get(OBJECTIVE), best.value, best.best.values,
                sum(bool(trial.reason) for trial in best.trials),
            ))
        found.append(dataclasses.replace(row, configs=configs))
    return found, searches


def section(searches: Sequence[Search], trials: int, validation: Sequence[str]) -> str:
    """What the page says of the searches."""
    lines = (
        [s.model, s.task or "all", "failed" if s.configured is None else f"{s.configured:.4f}", f"{s.best:.4f}",
         ", ".join(f"{key}={value}" for key, value in s.values.items()) or "as configured", str(s.failed)]
        for s in searches
    )
    return (
        f"## Hyperparameters\n\nEach network was tuned with {trials} random trials besides its configuration (for one "
        f"network a task, each of these networks). Trials were measured by mean NE on {', '.join(validation)}, which "
        "no trial was trained on. The models of the tables were then trained on all training days. The constant rate "
        "and LightGBM were not tuned.\n\n"
        + markdown(["model", "tasks", "NE, configured", "NE, best", "values of the best trial", "failed trials"], lines)
    )
