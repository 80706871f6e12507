"""Runs a job through the passes of its plan."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from dlen_cam2 import data
from dlen_cam2.training.callbacks.cooldown import Cooldown
from dlen_cam2.training.callbacks.progress import Progress
from dlen_cam2.training.jobs import Job
from dlen_cam2.training.optimizers import set_rates
from dlen_cam2.training.plan import Position, Stage, plan
from dlen_cam2.utils import console
from dlen_cam2.utils.event_log import EventLog

# The seed of a pass is that of the configuration plus this, times the pass; the first has the configuration's own.
_NEXT_PASS = 1_000_003
# Steps between two moments at which parameter servers' workers wait for each other.
_PART = 500


def fit(job: Job, days: Sequence[str], callbacks: Sequence[tf.keras.callbacks.Callback] = ()) -> None:
    """Train for `epochs` passes over all of `days` together, or over each day in turn (`order="days"`)."""
    job.position = Position()
    for _ in passes(job, plan(job.config.train, days), callbacks):
        pass


def passes(
    job: Job, stages: Sequence[Stage], callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    log: EventLog | None = None,
) -> Iterator[Stage]:
    """Train from `job.position` on, and yield after each pass, with the position already behind it.

    The caller may move the position, for instance to the next stage, to skip the remaining passes of this one.
    """
    position = job.position
    passes_of = [stage.train(job.config).epochs for stage in stages]
    while position.stage < len(stages):
        stage, epochs = stages[position.stage], passes_of[position.stage]
        if position.epoch < epochs:
            new = [day for day in stage.days if day not in job.days]
            job.days += new
            what = f"{stage.days[0]}..{stage.days[-1]}" if len(stage.days) > 1 else stage.days[0]
            number = sum(passes_of[: position.stage]) + position.epoch + 1
            _pass(job, stage, f"pass {number}/{sum(passes_of)} ({what})", callbacks, log)
            position.epoch, position.step = position.epoch + 1, 0
        if position.epoch >= epochs:
            position.stage, position.epoch = position.stage + 1, 0
        yield stage


def _pass(
    job: Job, stage: Stage, what: str, callbacks: Sequence[tf.keras.callbacks.Callback], log: EventLog | None
) -> None:
    """The rest of a pass, from `job.position.step` on."""
    train, place, done, days = stage.train(job.config), job.place, job.position.step, stage.days
    recorded = data.statistics(job.data_dir)["days"]
    rows = sum(recorded[day]["rows"] for day in days)
    batch_size = place.batch_size(train)
    whole = -(-rows // batch_size)
    steps = max(whole - done, 0)
    if not place.asynchronous and (
        job.on_bad_record == "skip" or (train.input_sharding == "shards" and place.workers > 1)
    ):
        # How many steps the rows make is not known before they are read: the pass ends with its data.
        steps = -1
        if done and not any(True for _ in batches(job, days, done).take(1)):
            return
    if steps == 0:
        return
    source: Any
    if place.asynchronous:
        source = tf.keras.utils.experimental.DatasetCreator(lambda context: batches(job, days).repeat())
    elif place.name == "one":
        source = batches(job, days, done)
    else:
        source = place.strategy.distribute_datasets_from_function(lambda context: batches(job, days, done, context))
    if train.cooldown:
        before = whole * job.position.epoch + done
        callbacks = [Cooldown(train, place.rate_factor(train), whole * train.epochs, before), *callbacks]
    else:
        with place.strategy.scope():
            set_rates(job.ranker.optimizer, train, place.rate_factor(train))
    with contextlib.ExitStack() as around:
        if place.chief:
            work = around.enter_context(console.Progress(what, rows, done=min(done * batch_size, rows)))
            callbacks = [Progress(work, batch_size, log, by_epoch=place.asynchronous), *callbacks]
        epochs = 1
        if place.asynchronous:
            # Steps end, and state can be saved, only where Keras' epochs do, so a pass is cut into several.
            steps, epochs = min(steps, _PART), -(-steps // _PART)
            for callback in callbacks:
                callback._supports_tf_logs = True  # or Keras refuses callbacks that also have hooks for batches
        around.enter_context(data.explained(job.data_dir, job.schema, days))
        job.ranker.fit(source, epochs=epochs, steps_per_epoch=steps, verbose=0, callbacks=list(callbacks))


def batches(
    job: Job, days: Sequence[str], skip: int = 0, context: tf.distribute.InputContext | None = None
) -> tf.data.Dataset:
    """The batches of the pass at `job.position`, without the first `skip`."""
    train = job.config.train
    seed: int | None = train.seed + _NEXT_PASS * job.position.epoch
    if job.place.asynchronous:
        # Each worker draws an order of its own; a global seed would give all of them the same one.
        seed = None
        tf.random.set_seed(None)
    return data.read(
        job.data_dir, job.schema, days, job.place.batch_size(train), shuffle=train.shuffle, seed=seed, context=context,
        sharding=train.input_sharding, skip=skip, on_bad_record=job.on_bad_record,
    )
