"""Recurring training: every day is measured by the model of the day before, and then trained on."""

import dataclasses
import os
from collections.abc import Iterator, Sequence

import numpy as np

from dlen_cam2 import data, evaluation
from dlen_cam2.config import Config
from dlen_cam2.evaluation import Predictions
from dlen_cam2.schema import pbtxt
from dlen_cam2.training import jobs, passes
from dlen_cam2.utils.errors import UserError

# Splits of a day that no model trains on: uniformly random exposures, and DICE's intervened sample.
OFF_POLICY = ("random", "intervened")
LOGGED = "logged"


def recurring(
    config: Config, data_dir: str | os.PathLike, warm: Sequence[str], days: Sequence[str],
    columns: Sequence[str] = (),
) -> dict[str, Predictions]:
    """Train on `warm`; then, for each of `days`, predict the day and continue training on it.

    Day D thus continues from the weights and optimizer state of day D-1 and is measured on D+1 (CAM2, section 3.1). The
    fitted states (moments, positive rates, CAM2's threshold) come from `warm` and do not change.

    Args:
        config: the configuration; there are `config.train.epochs` passes over each day.
        data_dir: the data set.
        warm: the first days, none of which is measured.
        days: the days to measure; each except the last is then trained on.
        columns: numeric columns to keep beside the predictions.

    Returns:
        Predictions of all of `days` by kind: "logged", and "random" or "intervened" where the data set has such splits
        of these days.
    """
    job = jobs.start(config, data_dir, warm)
    schema = dataclasses.replace(job.schema, targets=tuple(dict.fromkeys((*job.schema.targets, *columns))))
    score = evaluation.scorer(job.scored, job.read_out)
    found: dict[str, list[Predictions]] = {}
    for trained, measured in stages(data_dir, warm, days):
        passes.fit(job, trained)
        job.refresh()
        for kind, split in measured.items():
            found.setdefault(kind, []).append(evaluation.predict(score, schema, data_dir, split))
    return {kind: evaluation.together(parts) for kind, parts in found.items()}


def stages(
    data_dir: str | os.PathLike, warm: Sequence[str], days: Sequence[str]
) -> Iterator[tuple[list[str], dict[str, str]]]:
    """For each of `days`: the splits to train on first, and `{kind: split}` to measure then."""
    splits = data.statistics(data_dir)["days"]
    for trained, day in zip([list(warm), *([day] for day in days)], days, strict=False):
        measured = {LOGGED: day, **{kind: f"{day}_{kind}" for kind in OFF_POLICY}}
        yield trained, {kind: split for kind, split in measured.items() if split in splits and splits[split]["rows"]}


def active_days(data_dir: str | os.PathLike, days: Sequence[str], last: int = 28) -> dict[int, int]:
    """`{user: number of the last `last` of `days` on which the user had an exposure}`."""
    schema = dataclasses.replace(pbtxt.load(data_dir), features=(), tasks=(), targets=())
    if "user" not in schema.keys:
        raise UserError(f"the schema of {data_dir} must have a user key. Received: {dict(schema.keys)}.")
    active: dict[int, int] = {}
    for day in days[-last:]:
        users = [labels[schema.keys["user"]].numpy() for _, labels in data.read(data_dir, schema, [day], 8192)]
        for user in np.unique(np.concatenate(users)) if users else ():
            active[user] = active.get(user, 0) + 1
    return active
