"""Searches without training."""

import pathlib

from dlen_cam2 import tuning
from dlen_cam2.config import Config, TrainConfig
from tests.support.builders import flat

ROOT = pathlib.Path(__file__).parents[2]
DAYS, DAY = "20240101..20240102", "20240103"
CONFIG = Config("small", flat(units=(4,)), TrainConfig(epochs=9, learning_rate=1e-3))


class Stub:
    """In place of a process that trains: NE is least at a learning rate of .003, and every call is counted.

    `calls` has the configurations; `trouble(number of the call)` may raise, or give a reason to fail.
    """

    calls: list[Config] = []
    trouble = staticmethod(lambda number: "")

    def __init__(self, threads):
        assert threads >= 1
        self.ended = False

    def end(self):
        self.ended = True

    def train(self, config, data_dir, directory, train_days, validation_days):
        if self.ended:
            raise SystemExit
        Stub.calls.append(config)
        if reason := Stub.trouble(len(Stub.calls)):
            return {}, reason
        assert (train_days, validation_days, config.train.bootstrap) == (DAYS, DAY, 0)
        distance = abs(config.train.learning_rate / 0.003 - 1) + 0.01 / config.train.epochs
        return {"ne": distance, "auc": distance, "click/ne": distance / 2}, ""


def rate(hp):
    return {"train.learning_rate": hp.Float("train.learning_rate", 1e-4, 1e-1, sampling="log")}


def find(log, output, space=rate, config=CONFIG, objective="ne", tuner="random", trials=4, seed=0, **options):
    return tuning.search(config, space, log, DAYS, DAY, objective, tuner, trials, seed, output, **options)
