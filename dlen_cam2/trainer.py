"""Train a configuration on days of a data set, measure it on others, write a model directory."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from dlen_cam2 import causes, data, evaluation, model_dir, report, schema_pbtxt
from dlen_cam2 import config as config_module
from dlen_cam2.causes import Split
from dlen_cam2.cli import UserError
from dlen_cam2.config import Config
from dlen_cam2.files import staged, write_json
from dlen_cam2.models import build
from dlen_cam2.models.cam2 import interest_feature
from dlen_cam2.optimizers import composite
from dlen_cam2.progress import Progress
from dlen_cam2.ranker import Ranker
from dlen_cam2.schema import Schema


def train(
    config: Config, data_dir: str | os.PathLike, directory: str | os.PathLike, train_days: str, eval_days: str,
    continue_from: str | os.PathLike | None = None, on_bad_record: str = "fail",
) -> dict[str, Any]:
    """Train, evaluate and write `directory` as a whole.

    Args:
        config: what to build and how to train it.
        data_dir: a data set of the pipelines.
        directory: the model directory to write; replaced if it holds a model.
        train_days, eval_days: splits, see `dlen_cam2.data.parse_days`.
        continue_from: yesterday's model directory: start from its weights and optimizer state, and keep what it
            fitted on its training days (vocabularies, moments, positive rates, CAM2's threshold).
        on_bad_record: see `dlen_cam2.data.read`.

    Returns:
        The metrics, `{day: {task: {…}}}`, as in `metrics.json`.

    Raises:
        UserError: the configuration, the data or a directory cannot be used.
    """
    config_module.check(config)
    known = list(data.statistics(data_dir)["days"])
    days, tests = data.parse_days(train_days, known), data.parse_days(eval_days, known)
    if both := [day for day in tests if day in days]:
        raise UserError(f"a day may be trained on or measured on, not both. Received in both: {both}.")
    if continue_from is None:
        job = start(config, data_dir, days, on_bad_record)
    else:
        job = resume(config, data_dir, continue_from, on_bad_record)
    if again := [day for day in (*days, *tests) if day in job.days]:
        raise UserError(
            f"{continue_from} was trained on some of these days already, which may be neither trained on again nor "
            f"measured. Received: {again}."
        )
    network, schema = job.network, job.schema
    print(f"{network.name}: {network.count_params():,} parameters, {len(schema.features)} features, "
          f"tasks {', '.join(schema.task_names)}", flush=True)
    if job.split is not None:
        print(f"causes: {job.split.engagement} at {job.split.statistic} >= {job.split.thresh:g} is conformity, "
              f"{job.split.engaged_above / job.split.engaged:.1%} of the engagement", flush=True)

    with staged(directory, model_dir.CONFIG) as stage:
        logs = stage / "tensorboard"
        print(f"tensorboard --logdir={logs}", flush=True)
        board = tf.keras.callbacks.TensorBoard(str(logs), write_graph=False, update_freq=50)
        fit(job, days, [board])
        metrics, predictions = {}, {}
        score = evaluation.scorer(network, schema)
        for day in tests:
            predictions[day] = evaluation.predict(score, schema, data_dir, day, on_bad_record=on_bad_record)
            metrics[day] = evaluation.evaluate(predictions[day], schema, config.train.bootstrap)
        _log_metrics(logs, metrics)
        model_dir.save(stage, config, schema, job.split, network, job.ranker.optimizer, job.days)
        report.write(stage, config, schema, metrics, predictions, train_days)
        write_json(stage / model_dir.METRICS, metrics)
    return metrics


@dataclasses.dataclass
class Job:
    """A model in training.

    Attributes:
        config, data_dir: as given.
        schema, split: as fitted on the first training days; CAM2's split is None without branches.
        network, ranker: the network, and what trains it.
        days: days trained on, by earlier jobs too.
        passes: passes over training days of this job.
        on_bad_record: see `dlen_cam2.data.read`.
    """

    config: Config
    data_dir: str | os.PathLike
    schema: Schema
    split: Split | None
    network: tf.keras.Model
    ranker: Ranker
    days: list[str] = dataclasses.field(default_factory=list)
    passes: int = 0
    on_bad_record: str = "fail"


def start(config: Config, data_dir: str | os.PathLike, days: Sequence[str], on_bad_record: str = "fail") -> Job:
    """A new model, with what is fitted (vocabularies, moments, positive rates, CAM2's threshold) from `days`.

    Raises:
        UserError: the configuration or the data cannot be used.
    """
    statistics = data.statistics(data_dir)
    if not sum(statistics["days"][day]["rows"] for day in days):
        raise UserError(f"the training days hold no rows. Received: {','.join(days)!r}.")
    model = config.model
    stored = schema_pbtxt.load(data_dir)
    schema = stored.select(model.tasks, model.features, model.without).weigh(model.task_weights)
    schema = data.fit(data_dir, schema, days)
    split = None
    if model.cam2.variant != "production":
        stored.select(without=model.cam2.without)  # refuses names that no feature has
        split = causes.fit(model.cam2, schema, stored.features, data_dir, days, on_bad_record)
        if split.statistic not in schema.targets:
            schema = dataclasses.replace(schema, targets=(*schema.targets, split.statistic))
    tf.keras.utils.set_random_seed(config.train.seed)
    return _job(config, data_dir, schema, split, build(model, schema, split), on_bad_record)


def resume(
    config: Config, data_dir: str | os.PathLike, directory: str | os.PathLike, on_bad_record: str = "fail"
) -> Job:
    """The model of `directory` with its optimizer's state, to go on training.

    Raises:
        UserError: `directory` holds no model, or one that was built from another `config.model`.
    """
    previous = model_dir.load(directory)
    before, now = (dataclasses.asdict(c.model) for c in (previous.config, config))
    if different := [key for key in now if now[key] != before[key]]:
        raise UserError(
            f"config.model must be that of {directory}, whose weights are continued. Received: different "
            f"{different}: {[now[key] for key in different]} in place of {[before[key] for key in different]}."
        )
    job = _job(config, data_dir, previous.schema, previous.split, previous.network, on_bad_record)
    job.days += previous.days
    model_dir.restore(directory, job.network, job.ranker.optimizer)
    return job


def _job(
    config: Config, data_dir: str | os.PathLike, schema: Schema, split: Split | None, network: tf.keras.Model,
    on_bad_record: str,
) -> Job:
    cam2 = config.model.cam2
    loss = None
    if split is not None:
        interests = interest_feature(schema, cam2) if cam2.relevance == "interests" else None
        loss = causes.CausalLoss(cam2, schema, split, interests)
    ranker = Ranker(network, schema, loss)
    ranker.compile(optimizer=composite(network, config.train))
    return Job(config, data_dir, schema, split, network, ranker, on_bad_record=on_bad_record)


def fit(job: Job, days: Sequence[str], callbacks: Sequence[tf.keras.callbacks.Callback] = ()) -> None:
    """`epochs` passes over all of `days` together, or over each in turn (`order="days"`)."""
    train = job.config.train
    job.days += days
    recorded = data.statistics(job.data_dir)["days"]
    stages = [list(days)] if train.order == "shuffled" else [[day] for day in days]
    last = job.passes + len(stages) * train.epochs
    with data.explained(job.data_dir, job.schema, days):
        for chosen in stages:
            rows = sum(recorded[day]["rows"] for day in chosen)
            batches = data.read(
                job.data_dir, job.schema, chosen, train.batch_size, shuffle=train.shuffle, seed=train.seed,
                on_bad_record=job.on_bad_record,
            )
            what = f"{chosen[0]}..{chosen[-1]}" if len(chosen) > 1 else chosen[0]
            for _ in range(train.epochs):
                job.passes += 1
                progress = Progress(rows, train.batch_size, f"pass {job.passes}/{last} ({what})")
                job.ranker.fit(
                    batches, initial_epoch=job.passes - 1, epochs=job.passes, verbose=0,
                    callbacks=[progress, *callbacks],
                )


def _log_metrics(logs: pathlib.Path, metrics: dict[str, Any]) -> None:
    with tf.summary.create_file_writer(str(logs / "evaluation")).as_default():
        for step, (day, tasks) in enumerate(metrics.items()):
            for task, values in tasks.items():
                for name in ("auc", "gauc", "ne", "calibration"):
                    if values[name] is not None:
                        tf.summary.scalar(f"{day}/{task}/{name}", values[name], step=step)
