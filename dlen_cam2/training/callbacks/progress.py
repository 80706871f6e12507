"""A line every few seconds while a model trains."""

import time
from typing import Any

import tensorflow as tf

from dlen_cam2.utils.event_log import EventLog


class Progress(tf.keras.callbacks.Callback):
    """Prints rows done, rows/s, loss and the time that is left, and logs them.

    The clock of rows/s starts after the first step of a pass, which waits for the graph and for the first window of
    rows. Where there is no other step, its own time counts.

    Args:
        rows: rows of one pass.
        batch_size: rows of a step.
        what: what is trained on, such as "pass 1/3".
        done: steps of the pass that an earlier process did.
        log: takes the same as an event.
        by_epoch: steps end only in Keras' epochs, which are parts of a pass (parameter servers).
        every: seconds between lines.
    """

    def __init__(
        self, rows: int, batch_size: int, what: str, done: int = 0, log: EventLog | None = None, by_epoch: bool = False,
        every: float = 5.0,
    ):
        super().__init__()
        self.rows = rows
        self.batch_size = batch_size
        self.what = what
        self.done = done
        self.log = log or EventLog(None)
        self.by_epoch = by_epoch
        self.every = every

    def on_train_begin(self, logs: Any = None) -> None:
        self._start = self._last = time.monotonic()
        self._from = self.done  # steps before the clock started

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        steps = self.done + batch + 1
        if self._from == self.done and steps * self.batch_size < self.rows:
            self._start, self._from = time.monotonic(), steps
        if not self.by_epoch and time.monotonic() - self._last >= self.every:
            self._last = time.monotonic()
            self._print(steps, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.by_epoch:
            self._print(self.done + (epoch + 1) * self.params["steps"], logs)

    def on_train_end(self, logs: Any = None) -> None:
        if not self.by_epoch:
            self._print(-(-self.rows // self.batch_size), logs)

    def _print(self, steps: int, logs: Any) -> None:
        rows = min(steps * self.batch_size, self.rows)
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = max(rows - self._from * self.batch_size, 1) / seconds
        loss = float((logs or {}).get("loss", float("nan")))
        print(f"{self.what}: {rows:,} of {self.rows:,} rows ({rows / max(self.rows, 1):.0%}), {rate:,.0f} rows/s, "
              f"loss {loss:.4f}, ETA {(self.rows - rows) / rate:.0f} s", flush=True)
        self.log.event("progress", of=self.what, rows=rows, rows_per_second=round(rate), loss=repr(loss))
