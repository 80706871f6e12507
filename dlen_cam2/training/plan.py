"""The plan of a run: what it trains on, in which order, and how far it is."""

import dataclasses
from collections.abc import Sequence

from dlen_cam2.config import Config, TrainConfig


@dataclasses.dataclass(frozen=True)
class Stage:
    """Days that are trained on together, `epochs` times, and the splits that are measured afterwards.

    With `daily`, a trained model takes them in, with the rates and passes of `config.train.daily`.
    """

    days: tuple[str, ...]
    measured: tuple[str, ...] = ()
    daily: bool = False

    def train(self, config: Config) -> TrainConfig:
        """The training settings of the stage."""
        return config.train.of_a_day() if self.daily else config.train


@dataclasses.dataclass
class Position:
    """How far a job is in its plan: the stage, the pass in the stage, and the step in the pass."""

    stage: int = 0
    epoch: int = 0
    step: int = 0


def plan(train: TrainConfig, days: Sequence[str], measured: Sequence[str] = ()) -> list[Stage]:
    """The stages: all of `days` together, or each in turn (`order="days"`); after the last, `measured` is measured."""
    stages = [Stage(tuple(days))] if train.order == "shuffled" else [Stage((day,)) for day in days]
    return [*stages[:-1], dataclasses.replace(stages[-1], measured=tuple(measured))]
