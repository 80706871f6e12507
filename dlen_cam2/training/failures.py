"""Errors that end a run early, with messages that name the cause."""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2.data.corrupt_records import brief
from dlen_cam2.training.distribution import Place
from dlen_cam2.training.jobs import Job
from dlen_cam2.training.passes import batches
from dlen_cam2.training.plan import Stage
from dlen_cam2.utils import arrays
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import staged, write_json

NONFINITE = "nonfinite"


class Diverged(UserError):
    """A loss or gradient is not finite. The exit status is 3: trying again does not help."""

    status = 3


class LostPeer(UserError):
    """Another process of the cluster is gone. The exit status is 138: start the command again."""

    status = 138


@contextlib.contextmanager
def named_causes(place: Place) -> Iterator[None]:
    """Context manager that turns TensorFlow's errors about memory and other processes into messages with the cause.

    Raises:
        UserError: the process ran out of memory.
        LostPeer: a process of the cluster cannot be reached.
    """
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise UserError(
            "out of memory: lower config.train.batch_size, raise config.train.accumulate, or use hash buckets or "
            f"min_count for large vocabularies. Received: {_first_line(error)}"
        ) from error
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError,
            tf.errors.InternalError, tf.errors.CancelledError, tf.errors.FailedPreconditionError) as error:
        if place.workers == 1 and not place.asynchronous:
            raise
        raise LostPeer(
            "a process of the cluster ended or cannot be reached: start all processes again with the same command, and "
            f"they resume from the last checkpoint. Received: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    return brief(error) if isinstance(error, tf.errors.OpError) else str(error) or type(error).__name__


def check_finite(job: Job, stages: Sequence[Stage], work: pathlib.Path) -> None:
    """Check whether a step was not finite; if so, save its batch for replay.

    `nonfinite/step-N` receives `batch.npz` (the rows of the step as the network reads them, and the labels) and
    `statistics.json` (the tasks' losses; the smallest and largest value of each feature, and how many are not finite).

    Raises:
        Diverged: a loss or a gradient was not finite.
    """
    step = int(job.ranker.bad_step.numpy())
    if step < 0:
        return
    names = job.schema.task_names
    losses = dict(zip(names, job.ranker.bad_losses.numpy().tolist(), strict=True))
    bad = [name for name, loss in losses.items() if not np.isfinite(loss)]
    index = job.position.step - (job.step - step)
    directory = work / NONFINITE / f"step-{step}"
    saved = job.place.chief and not job.place.asynchronous and index >= 0
    if saved:
        days = stages[min(job.position.stage, len(stages) - 1)].days
        features, labels = next(iter(batches(job, days, skip=index).take(1)))
        columns = {name: tensor.numpy() for group in features.values() for name, tensor in group.items()}
        labels = {name: tensor.numpy() for name, tensor in labels.items()}
        with staged(directory, "statistics.json") as stage:
            write_json(stage / "statistics.json", {
                "step": step, "losses": {k: str(v) for k, v in losses.items()}, "not_finite": bad,
                "features": {name: _summary(v) for name, v in columns.items()},
                "labels": {name: _summary(v) for name, v in labels.items()},
            })
            arrays.save(stage / "batch.npz", columns | {f"label:{name}": v for name, v in labels.items()})
    what = f"the loss of {bad} is" if bad else "the losses are finite, but a gradient is"
    raise Diverged(
        f"step {step:,}: {what} not finite, so training stopped; "
        f"{f'its batch and statistics are in {directory}' if saved else 'its batch was not kept'}, and earlier "
        "checkpoints are kept. Lower the learning rates, set config.train.clip_norm, or look at the batch. "
        f"Received: losses {losses}."
    )


def _summary(values: np.ndarray) -> Mapping[str, Any]:
    if values.dtype.kind not in "fiu":
        return {"rows": len(values)}
    finite = values[np.isfinite(values)]
    ends = [float(finite.min()), float(finite.max()), float(finite.mean())] if finite.size else [None, None, None]
    return dict(zip(("least", "greatest", "mean"), ends, strict=True)) | {"not_finite": int(values.size - finite.size)}
