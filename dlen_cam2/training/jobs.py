"""A model in training: a new one, or one based on the fitted state of an earlier one."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from dlen_cam2 import data
from dlen_cam2.config import Config, ModelConfig
from dlen_cam2.labels.kind import kind_of
from dlen_cam2.layers import Embeddings
from dlen_cam2.models import ReadOut, build, network_parts
from dlen_cam2.models.parts import TrainingLog
from dlen_cam2.schema import Schema, pbtxt
from dlen_cam2.training import model_directory
from dlen_cam2.training.distribution import Place
from dlen_cam2.training.optimizers import composite
from dlen_cam2.training.plan import Position
from dlen_cam2.training.step import Ranker
from dlen_cam2.utils.errors import UserError


@dataclasses.dataclass
class Job:
    """A model in training.

    Attributes:
        config, data_dir: the configuration and the data set.
        schema: the schema, fitted on the first training days.
        fitted: the states that parts fitted on them, by name.
        network, ranker: the network, and the model that trains it.
        place: where it trains.
        days: the days trained on, including those of earlier jobs.
        position: how far the job is in its plan.
        on_bad_record: see `dlen_cam2.data.read`.
    """

    config: Config
    data_dir: str | os.PathLike
    schema: Schema
    fitted: Mapping[str, Any]
    network: tf.keras.Model
    ranker: Ranker
    place: Place
    days: list[str] = dataclasses.field(default_factory=list)
    position: Position = dataclasses.field(default_factory=Position)
    on_bad_record: str = "fail"

    @property
    def step(self) -> int:
        """The number of updates of the model so far, including those of earlier jobs."""
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
        """The float32 network on one device that is measured and served: a copy if training uses something else."""
        if self.config.train.precision == "float32" and self.place.name in ("one", "mirrored", "multi_worker"):
            return self.network
        return build(self.config.model, self.schema, self.fitted)

    @property
    def read_out(self) -> ReadOut:
        """The interpretation of the network's outputs."""
        return self.ranker.read_out

    def refresh(self) -> None:
        """Copy the current weights to `scored`."""
        if self.scored is not self.network:
            model_directory.copy_weights(self.network, self.scored)


def check_daily(config: Config, place: Place) -> None:
    """Raise `UserError` if a trained model could not train on a day as `config.train.daily` says."""
    daily = config.train.daily
    if daily.cooldown and place.asynchronous:
        raise UserError("config.train.daily.cooldown must be 0 with --strategy=parameter_server, whose workers share "
                        f"no order of steps. Received: {daily.cooldown}.")
    if config.model.tables == "tpu" and (daily.cooldown or daily.rates != 1):
        raise UserError("config.train.daily must have cooldown=0 and rates=1 with config.model.tables='tpu', whose "
                        f"rate is fixed. Received: cooldown={daily.cooldown}, rates={daily.rates}.")


def start(
    config: Config, data_dir: str | os.PathLike, days: Sequence[str], on_bad_record: str = "fail",
    place: Place | None = None,
) -> Job:
    """Create a new model and fit its states (vocabularies, moments, positive rates, CAM2's threshold) on `days`.

    Raises:
        UserError: the configuration or the data cannot be used.
    """
    statistics = data.statistics(data_dir)
    if not sum(statistics["days"][day]["rows"] for day in days):
        raise UserError(f"the training days must have rows. Received: none on {','.join(days)!r}.")
    model = config.model
    stored = pbtxt.load(data_dir)
    schema = data.fit(data_dir, stored.select(model.tasks, model.features, model.without), days)
    schema = weighed(model, schema)
    log = TrainingLog(schema, stored, data_dir, days, on_bad_record)
    fitted = {name: state for part in network_parts(model) for name, state in part.fit(log).items()}
    return assemble(config, data_dir, with_columns(config, schema, fitted), fitted, on_bad_record, place or Place())


def weighed(model: ModelConfig, schema: Schema) -> Schema:
    """A fitted schema with `model.task_weights`; for `task_loss="ne"`, divided by the loss of the best constant."""
    schema = schema.weigh(model.task_weights)
    if model.task_loss == "ce":
        return schema
    rates = ReadOut(model, schema).head.start_rates(schema)
    constants = [
        kind_of(task).constant_loss(dataclasses.replace(task, positive_rate=rate))
        for task, rate in zip(schema.tasks, rates, strict=True)
    ]
    if hopeless := [task.name for task, lost in zip(schema.tasks, constants, strict=True) if not lost]:
        raise UserError(f"config.model.task_loss='ne' needs rows of both classes. Received: none of {hopeless}.")
    return schema.weigh([t.weight / lost for t, lost in zip(schema.tasks, constants, strict=True) if lost])


def with_columns(config: Config, schema: Schema, fitted: Mapping[str, Any]) -> Schema:
    """The schema with the numeric columns that parts read during training among its targets."""
    wanted = [column for part in network_parts(config.model) for column in part.columns(fitted)]
    return dataclasses.replace(schema, targets=tuple(dict.fromkeys((*schema.targets, *wanted))))


def assemble(
    config: Config, data_dir: str | os.PathLike, schema: Schema, fitted: Mapping[str, Any], on_bad_record: str,
    place: Place,
) -> Job:
    """Assemble a job with new weights, as `start`, `warm_start.resume` or `grow.resume` decided."""
    train = config.train
    if train.cooldown and place.asynchronous:
        raise UserError(
            "config.train.cooldown must be 0 with --strategy=parameter_server, whose workers share no order of steps. "
            f"Received: {train.cooldown}."
        )
    read_out = ReadOut(config.model, schema)
    tf.keras.utils.set_random_seed(train.seed)
    rate = train.embedding_learning_rate * place.rate_factor(train)
    with place.strategy.scope():
        network = _in_precision(train.precision, lambda: build(config.model, schema, fitted, rate))
        for layer in network.layers:
            if isinstance(layer, Embeddings):
                layer.xla = train.jit or place.name == "tpu"
        optimizer = composite(network, train, place.rate_factor(train), place.asynchronous)
        rule = train.step_rule(schema, network, optimizer)
        ranker = Ranker(network, read_out, read_out.losses(fitted), rule, train)
        ranker.compile(optimizer=optimizer, jit_compile=train.jit, steps_per_execution=train.steps_per_execution)
    return Job(config, data_dir, schema, fitted, network, ranker, place, on_bad_record=on_bad_record)


def _in_precision(policy: str, make: Callable[[], tf.keras.Model]) -> tf.keras.Model:
    """The result of `make`, with its layers under the Keras dtype policy `policy`."""
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        return make()
    finally:
        tf.keras.mixed_precision.set_global_policy(before)
