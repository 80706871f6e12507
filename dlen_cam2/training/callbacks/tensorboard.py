"""TensorBoard summaries, to watch a model while it trains."""

import dataclasses
import pathlib
from typing import Any

import tensorflow as tf

from dlen_cam2.evaluation.introspection import Watcher
from dlen_cam2.labels.kind import kind_of
from dlen_cam2.models import ReadOut
from dlen_cam2.utils import console


class TensorBoard(tf.keras.callbacks.Callback):
    """Writes each task's loss and NE, the gradients' norm and the rates, and the state of gates and heads on one batch.

    A task's NE is its loss on the batch divided by that of the constant prediction of its training days' positive rate.

    Args:
        directory: where the event files are written.
        network: the network that is trained.
        read_out: the interpretation of its outputs.
        features: a batch on which gates, caps and P(UP) are inspected; None: they are not inspected.
        step: number of updates before this process.
        every: steps between two points; gates and heads are inspected every tenth time.
    """

    def __init__(
        self, directory: pathlib.Path, network: tf.keras.Model, read_out: ReadOut, features: Any = None, step: int = 0,
        every: int = 50,
    ):
        super().__init__()
        self.writer = tf.summary.create_file_writer(str(directory / "train"))
        self.features = features
        self.step = step
        self.every = every
        self._watch = None
        if features is not None:
            # Its graph is built here: variables made in a callback would be made in the strategy's scope, by the chief
            # alone, and workers wait for each other there.
            self._watch = Watcher(network, read_out)
            self._watch(features)
        self._constant = {}
        schema = read_out.schema
        for task, rate in zip(schema.tasks, read_out.head.start_rates(schema), strict=True):
            constant = kind_of(task).constant_loss(dataclasses.replace(task, positive_rate=rate))
            if constant:
                self._constant[task.name] = task.weight * constant

    def on_train_begin(self, logs: Any = None) -> None:
        self._start = self.step

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        before, self.step = self.step, self._start + batch + 1
        points = self.step // self.every
        if before // self.every < points and isinstance(logs, dict):  # under parameter servers it is not there yet
            self._write(logs, look=points % 10 == 1)

    def on_train_end(self, logs: Any = None) -> None:
        self.writer.flush()

    def _write(self, logs: Any, look: bool) -> None:
        with self.writer.as_default(self.step):
            for name, value in logs.items():
                tf.summary.scalar(name, value)
                task = name.removeprefix("loss/")
                if self._constant.get(task):
                    tf.summary.scalar(f"ne/{task}", value / self._constant[task])
            for optimizer in self.model.optimizer.optimizers:
                tf.summary.scalar(f"learning_rate/{optimizer.name}", optimizer.learning_rate)
            if look and self._watch is not None:
                for name, value in self._watch(self.features).items():
                    (tf.summary.histogram if name == "p_up" else tf.summary.scalar)(name, value)


class Profiler(tf.keras.callbacks.Callback):
    """Profiles the steps from `first` to `last` (of this process) for TensorBoard."""

    def __init__(self, directory: pathlib.Path, first: int, last: int):
        super().__init__()
        self.directory = str(directory)
        self.first, self.last = first, last
        self.step = 0
        self._on = False

    def on_train_begin(self, logs: Any = None) -> None:
        self._start = self.step

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if not self._on and self._start + batch + 1 == self.first:
            tf.profiler.experimental.start(self.directory)
            self._on = True

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.step = self._start + batch + 1
        if self._on and self.step >= self.last:
            self._stop()

    def on_train_end(self, logs: Any = None) -> None:
        if self._on:
            self._stop()

    def _stop(self) -> None:
        tf.profiler.experimental.stop()
        self._on = False
        console.say(f"profile of the steps up to {self.step:,}: tensorboard --logdir={self.directory}")
