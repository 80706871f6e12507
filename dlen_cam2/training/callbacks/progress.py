"""Shows and logs the progress of a pass while a model trains."""

import time
from typing import Any

import tensorflow as tf

from dlen_cam2.utils import console
from dlen_cam2.utils.event_log import EventLog


class Progress(tf.keras.callbacks.Callback):
    """Updates the `console.Progress` of a pass with its mean loss so far, and logs the same.

    The clock for rows/s starts after the first step of a pass, which waits for the graph and for the first window of
    rows. If there is no other step, its own time counts.

    Args:
        work: the pass; its units are rows, including those that an earlier process did.
        batch_size: rows in a step.
        log: receives an event every `console.EVERY` seconds, and one at the end.
        by_epoch: steps end only with Keras' epochs, which are parts of a pass (parameter servers).
    """

    def __init__(
        self, work: console.Progress, batch_size: int, log: EventLog | None = None, by_epoch: bool = False
    ):
        super().__init__()
        self.work = work
        self.batch_size = batch_size
        self.log = log or EventLog(None)
        self.by_epoch = by_epoch
        self._before = work.done // batch_size  # steps of an earlier process
        self._first = True
        self._loss, self._losses = 0.0, 0
        self._logged = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not self.by_epoch:
            self._move(self._before + batch + 1, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.by_epoch:
            self._move(self._before + (epoch + 1) * self.params["steps"], logs)

    def on_train_end(self, logs: Any = None) -> None:
        if self.by_epoch:
            return
        self.work.update(self.work.total or self.work.done, self._said())
        self._log()

    def _move(self, steps: int, logs: Any) -> None:
        assert self.work.total is not None
        if logs and "loss" in logs:
            self._loss, self._losses = self._loss + float(logs["loss"]), self._losses + 1
        self.work.update(min(steps * self.batch_size, self.work.total), self._said())
        if self._first and self.work.done < self.work.total:
            self.work.start_clock()
        self._first = False
        if time.monotonic() - self._logged >= console.EVERY:
            self._log()

    def _said(self) -> str:
        return f"loss {self._loss / self._losses:.4f}" if self._losses else ""

    def _log(self) -> None:
        self._logged = time.monotonic()
        self.log.event("progress", of=self.work.what, rows=self.work.done, rows_per_second=round(self.work.rate),
                       loss=repr(self._loss / self._losses if self._losses else float("nan")))
