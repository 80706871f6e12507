"""The record of a search: what each trial was, and its result."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from dlen_cam2.config import Config, larger_is_better, replaced
from dlen_cam2.parts import Part
from dlen_cam2.tuning import hparams
from dlen_cam2.tuning.result import CONFIGURED, Found, Trial
from dlen_cam2.tuning.trial_process import LOG, TrialProcess
from dlen_cam2.utils import console
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import read_json, write_json

TRIALS = "trials"
_RESULT = "result.json"
_ABSENT = object()


class Trials:
    """The trials of a search, each trained once and recorded in `OUTPUT/trials/trial_NAME/result.json`.

    The arguments are those of `search`.
    """

    def __init__(
        self, config: Config, data_dir: str, train_days: str, validation_days: str, objective: str, total: int,
        output: pathlib.Path,
    ):
        self.config = config
        self.data_dir = data_dir
        self.days = train_days, validation_days
        self.objective = objective
        self.total = total
        self.output = output
        self.progress = console.Progress("search", total + 1, "trials", done=len(self.recorded()))

    def configured(self, keys: Sequence[str], process: TrialProcess) -> Trial:
        """Run the trial of the configuration as given; `keys` are those that the search changes.

        A key that belongs to another part has no value here, such as the levels of a trunk without levels.
        """
        values = {key: functools.reduce(_value, key.split("."), self.config) for key in keys}
        return self.trial(CONFIGURED, {key: _named(v) for key, v in values.items() if v is not _ABSENT}, process)

    def trial(self, name: str, values: dict[str, Any], process: TrialProcess) -> Trial:
        """Train with these values in `process` and record the result, or return the result recorded before."""
        directory = self.output / TRIALS / f"trial_{name}"
        if (directory / _RESULT).exists():
            return _read(directory / _RESULT)
        console.say(f"trial {name} starts: {', '.join(f'{key}={value}' for key, value in values.items())} "
                    f"(log: {directory / LOG})")
        start = time.monotonic()
        metrics: dict[str, float] = {}
        epochs = self.config.train.epochs
        try:
            # Intervals over users are of no use here, and cost time.
            config = replaced(self.config, values | {"train.bootstrap": 0})
            epochs = config.train.epochs
            metrics, reason = process.train(config, self.data_dir, directory, *self.days)
        except UserError as error:
            reason = str(error)
        if not reason and self.objective not in metrics:
            reason = f"{self.objective} is undefined on the validation days: it needs rows of both classes"
        done = Trial(name, values, epochs, round(time.monotonic() - start, 1), metrics, reason)
        hparams.record(self.output / hparams.DIRECTORY, done)
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / _RESULT, dataclasses.asdict(done))
        self._report(done)
        return done

    def _report(self, done: Trial) -> None:
        trials = self.recorded()
        said = f"failed: {done.reason}" if done.reason else f"{self.objective} {done.metrics[self.objective]:.5f}"
        if best := self.best(trials):
            said += f"; the best so far is {best.metrics[self.objective]:.5f}, of trial {best.name}"
        mean = sum(trial.seconds for trial in trials) / len(trials)
        self.progress.update(len(trials))
        console.say(f"trial {done.name} took {console.duration(done.seconds)}, {said}; "
                    f"{self.total + 1 - len(trials)} left, about {console.duration(mean)} each")

    def recorded(self) -> list[Trial]:
        """All finished trials; the configuration as given comes first."""
        trials = [_read(path) for path in sorted((self.output / TRIALS).glob(f"trial_*/{_RESULT}"))]
        return sorted(trials, key=lambda trial: trial.name != CONFIGURED)

    def best(self, trials: Sequence[Trial]) -> Trial | None:
        """The first of the best trials; None if all failed."""
        sign = -1 if larger_is_better(self.objective) else 1
        measured = [trial for trial in trials if not trial.reason]
        return min(measured, key=lambda trial: sign * trial.metrics[self.objective], default=None)

    def found(self, asked: Mapping[str, Any]) -> Found:
        """The outcome of all trials. Raises `UserError` if none could be measured."""
        trials = self.recorded()
        best = self.best(trials)
        if best is None:
            reasons = "; ".join(dict.fromkeys(trial.reason for trial in trials))
            raise UserError(f"all {len(trials)} trials failed; their logs are in {self.output}. Received: {reasons}")
        config = replaced(self.config, best.values)
        return Found(config, best.metrics[self.objective], tuple(trials), best, asked)


def _value(node: Any, name: str) -> Any:
    return getattr(node, name, _ABSENT)


def _named(value: Any) -> Any:
    """A part as a space chooses it: by its name, or "none"."""
    return "none" if value is None else value.name if isinstance(value, Part) else value


def _read(path: pathlib.Path) -> Trial:
    trial = Trial(**read_json(path))
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in trial.values.items()}
    return dataclasses.replace(trial, values=values)
