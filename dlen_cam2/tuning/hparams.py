"""Shows a search in TensorBoard: `tensorboard --logdir=OUTPUT/tensorboard`, page HPARAMS."""

import pathlib
import time

from tensorboard.compat.proto import event_pb2
from tensorboard.plugins.hparams import api
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from dlen_cam2.tuning.result import Trial

DIRECTORY = "tensorboard"


def record(directory: pathlib.Path, trial: Trial) -> None:
    """Write a separate run for the trial: its values and, unless it failed, its metrics at its last pass.

    Only TensorBoard is used: `tf.summary` would start TensorFlow here and take the GPUs from the processes that train.
    """
    plain = {key: v if isinstance(v, bool | int | float | str) else str(v) for key, v in trial.values.items()}
    writer = EventFileWriter(str(directory / trial.name))
    for summary in (api.hparams_pb(plain, trial.name), *(scalar_pb(name, v) for name, v in trial.metrics.items())):
        writer.add_event(event_pb2.Event(wall_time=time.time(), step=trial.epochs, summary=summary))
    writer.close()
