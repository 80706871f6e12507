"""A model in training: started, continued, and taken through the passes of a plan."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from dlen_cam2 import data
from dlen_cam2.config import Config, TrainConfig
from dlen_cam2.layers import Embeddings
from dlen_cam2.models import build
from dlen_cam2.models.causal import causes
from dlen_cam2.models.causal.cam2 import interest_feature
from dlen_cam2.models.causal.causes import Split
from dlen_cam2.schema import Schema, pbtxt
from dlen_cam2.training import model_directory
from dlen_cam2.training.balancing import balancer
from dlen_cam2.training.callbacks.progress import Progress
from dlen_cam2.training.distribution import Place
from dlen_cam2.training.optimizers import Cooldown, composite, set_rates
from dlen_cam2.training.step import Ranker
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.event_log import JobLog

# The seed of a pass is that of the configuration plus this, times the pass; the first has the configuration's own.
_NEXT_PASS = 1_000_003
# Steps between two moments at which parameter servers' workers wait for each other.
_PART = 500


@dataclasses.dataclass(frozen=True)
class Stage:
    """Days that are trained on together, `epochs` times, and the splits that are measured then.

    `daily`: a trained model takes them in, by the rates and passes of `config.train.daily`.
    """

    days: tuple[str, ...]
    measured: tuple[str, ...] = ()
    daily: bool = False

    def train(self, config: Config) -> TrainConfig:
        """How it is trained."""
        return config.train.of_a_day() if self.daily else config.train


@dataclasses.dataclass
class Position:
    """How far a job is in its plan: the stage, the pass of it, the step of the pass."""

    stage: int = 0
    epoch: int = 0
    step: int = 0


def plan(train: TrainConfig, days: Sequence[str], measured: Sequence[str] = ()) -> list[Stage]:
    """All of `days` together, or each in turn (`order="days"`); at the end, `measured`."""
    stages = [Stage(tuple(days))] if train.order == "shuffled" else [Stage((day,)) for day in days]
    return [*stages[:-1], dataclasses.replace(stages[-1], measured=tuple(measured))]


@dataclasses.dataclass
class Job:
    """A model in training.

    Attributes:
        config, data_dir: as given.
        schema, split: as fitted on the first training days; CAM2's split is None without branches.
        network, ranker: the network, and what trains it.
        place: where.
        days: days trained on, by earlier jobs too.
        position: in the plan.
        on_bad_record: see `dlen_cam2.data.read`.
    """

    config: Config
    data_dir: str | os.PathLike
    schema: Schema
    split: Split | None
    network: tf.keras.Model
    ranker: Ranker
    place: Place
    days: list[str] = dataclasses.field(default_factory=list)
    position: Position = dataclasses.field(default_factory=Position)
    on_bad_record: str = "fail"

    @property
    def step(self) -> int:
        """Updates in the life of the model, by earlier jobs too."""
        return int(self.ranker.optimizer.iterations.numpy())

    @functools.cached_property
    def checkpoint(self) -> tf.train.Checkpoint:
        """All tensors that the next step depends on."""
        parts = {"network": self.network, "optimizer": self.ranker.optimizer}
        if self.ranker.balancer is not None:
            parts["balancer"] = self.ranker.balancer
        return tf.train.Checkpoint(**parts)

    @functools.cached_property
    def scored(self) -> tf.keras.Model:
        """The network in float32 on one device, as it is measured and served: a copy where it is trained otherwise."""
        if self.config.train.precision == "float32" and self.place.name in ("one", "mirrored", "multi_worker"):
            return self.network
        return build(self.config.model, self.schema, self.split)

    def refresh(self) -> None:
        """Give `scored` the weights of now."""
        if self.scored is not self.network:
            model_directory.copy_weights(self.network, self.scored)


def check_daily(config: Config, place: Place) -> None:
    """Raise `UserError` if a trained model could not take in a day as `config.train.daily` says."""
    daily = config.train.daily
    if daily.cooldown and place.asynchronous:
        raise UserError("config.train.daily.cooldown must be 0 with --strategy=parameter_server, whose steps have no "
                        f"common order. Received: {daily.cooldown}.")
    if config.model.tables == "tpu" and (daily.cooldown or daily.rates != 1):
        raise UserError("config.train.daily must have cooldown 0 and rates 1 with model.tables='tpu', whose rate is "
                        f"fixed. Received: cooldown {daily.cooldown}, rates {daily.rates}.")


def start(
    config: Config, data_dir: str | os.PathLike, days: Sequence[str], on_bad_record: str = "fail",
    place: Place | None = None,
) -> Job:
    """A new model, with what is fitted (vocabularies, moments, positive rates, CAM2's threshold) from `days`.

    Raises:
        UserError: the configuration or the data cannot be used.
    """
    statistics = data.statistics(data_dir)
    if not sum(statistics["days"][day]["rows"] for day in days):
        raise UserError(f"the training days hold no rows. Received: {','.join(days)!r}.")
    model = config.model
    stored = pbtxt.load(data_dir)
    schema = stored.select(model.tasks, model.features, model.without).weigh(model.task_weights)
    schema = data.fit(data_dir, schema, days)
    split = None
    if model.cam2.variant != "production":
        stored.select(without=model.cam2.without)  # refuses names that no feature has
        split = causes.fit(model.cam2, schema, stored.features, data_dir, days, on_bad_record)
        if split.statistic not in schema.targets:
            schema = dataclasses.replace(schema, targets=(*schema.targets, split.statistic))
    return assemble(config, data_dir, schema, split, on_bad_record, place or Place())


def resume(
    config: Config, data_dir: str | os.PathLike, directory: str | os.PathLike, on_bad_record: str = "fail",
    place: Place | None = None,
) -> Job:
    """The model of `directory` with its optimizer's state, to go on training.

    Raises:
        UserError: `directory` holds no model, or one that was built from another `config.model`.
    """
    previous = model_directory.load(directory)
    before, now = (dataclasses.asdict(c.model) for c in (previous.config, config))
    if different := [key for key in now if now[key] != before[key]]:
        raise UserError(
            f"config.model must be that of {directory}, whose weights are continued. Received: different "
            f"{different}: {[now[key] for key in different]} in place of {[before[key] for key in different]}."
        )
    if (method := config.train.balance.method) != (earlier := previous.config.train.balance.method):
        raise UserError(
            f"config.train.balance.method must be that of {directory}, whose state is continued (--grow starts it "
            f"anew). Received: {method!r} in place of {earlier!r}."
        )
    job = assemble(config, data_dir, previous.schema, previous.split, on_bad_record, place or Place())
    job.days += previous.days
    model_directory.restore(directory, job.checkpoint)
    return job


def assemble(
    config: Config, data_dir: str | os.PathLike, schema: Schema, split: Split | None, on_bad_record: str, place: Place
) -> Job:
    """A job with new weights, of what `start`, `resume` or `growth.resume` has decided on."""
    train, cam2 = config.train, config.model.cam2
    if train.cooldown and place.asynchronous:
        raise UserError(
            "config.train.cooldown must be 0 with --strategy=parameter_server, whose steps have no common order. "
            f"Received: {train.cooldown}."
        )
    loss = None
    if split is not None:
        interests = interest_feature(schema, cam2) if cam2.relevance == "interests" else None
        loss = causes.CausalLoss(cam2, schema, split, interests)
    tf.keras.utils.set_random_seed(train.seed)
    rate = train.embedding_learning_rate * place.rate_factor(train)
    with place.strategy.scope():
        network = _in_precision(train.precision, lambda: build(config.model, schema, split, rate))
        for layer in network.layers:
            if isinstance(layer, Embeddings):
                layer.xla = train.jit or place.name == "tpu"
        ranker = Ranker(network, schema, loss, balancer(train.balance, schema, network), train)
        ranker.compile(
            optimizer=composite(network, train, place.rate_factor(train), place.asynchronous), jit_compile=train.jit,
            steps_per_execution=train.steps_per_execution,
        )
    return Job(config, data_dir, schema, split, network, ranker, place, on_bad_record=on_bad_record)


def _in_precision(policy: str, make: Callable[[], tf.keras.Model]) -> tf.keras.Model:
    """What `make` makes, with its layers under Keras' `policy`."""
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        return make()
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


def fit(job: Job, days: Sequence[str], callbacks: Sequence[tf.keras.callbacks.Callback] = ()) -> None:
    """`epochs` passes over all of `days` together, or over each in turn (`order="days"`)."""
    job.position = Position()
    for _ in passes(job, plan(job.config.train, days), callbacks):
        pass


def passes(
    job: Job, stages: Sequence[Stage], callbacks: Sequence[tf.keras.callbacks.Callback] = (), log: JobLog | None = None
) -> Iterator[Stage]:
    """Train from `job.position` on, and yield after each pass, with the position behind it.

    Whoever iterates may move the position, for instance to the next stage, to leave out passes of this one.
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
    job: Job, stage: Stage, what: str, callbacks: Sequence[tf.keras.callbacks.Callback], log: JobLog | None
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
    if place.chief:
        progress = Progress(rows, batch_size, what, done, log, by_epoch=place.asynchronous)
        callbacks = [progress, *callbacks]
    epochs = 1
    if place.asynchronous:
        # Steps end, and state can be saved, only where Keras' epochs do, so a pass is cut into several.
        steps, epochs = min(steps, _PART), -(-steps // _PART)
        for callback in callbacks:
            callback._supports_tf_logs = True  # without it Keras refuses callbacks that also have hooks for batches
    with data.explained(job.data_dir, job.schema, days):
        job.ranker.fit(source, epochs=epochs, steps_per_epoch=steps, verbose=0, callbacks=list(callbacks))


def batches(
    job: Job, days: Sequence[str], skip: int = 0, context: tf.distribute.InputContext | None = None
) -> tf.data.Dataset:
    """What the pass at `job.position` trains on, without its first `skip` batches."""
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
