"""The callback that saves a run's state."""

import time
from typing import Any, Protocol

import tensorflow as tf

from dlen_cam2.training.jobs import Job
from dlen_cam2.training.train_request import Request


class Saved(Protocol):
    """The part of a run that the callback needs."""

    job: Job
    wanted: Request
    asked_to_stop: bool

    def save(self) -> None: ...

    def look(self) -> None: ...

    def stop_if_asked(self) -> None: ...


class Checkpointing(tf.keras.callbacks.Callback):
    """Updates the position, saves checkpoints at intervals, and stops after a step when asked to.

    Args:
        run: the run to save.
    """

    # Steps between two looks at whether all is finite, which wait for the device.
    LOOK = 50

    def __init__(self, run: Saved):
        super().__init__()
        self.run = run
        self._saved = time.monotonic()

    def on_train_begin(self, logs: Any = None) -> None:
        self._done = self.run.job.position.step
        self._saved_at = self._done

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not self.run.job.place.asynchronous:
            self._at(self._done + batch + 1)

    def on_train_end(self, logs: Any = None) -> None:
        self.run.look()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.run.job.place.asynchronous:
            self._at(self._done + (epoch + 1) * self.params["steps"])

    def _at(self, step: int) -> None:
        run, wanted = self.run, self.run.wanted
        looked, run.job.position.step = run.job.position.step, step
        if run.asked_to_stop:
            run.save()
            run.stop_if_asked()
        due = wanted.checkpoint_steps and step - self._saved_at >= wanted.checkpoint_steps
        if due or (wanted.checkpoint_seconds and time.monotonic() - self._saved >= wanted.checkpoint_seconds):
            run.save()
            self._saved, self._saved_at = time.monotonic(), step
        elif step // self.LOOK > looked // self.LOOK:
            run.look()
