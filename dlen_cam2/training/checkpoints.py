"""Checkpoints: each is whole or absent, a few are kept, and damaged ones are skipped."""

import dataclasses
import hashlib
import os
import pathlib
import re
import shutil
from typing import Any

import tensorflow as tf

from dlen_cam2.utils import console
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import read_json, staged, write_json

_STATE = "state.json"
_WEIGHTS = "weights"
_NAME = re.compile(r"checkpoint-(\d{9})")


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one job.

    Attributes:
        directory: the directory of the checkpoints. Each is a subdirectory `checkpoint-N`, with N counting up, that
            holds TensorFlow's checkpoint files and `state.json`, with the state that is not a tensor and the SHA-256
            of each file.
        keep: how many of the newest checkpoints to keep.
    """

    directory: pathlib.Path
    keep: int = 3

    def numbers(self) -> list[int]:
        """The numbers of the checkpoints, ascending."""
        if not self.directory.is_dir():
            return []
        return sorted(int(found[1]) for p in self.directory.iterdir() if (found := _NAME.fullmatch(p.name)))

    def path(self, number: int) -> pathlib.Path:
        return self.directory / f"checkpoint-{number:09d}"

    def save(self, checkpoint: tf.train.Checkpoint, state: dict[str, Any]) -> bool:
        """Write a checkpoint as a whole, and delete surplus older ones.

        If it cannot be written (the disk is full), a warning is printed, the earlier ones stay, and the job can go on.

        Returns:
            Whether it was written.
        """
        try:
            write(self.path(max(self.numbers(), default=0) + 1), checkpoint, state)
        except (OSError, tf.errors.OpError) as error:
            reason = str(error).splitlines()[0]
            console.warn(f"the checkpoint could not be written, and the earlier ones are kept: {reason}")
            return False
        for old in self.numbers()[: -self.keep]:
            shutil.rmtree(self.path(old), ignore_errors=True)
        return True

    def restore(self, checkpoint: tf.train.Checkpoint) -> dict[str, Any] | None:
        """Restore the newest checkpoint that is intact, and return its state; None if there is no checkpoint.

        A damaged one is skipped with a warning; the next `save` uses a number above it.

        Raises:
            UserError: there are checkpoints, but none of them can be read.
        """
        for number in reversed(self.numbers()):
            try:
                return read(self.path(number), checkpoint)
            except UserError as error:
                console.warn(f"{error} The checkpoint before it is used instead.")
        if self.numbers():
            raise UserError(f"none of the checkpoints in {self.directory} can be read. Received: {self.numbers()}.")
        return None

    def tidy(self) -> None:
        """Delete unfinished checkpoints that killed processes left behind."""
        if self.directory.is_dir():
            for path in self.directory.iterdir():
                if not _NAME.fullmatch(path.name):
                    shutil.rmtree(path, ignore_errors=True)


def write(directory: str | os.PathLike, checkpoint: tf.train.Checkpoint, state: dict[str, Any]) -> None:
    """Write a checkpoint directory as a whole."""
    with staged(directory, _STATE) as stage:
        checkpoint.write(str(stage / _WEIGHTS))
        files = {p.name: _sha256(p) for p in sorted(stage.iterdir())}
        write_json(stage / _STATE, {"state": state, "sha256": files})


def read(directory: str | os.PathLike, checkpoint: tf.train.Checkpoint) -> dict[str, Any]:
    """Restore the objects of `checkpoint` from the files that `write` wrote, and return the state.

    Raises:
        UserError: a file is missing or damaged, or holds other objects.
    """
    directory = pathlib.Path(directory)
    stored = read_json(directory / _STATE)
    try:
        state, files = stored["state"], stored["sha256"]
        wrong = [name for name, digest in files.items() if _sha256(directory / name) != digest]
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"checkpoint {directory} is damaged. Received: {error!r}.") from error
    if wrong:
        raise UserError(f"checkpoint {directory} is damaged. Received: {wrong}, whose SHA-256 does not match.")
    try:
        checkpoint.read(str(directory / _WEIGHTS)).assert_existing_objects_matched()
    except (tf.errors.OpError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"checkpoint {directory} belongs to another model. Received: {reason}.") from error
    return state


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
