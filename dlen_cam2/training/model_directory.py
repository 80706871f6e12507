"""A trained model on disk: `config.json`, `schema.pbtxt`, `days.json`, `weights/`, `fitted/`, reports.

`format.json` names the format of the weights, since a change of their order need not change their shapes.
"""

import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from dlen_cam2 import __version__
from dlen_cam2 import config as config_module
from dlen_cam2.config import Config
from dlen_cam2.models import ReadOut, build, network_parts
from dlen_cam2.schema import Schema, pbtxt
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import read_json, write_json

CONFIG = "config.json"
METRICS = "metrics.json"
_DAYS = "days.json"
_FITTED = "fitted"
_WEIGHTS = "weights"
_FORMAT = "format.json"
# 2: the columns of the embedded row are those of the user, then the others, then the products. 3: a configuration is
# made of parts, and what parts fitted lies in `fitted/`.
_NUMBER = 3


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A loaded model: the configuration, the fitted states, the network with its weights, and the days trained on."""

    config: Config
    schema: Schema
    fitted: Mapping[str, Any]
    network: tf.keras.Model
    days: list[str]

    @property
    def read_out(self) -> ReadOut:
        """The interpretation of the network's outputs."""
        return ReadOut(self.config.model, self.schema)


def save(
    directory: str | os.PathLike, config: Config, schema: Schema, fitted: Mapping[str, Any],
    checkpoint: tf.train.Checkpoint, days: Sequence[str] = (),
) -> None:
    """Write the model, trained on `days`, into `directory` (a staged one, see `dlen_cam2.utils.files.staged`).

    `checkpoint` contains the network as `network`, and the other state from which the next day's training starts.
    """
    directory = pathlib.Path(directory)
    write_json(directory / _FORMAT, {"format": _NUMBER, "dlen_cam2": __version__})
    config_module.save(config, directory / CONFIG)
    pbtxt.save(schema, directory)
    write_json(directory / _DAYS, list(days))
    (directory / _FITTED).mkdir(exist_ok=True)
    for name, state in fitted.items():
        write_json(directory / _FITTED / f"{name}.json", state.to_dict())
    checkpoint.write(str(directory / _WEIGHTS / "final"))


def load(directory: str | os.PathLike) -> TrainedModel:
    """Read a trained model.

    Raises:
        UserError: `directory` holds no finished model, or a model in the format of another version of this package, or
            its weights do not fit its configuration.
    """
    directory = pathlib.Path(directory)
    if not (directory / CONFIG).is_file():
        raise UserError(f"{directory} holds no trained model. Received: a directory without {CONFIG}.")
    written = read_json(directory / _FORMAT) if (directory / _FORMAT).is_file() else {"format": 1}
    if not isinstance(written, dict) or written.get("format") != _NUMBER:
        raise UserError(
            f"{directory} was written by a version of dlen_cam2 with another file format, so the model must be trained "
            f"again. Received: {written}. Expected: format {_NUMBER} (dlen_cam2 {__version__})."
        )
    config = config_module.load(directory / CONFIG)
    schema = pbtxt.load(directory)
    states = {name: kind for part in network_parts(config.model) for name, kind in part.states.items()}
    fitted = {name: _state(kind, directory / _FITTED / f"{name}.json") for name, kind in states.items()}
    network = build(config.model, schema, fitted)
    restore(directory, tf.train.Checkpoint(network=network), partly=True)
    return TrainedModel(config, schema, fitted, network, read_json(directory / _DAYS))


def _state(kind: Any, path: pathlib.Path) -> Any:
    values = read_json(path)
    try:
        return kind.from_dict(values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def restore(directory: str | os.PathLike, checkpoint: tf.train.Checkpoint, partly: bool = False) -> None:
    """Read the stored tensors into the objects of `checkpoint`, which are all of them, or only some if `partly`.

    Raises:
        UserError: the weights are missing or damaged, or do not fit.
    """
    stored = pathlib.Path(directory) / _WEIGHTS / "final"
    try:
        status = checkpoint.read(str(stored))
        if partly:
            status.assert_existing_objects_matched().expect_partial()
        else:
            status.assert_consumed()
    except (tf.errors.OpError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{stored.parent}: the weights cannot be read. Received: {reason}") from error


def copy_weights(source: tf.keras.Model, target: tf.keras.Model) -> None:
    """Copy to `target` the weights of a network with the same structure, which may be on parameter servers."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "weights")
        tf.train.Checkpoint(network=source).write(path)
        tf.train.Checkpoint(network=target).read(path).assert_existing_objects_matched().expect_partial()
