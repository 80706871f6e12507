"""Stores: where the updates of online features are kept, in the order in which they count."""

import abc
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Record = Mapping[str, Any]


class Store(abc.ABC):
    """The updates since a snapshot, in one order that all who read them share."""

    @abc.abstractmethod
    def open(self, snapshot: pathlib.Path) -> pathlib.Path | None:
        """Begin with the snapshot of a data set; returns that of the store itself, if it has a later one."""

    @abc.abstractmethod
    def append(self, record: Record) -> Any:
        """Keep a record, and return its place; afterwards `new` yields it."""

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

    def open(self, snapshot: pathlib.Path) -> pathlib.Path | None:
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
