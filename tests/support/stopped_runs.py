"""Runs that end without a word, and what is left of them."""

import json

import pytest

from dlen_cam2.training import runs, train_request
from dlen_cam2.training.callbacks import checkpointing
from tests.support.jobs import DAY, DAYS, config


def train(log, directory, wanted=None, **options):
    return runs.train(train_request.once(wanted or config(), log, directory, DAYS, DAY, **options))


class Stop(Exception):
    """As if the process were killed."""


def stopped_at(monkeypatch, step, log, directory, **options):
    """A run that ends, without a word, in the step after so many of this process; and what pytest caught of it."""
    seen = []

    def on_train_batch_end(self, batch, logs=None):
        seen.append(batch)
        kept(self, batch, logs)
        if len(seen) == step:
            raise Stop

    kept = checkpointing.Checkpointing.on_train_batch_end
    with monkeypatch.context() as patched:
        patched.setattr(checkpointing.Checkpointing, "on_train_batch_end", on_train_batch_end)
        with pytest.raises(Stop) as stopped:
            train(log, directory, **options)
    return stopped


def lines(directory):
    return [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
