"""`Request`: what the user asks `train` to do."""

import dataclasses
import os
import pathlib
from typing import Any

from dlen_cam2 import config as config_module
from dlen_cam2 import data
from dlen_cam2.config import Config
from dlen_cam2.training import plan
from dlen_cam2.training.plan import Stage
from dlen_cam2.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asks `train` to do.

    Attributes:
        config: what to build and how to train it.
        data_dir: a data set that a pipeline wrote.
        model_dir: the model directory to write; replaced if it holds a model.
        stages: days to train on, and splits to measure after them.
        validation: splits on which `config.train.monitor` is computed after each pass.
        continue_from: yesterday's model directory: start from its weights and optimizer state, and keep what it fitted
            on its training days (vocabularies, moments, positive rates, CAM2's threshold).
        grow: with `continue_from`, take in new vocabulary values, features and tasks, see `dlen_cam2.training.grow`.
        on_bad_record: see `dlen_cam2.data.read`.
        checkpoint_steps, checkpoint_seconds: number of steps and seconds between two checkpoints; 0: no such limit.
            There is always a checkpoint after each pass and each measured stage.
        keep: number of checkpoints to keep.
        restart: discard an unfinished earlier run of the same model directory.
        profile_steps: the first and last step to profile for TensorBoard; empty: no profile.
    """

    config: Config
    data_dir: str | os.PathLike
    model_dir: str | os.PathLike
    stages: tuple[Stage, ...]
    validation: tuple[str, ...] = ()
    continue_from: str | os.PathLike | None = None
    grow: bool = False
    on_bad_record: str = "fail"
    checkpoint_steps: int = 0
    checkpoint_seconds: float = 600.0
    keep: int = 3
    restart: bool = False
    profile_steps: tuple[int, int] | tuple[()] = ()

    @property
    def fitted(self) -> list[str]:
        """The days for fitting vocabularies, moments and rates: none that is measured before it is trained on."""
        first = next(i for i, stage in enumerate(self.stages) if stage.measured)
        return [day for stage in self.stages[: first + 1] for day in stage.days]

    @property
    def work(self) -> pathlib.Path:
        """The directory in which the run keeps what it needs to resume."""
        target = pathlib.Path(self.model_dir).resolve()
        return target.with_name(target.name + ".training")


def once(
    config: Config, data_dir: str | os.PathLike, directory: str | os.PathLike, train_days: str, eval_days: str,
    validation_days: str = "", **options: Any,
) -> Request:
    """Create a `Request` to train on `train_days` and measure `eval_days` at the end.

    Raises:
        UserError: a day does not exist, or is both in the training and in the evaluation days.
    """
    config_module.check(config)
    known = list(data.statistics(data_dir)["days"])
    days, tests = data.parse_days(train_days, known), data.parse_days(eval_days, known)
    daily = options.get("continue_from") is not None
    stages = tuple(dataclasses.replace(s, daily=daily) for s in plan.plan(config.train, days, tests))
    validation = tuple(data.parse_days(validation_days, known)) if validation_days else ()
    return _checked(Request(config, data_dir, directory, stages, validation, **options))


def recurring(
    config: Config, data_dir: str | os.PathLike, directory: str | os.PathLike, days: str, validation_days: str = "",
    **options: Any,
) -> Request:
    """Create a `Request` to train on each of `days` in turn and to measure each day with the model of the day before.

    Vocabularies, moments and rates are those of the first day, as with `continue_from`. The day after the last one is
    measured if the data set contains it. Splits such as `20240108_random` are measured with their day.
    """
    config_module.check(config)
    known = list(data.statistics(data_dir)["days"])
    chosen = data.parse_days(days, known)
    logged = [day for day in known if "_" not in day]
    if strange := [day for day in chosen if day not in logged]:
        raise UserError(f"--days must be days, not splits such as DAY_random. Received: {strange}. Known: {logged}.")
    stages: list[Stage] = []
    for day in chosen:
        after = logged[logged.index(day) + 1 :][:1]
        measured = tuple(s for s in known for d in after if s == d or s.startswith(f"{d}_"))
        stages.append(Stage((day,), measured, bool(stages) or options.get("continue_from") is not None))
    if not any(stage.measured for stage in stages):
        raise UserError(f"--eval=next needs a day after the first of --days. Received: {days!r}. Known: {logged}.")
    validation = tuple(data.parse_days(validation_days, known)) if validation_days else ()
    return _checked(Request(config, data_dir, directory, tuple(stages), validation, **options))


def _checked(wanted: Request) -> Request:
    trained: set[str] = set()
    for stage in wanted.stages:
        trained |= set(stage.days)
        if both := sorted(trained & set(stage.measured)):
            raise UserError(f"a day may be trained on or measured, not both. Received in both: {both}.")
    if both := sorted((trained | {d for s in wanted.stages for d in s.measured}) & set(wanted.validation)):
        raise UserError(
            f"a validation day chooses the weights, so it may not be trained on or measured. Received in both: {both}."
        )
    if bool(wanted.validation) != bool(wanted.config.train.monitor):
        raise UserError(
            "config.train.monitor and --validation_days must be given together. Received: "
            f"monitor={wanted.config.train.monitor!r}, validation days {list(wanted.validation)}."
        )
    if wanted.grow and wanted.continue_from is None:
        raise UserError("--grow needs --continue_from, whose model it extends. Received: no --continue_from.")
    return wanted
