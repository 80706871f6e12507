"""The cooldown: learning rates that fall at the end of a stage."""

import math
from typing import Any

import tensorflow as tf

from dlen_cam2.config import TrainConfig
from dlen_cam2.training.optimizers.composite import set_rates
from dlen_cam2.utils.errors import UserError


class Cooldown(tf.keras.callbacks.Callback):
    """Lets both rates fall linearly over the last `config.cooldown` of the steps of a stage:

        factor of step s = min(1, (steps - s) / (cooldown * steps)),   s = 0 … steps - 1

    At a constant rate, the last few batches decide how often a rare task is predicted; `docs/results/kuairand.md` shows
    by how much. If several steps run in one call (`config.steps_per_execution`), they share the mean of their rates.

    Args:
        config: the rates and the cooldown.
        factor: factor on both rates, as for `composite`.
        steps: number of steps in the stage, over all its passes.
        done: number of steps of the stage before this fit.

    Raises:
        UserError: a call has too many steps for the rates to fall in at least four calls.
    """

    def __init__(self, config: TrainConfig, factor: float, steps: int, done: int):
        super().__init__()
        self.config, self.factor, self.steps, self.done = config, factor, steps, done
        most = max(int(config.cooldown * steps / 4), 1)
        if config.steps_per_execution > most:
            raise UserError(
                f"config.train.steps_per_execution must be at most {most} for a cooldown of {config.cooldown:g} in a "
                f"stage of {steps} steps, since all steps of a call have the same rate. Received: "
                f"{config.steps_per_execution}.")
        self._now = math.nan  # what a checkpoint has restored is not known

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        # There may be more steps than rows promise, if each worker reads its own shards.
        first = self.done + batch
        left = [max(self.steps - step, 1) for step in range(first, first + self.config.steps_per_execution)]
        now = sum(min(1.0, n / (self.config.cooldown * self.steps)) for n in left) / len(left)
        if now != self._now:
            set_rates(self.model.optimizer, self.config, self.factor * now)
            self._now = now
