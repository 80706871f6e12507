"""Rates that fall at the end of a stage."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.kill import differences
from dlen_cam2 import data
from dlen_cam2.config import DailyConfig
from dlen_cam2.training import distribution, jobs, runs, train_request
from dlen_cam2.utils.errors import UserError
from tests.support.jobs import DAY, DAYS, config
from tests.support.stopped_runs import stopped_at, train

pytestmark = pytest.mark.slow


class Rates(tf.keras.callbacks.Callback):
    """Adam's rate at each step."""

    def __init__(self):
        super().__init__()
        self.found = []

    def on_train_batch_end(self, batch, logs=None):
        self.found.append(float(self.model.optimizer.optimizers[0].learning_rate))


def test_rates_fall_at_the_end_of_a_stage_also_of_a_run_that_goes_on(log, tmp_path, monkeypatch):
    """Over the last quarter of two passes; the next day's job has the passes, rates and cooldown of a daily step."""
    falling = config(cooldown=0.25, daily=DailyConfig(3, 0.5, 0.1))
    steps = 2 * -(-sum(data.shards(log, ["20240101", "20240102"]).rows) // 32)
    rates = Rates()
    runs.train(train_request.once(falling, log, tmp_path / "whole", DAYS, DAY), callbacks=[rates])
    wanted = [0.001 * min(1, (steps - s) / (0.25 * steps)) for s in range(steps)]
    np.testing.assert_allclose(rates.found, wanted, rtol=1e-5)
    stopped_at(monkeypatch, steps - 9, log, tmp_path / "m", wanted=falling, checkpoint_steps=2)
    train(log, tmp_path / "m", falling)
    assert differences(tmp_path / "m", tmp_path / "whole") == []
    rates = Rates()
    runs.train(train_request.once(falling, log, tmp_path / "next", DAY, "20240104", continue_from=tmp_path / "m"),
               callbacks=[rates])
    steps = 3 * -(-sum(data.shards(log, [DAY]).rows) // 32)
    wanted = [0.0005 * min(1, (steps - s) / (0.1 * steps)) for s in range(steps)]
    np.testing.assert_allclose(rates.found, wanted, rtol=1e-5)


def test_steps_of_one_call_have_the_mean_of_their_rates(log, tmp_path):
    several = config(cooldown=0.5, steps_per_execution=3)
    steps, rates = 2 * -(-sum(data.shards(log, ["20240101", "20240102"]).rows) // 32), Rates()
    runs.train(train_request.once(several, log, tmp_path / "m", DAYS, DAY), callbacks=[rates])
    each = [0.001 * min(1, (steps - s) / (0.5 * steps)) for s in range(steps)]
    half = steps // 2
    wanted = [np.mean(each[a : min(a + 3, steps)] + [each[-1]] * max(a + 3 - steps, 0))
              for start in (0, half) for a in range(start, start + half, 3)]
    np.testing.assert_allclose(rates.found, wanted, rtol=1e-4)
    with pytest.raises(UserError, match=f"steps_per_execution must be at most {steps // 8} for a cooldown of 0.5"):
        train(log, tmp_path / "n", config(cooldown=0.5, steps_per_execution=32))


def test_parameter_servers_have_no_cooldown(log):
    place = distribution.Place("parameter_server")
    assert place.asynchronous
    with pytest.raises(UserError, match=r"config.train.cooldown must be 0 with --strategy=parameter_server.*0\.5"):
        jobs.start(config(cooldown=0.5), log, ["20240101"], place=place)
