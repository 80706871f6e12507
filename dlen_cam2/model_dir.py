"""A trained model on disk: `config.json`, `schema.pbtxt`, `weights/`, and what training reported."""

import dataclasses
import os
import pathlib

import tensorflow as tf

from dlen_cam2 import config as config_module
from dlen_cam2 import schema_pbtxt
from dlen_cam2.cli import UserError
from dlen_cam2.config import Config
from dlen_cam2.models import build
from dlen_cam2.schema import Schema

CONFIG = "config.json"
METRICS = "metrics.json"
_WEIGHTS = "weights"


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """What `load` returns: the configuration, the schema as it was fitted, and the network with its weights."""

    config: Config
    schema: Schema
    network: tf.keras.Model


def save(
    directory: str | os.PathLike, config: Config, schema: Schema, network: tf.keras.Model,
    optimizer: tf.keras.optimizers.Optimizer,
) -> None:
    """Write the model into `directory` (a staged one, see `dlen_cam2.files.staged`)."""
    directory = pathlib.Path(directory)
    config_module.save(config, directory / CONFIG)
    schema_pbtxt.save(schema, directory)
    tf.train.Checkpoint(network=network, optimizer=optimizer).write(str(directory / _WEIGHTS / "final"))


def load(directory: str | os.PathLike) -> TrainedModel:
    """Read a trained model.

    Raises:
        UserError: `directory` holds no finished model, or its weights do not fit its configuration.
    """
    directory = pathlib.Path(directory)
    if not (directory / CONFIG).is_file():
        raise UserError(f"{directory} holds no trained model: it has no {CONFIG}.")
    config = config_module.load(directory / CONFIG)
    schema = schema_pbtxt.load(directory)
    network = build(config.model, schema)
    try:
        status = tf.train.Checkpoint(network=network).read(str(directory / _WEIGHTS / "final"))
        status.assert_existing_objects_matched().expect_partial()
    except (tf.errors.OpError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{directory / _WEIGHTS}: the weights cannot be read. Received: {reason}") from error
    return TrainedModel(config, schema, network)
