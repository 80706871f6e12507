"""A line every few seconds while a model trains."""

import time
from typing import Any

import tensorflow as tf


class Progress(tf.keras.callbacks.Callback):
    """Prints rows done, rows/s, loss and the time that is left.

    Args:
        rows: rows of one pass.
        batch_size: rows of a step.
        what: what is trained on, such as "pass 1/3".
        every: seconds between lines.
    """

    def __init__(self, rows: int, batch_size: int, what: str, every: float = 5.0):
        super().__init__()
        self.rows = rows
        self.batch_size = batch_size
        self.what = what
        self.every = every

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start = self._last = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if time.monotonic() - self._last >= self.every:
            self._last = time.monotonic()
            self._print(min((batch + 1) * self.batch_size, self.rows), logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._print(self.rows, logs)

    def _print(self, done: int, logs: Any) -> None:
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = done / seconds
        print(f"{self.what}: {done:,} of {self.rows:,} rows ({done / max(self.rows, 1):.0%}), {rate:,.0f} rows/s, "
              f"loss {float((logs or {}).get('loss', float('nan'))):.4f}, ETA {(self.rows - done) / rate:.0f} s",
              flush=True)
