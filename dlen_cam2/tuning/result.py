"""The result of a search."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from dlen_cam2.config import Config

CONFIGURED = "configured"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One model that was trained and measured, or that failed.

    Attributes:
        name: its number, such as "03"; "configured" for the configuration as given.
        values: `{key of the configuration: value}` that the space chose, or the configuration's own for "configured".
        epochs: passes over the training days, as asked for.
        seconds: wall time, for the first trial of a process including its start.
        metrics: means over the validation days, as far as they are defined: "ne", "auc", "gauc" (over tasks too),
            "click/ne", …. Empty if the trial failed.
        reason: why the trial failed, or "".
    """

    name: str
    values: dict[str, Any]
    epochs: int
    seconds: float
    metrics: dict[str, float]
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Found:
    """The outcome of a search.

    Attributes:
        config: the given configuration with the values of the best trial, ready to train with; unchanged if no trial
            was better.
        value: the objective of the best trial on the validation days.
        trials: all trials, in the order of their names, the configuration as given first.
        best: the best trial.
        asked: the search that was asked for, as plain data: tuner, objective, days, seed and so on.
    """

    config: Config
    value: float
    trials: tuple[Trial, ...]
    best: Trial
    asked: Mapping[str, Any]

    @property
    def varied(self) -> list[str]:
        """The keys whose values differ among the trials, except the passes of hyperband."""
        keys = dict.fromkeys(key for trial in self.trials for key in trial.values if key != "train.epochs")
        return [key for key in keys if len({repr(trial.values.get(key)) for trial in self.trials}) > 1]
