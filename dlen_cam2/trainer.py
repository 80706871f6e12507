"""Train a configuration on days of a data set, measure it on others, write a model directory."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from dlen_cam2 import config as config_module
from dlen_cam2 import data, evaluation, model_dir, report, schema_pbtxt
from dlen_cam2.cli import UserError
from dlen_cam2.config import Config
from dlen_cam2.files import staged, write_json
from dlen_cam2.models import build
from dlen_cam2.optimizers import composite
from dlen_cam2.progress import Progress
from dlen_cam2.ranker import Ranker


def train(
    config: Config, data_dir: str | os.PathLike, directory: str | os.PathLike, train_days: str, eval_days: str
) -> dict[str, Any]:
    """Train, evaluate and write `directory` as a whole.

    Args:
        config: what to build and how to train it.
        data_dir: a data set of the pipelines.
        directory: the model directory to write; replaced if it holds a model.
        train_days, eval_days: splits, see `dlen_cam2.data.parse_days`.

    Returns:
        The metrics, `{day: {task: {…}}}`, as in `metrics.json`.

    Raises:
        UserError: the configuration, the data or the directory cannot be used.
    """
    config_module.check(config)
    statistics = data.statistics(data_dir)
    days = data.parse_days(train_days, list(statistics["days"]))
    tests = data.parse_days(eval_days, list(statistics["days"]))
    if both := [day for day in tests if day in days]:
        raise UserError(f"a day may be trained on or measured on, not both. Received in both: {both}.")
    rows = {day: statistics["days"][day]["rows"] for day in days}
    if not sum(rows.values()):
        raise UserError(f"the training days hold no rows. Received: {train_days!r}.")
    model = config.model
    schema = schema_pbtxt.load(data_dir).select(model.tasks, model.features, model.without)
    schema = schema.weigh(model.task_weights).fit(statistics, days)

    tf.keras.utils.set_random_seed(config.train.seed)
    network = build(model, schema)
    ranker = Ranker(network, schema)
    ranker.compile(optimizer=composite(network, config.train))
    print(f"{network.name}: {network.count_params():,} parameters, {len(schema.features)} features, "
          f"tasks {', '.join(schema.task_names)}", flush=True)

    with staged(directory, model_dir.CONFIG) as stage:
        logs = stage / "tensorboard"
        print(f"training on {sum(rows.values()):,} rows of {days[0]}..{days[-1]}; "
              f"tensorboard --logdir={logs}", flush=True)
        board = tf.keras.callbacks.TensorBoard(str(logs), write_graph=False, update_freq=50)
        with data.explained(data_dir, schema, days):
            _fit(ranker, config, data_dir, days, rows, board)
        metrics, predictions = {}, {}
        for day in tests:
            predictions[day] = evaluation.predict(network, schema, data_dir, day)
            metrics[day] = evaluation.evaluate(predictions[day], schema, config.train.bootstrap)
        _log_metrics(logs, metrics)
        model_dir.save(stage, config, schema, network, ranker.optimizer)
        report.write(stage, config, schema, metrics, predictions, train_days)
        write_json(stage / model_dir.METRICS, metrics)
    return metrics


def _fit(
    ranker: Ranker, config: Config, data_dir: str | os.PathLike, days: Sequence[str], rows: dict[str, int],
    board: tf.keras.callbacks.Callback,
) -> None:
    """`epochs` passes over all days together, or over each day in turn."""
    train = config.train
    stages = [list(days)] if train.order == "shuffled" else [[day] for day in days]
    done = 0
    for chosen in stages:
        batches = data.read(
            data_dir, ranker.schema, chosen, train.batch_size, shuffle=train.shuffle, seed=train.seed
        )
        for _ in range(train.epochs):
            done += 1
            what = f"{chosen[0]}..{chosen[-1]}" if len(chosen) > 1 else chosen[0]
            progress = Progress(
                sum(rows[d] for d in chosen), train.batch_size, f"pass {done}/{len(stages) * train.epochs} ({what})"
            )
            ranker.fit(batches, initial_epoch=done - 1, epochs=done, verbose=0, callbacks=[progress, board])


def _log_metrics(logs: pathlib.Path, metrics: dict[str, Any]) -> None:
    with tf.summary.create_file_writer(str(logs / "evaluation")).as_default():
        for step, (day, tasks) in enumerate(metrics.items()):
            for task, values in tasks.items():
                for name in ("auc", "gauc", "ne", "calibration"):
                    if values[name] is not None:
                        tf.summary.scalar(f"{day}/{task}/{name}", values[name], step=step)
