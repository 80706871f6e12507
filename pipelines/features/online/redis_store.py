"""A store that several servers share: a stream of a Redis server, which all of them read in the same order."""

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from dlen_cam2.utils.errors import UserError
from pipelines.features.online.resp import Client
from pipelines.features.online.stores import Record, Store

_FIELD = "update"
_BATCH = 1000  # records of an answer


class Redis(Store):
    """The updates of several servers, in a stream.

    Each server keeps the whole state in its own memory, from the same snapshot of the data set and the same stream, and
    reads what the others have added before it answers or counts. So all of them give the same features, bit for bit.
    How safe an update is when Redis itself fails is Redis' own setting (`appendfsync`). It must be Redis 6.2 or later.

    Args:
        url: see `Client`.
        name: the name of the stream; that of its day is `NAME:day`.
        timeout_s: seconds to wait for the server.
    """

    def __init__(self, url: str, name: str, timeout_s: float = 5.0):
        self._client, self.name = Client(url, timeout_s), name
        self._last = "0-0"

    def day(self) -> str:
        found = self._client("GET", f"{self.name}:day")
        return found.decode() if isinstance(found, bytes) else ""

    def open(self, day: str) -> pathlib.Path | None:
        self._client("SET", f"{self.name}:day", day, "NX")
        if (begun := self.day()) != day:
            raise UserError(f"{self._client.name}: the stream {self.name!r} goes on from the snapshot of day "
                            f"{begun!r}: use another name to begin with another day. Received: day {day!r}.")
        return None

    def append(self, record: Record) -> str:
        text = json.dumps(record, separators=(",", ":"), allow_nan=False)
        found = self._client("XADD", self.name, "*", _FIELD, text)
        if not isinstance(found, bytes):
            raise UserError(f"{self._client.name} must answer XADD with the place of the update. Received: {found!r}.")
        return found.decode()

    def new(self) -> Iterator[tuple[str, Record]]:
        while True:
            found: Any = self._client("XRANGE", self.name, f"({self._last}", "+", "COUNT", _BATCH)
            for place, fields in found or []:
                self._last = place.decode()
                try:
                    record = json.loads(fields[fields.index(_FIELD.encode()) + 1])
                except ValueError as error:
                    raise UserError(f"{self._client.name}: the stream {self.name!r} must hold updates of online "
                                    f"features only. Received: {fields!r:.80} at {self._last}.") from error
                yield self._last, record
            if len(found or []) < _BATCH:
                return

    def compact(self, save: Callable[[pathlib.Path], None]) -> None:
        """The stream stays as it is; servers that open it read it from the beginning."""

    def close(self) -> None:
        self._client.close()
