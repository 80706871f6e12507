"""Stores: where the updates of online features are kept, in the order in which they count."""

import abc
import contextlib
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import locked, read_json, staged, write_json
from pipelines.features.online.update_log import UpdateLog
from pipelines.features.point_in_time import BOUNDARY

Record = Mapping[str, Any]
_BEGUN = "begun.json"
_SNAPSHOT, _LOG = "snapshot-{:06}", "updates-{:06}.log"


class Store(abc.ABC):
    """The updates since a snapshot, in one order that all who read them share."""

    def day(self) -> str:
        """The day of the data set's snapshot that the store has begun with; "" if it is new."""
        return ""

    @abc.abstractmethod
    def open(self, day: str) -> pathlib.Path | None:
        """Begin, or go on, with a day's snapshot; returns the store's own snapshot, if it has a later one.

        Raises:
            UserError: the store has begun with another day, is in use, is damaged or cannot be reached.
        """

    @abc.abstractmethod
    def append(self, record: Record) -> Any:
        """Keep a record, and return its place; afterwards `new` yields it.

        Raises:
            UserError: it cannot be kept.
        """

    @abc.abstractmethod
    def new(self) -> Iterator[tuple[Any, Record]]:
        """The records that this has not yielded yet, with their places, in their order."""

    @abc.abstractmethod
    def compact(self, save: Callable[[pathlib.Path], None]) -> None:
        """Begin anew with a snapshot that `save` writes into an empty directory, if the store keeps any."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give up what is held; nothing is appended afterwards."""


class Memory(Store):
    """No store: what was counted ends with the process."""

    def __init__(self) -> None:
        self._new: list[tuple[int, Record]] = []
        self._count = 0

    def open(self, day: str) -> pathlib.Path | None:
        return None

    def append(self, record: Record) -> int:
        self._count += 1
        self._new.append((self._count, record))
        return self._count

    def new(self) -> Iterator[tuple[int, Record]]:
        found, self._new = self._new, []
        return iter(found)

    def compact(self, save: Callable[[pathlib.Path], None]) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is held."""


class Directory(Store):
    """A directory of one process: a log of updates, and the snapshot that it follows.

        DIR/begun.json             the day of the data set's snapshot that was the beginning
        DIR/snapshot-000002/       the state when `compact` was called; absent before the first time
        DIR/updates-000002.log     the updates since

    A snapshot appears as a whole, and only then is the log before it deleted. So after a crash at any moment, the
    directory holds each update that was acknowledged, once.

    Args:
        path: the directory; it is created if it does not exist.
        fsync_s: see `UpdateLog`.
    """

    def __init__(self, path: str | os.PathLike, fsync_s: float = 1.0):
        self.path, self._fsync_s = pathlib.Path(path), fsync_s
        self._held = contextlib.ExitStack()
        self._number = 0
        self._log: UpdateLog | None = None
        self._stored: Iterator[tuple[int, Record]] = iter(())
        self._new: list[tuple[int, Record]] = []

    def day(self) -> str:
        return str(read_json(self.path / _BEGUN)["day"]) if (self.path / _BEGUN).exists() else ""

    def open(self, day: str) -> pathlib.Path | None:
        if begun := self.day():
            if begun != day:
                raise UserError(f"{self.path} goes on from the snapshot of day {begun!r}: use another directory to "
                                f"begin with another day. Received: day {day!r}.")
        elif self.path.exists() and (not self.path.is_dir() or any(
                not p.name.startswith((".", "lock")) for p in self.path.iterdir())):
            raise UserError(f"{self.path} must be a new directory, or one of online features. Received: others' files.")
        self.path.mkdir(parents=True, exist_ok=True)
        self._held.enter_context(locked(self.path / "lock", "another process counts in it"))
        if not begun:
            write_json(self.path / _BEGUN, {"day": day})
        found = sorted(p for p in self.path.glob(_SNAPSHOT.format(0)[:9] + "*") if (p / BOUNDARY).is_file())
        self._number = int(found[-1].name[9:]) if found else 0
        self._begin_log()
        assert self._log is not None
        self._stored = self._log.read()
        return found[-1] if found else None

    def _begin_log(self) -> None:
        """Open the log of the snapshot, and delete what is older."""
        self._log = UpdateLog(self.path / _LOG.format(self._number), self._fsync_s)
        for path in self.path.iterdir():
            if path.name.startswith((".", "snapshot-", "updates-")) and path.name not in (
                    _SNAPSHOT.format(self._number), _LOG.format(self._number)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def append(self, record: Record) -> int:
        if self._log is None:
            raise UserError(f"{self.path} must be open to count. Received: an update after close.")
        place = self._log.append(record)
        self._new.append((place, record))
        return place

    def new(self) -> Iterator[tuple[int, Record]]:
        yield from self._stored
        found, self._new = self._new, []
        yield from found

    def compact(self, save: Callable[[pathlib.Path], None]) -> None:
        if self._log is None:
            raise UserError(f"{self.path} must be open to be compacted. Received: a call after close.")
        try:
            with staged(self.path / _SNAPSHOT.format(self._number + 1), BOUNDARY) as stage:
                save(stage)
        except OSError as error:
            raise UserError(f"{self.path} cannot be written, and goes on as before. Received: {error}.") from error
        self._log.close()
        self._number += 1
        self._begin_log()

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None
        self._held.close()
