"""`OnlineFeatures`: the computed features of a schema, for the candidates of a request."""

import os
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np

from dlen_cam2.schema import Schema, pbtxt
from dlen_cam2.utils.errors import UserError
from pipelines.features.amounts import HOUR_MS
from pipelines.features.online import snapshots
from pipelines.features.online.checks import Checks
from pipelines.features.online.evaluation import View, columns_of, programs
from pipelines.features.online.state import Exposure, State
from pipelines.features.online.stores import Memory, Store

DAY_S = 86_400.0
_LATEST_MS = 4_102_444_800_000


class OnlineFeatures:
    """The computed features of a data set's schema, as they are now: a snapshot, and what has happened since.

    A feature of a candidate has the value that the pipeline would write for an exposure of it at `now`, bit for bit:
    made from what is known strictly before. Feedback that is given early, with a time later than `now`, is not seen.

    All calls take their turns, so several threads may share one object.

    Attributes:
        schema: the schema of the data set.
        day: the day whose snapshot it began with.
        feedback_columns: what `feedback` may bring; `update` needs none of them.
    """

    def __init__(self, schema: Schema, day: str, state: State, store: Store, dtype: Any, feedback_days: float):
        self.schema, self.day = schema, day
        self.feedback_columns = state.feedback
        self._state, self._store, self._dtype = state, store, np.dtype(dtype)
        self._wait_ms = round(feedback_days * DAY_S * 1000)
        self._programs = programs(state.plan)
        self._checks = Checks(schema, state, columns_of(state.plan))
        self._items = {f.name for f in state.plan.features if f.side == "item"}
        self._lock = threading.RLock()
        self._index_exposures()

    @classmethod
    def open(
        cls, data_dir: str | os.PathLike, day: str | None = None, store: Store | None = None, dtype: Any = np.float32,
        feedback_days: float = 7.0,
    ) -> "OnlineFeatures":
        """Open the features of a data set that a pipeline wrote, as they were after a day.

        Args:
            data_dir: the data set; its `schema.pbtxt` and `snapshots/` are read.
            day: the day whose snapshot is the beginning. Default: that of the store, or else the newest.
            store: where updates are kept, see `pipelines.features.online.stores`; what it has is counted at once.
                Default: in memory only.
            dtype: the type of numbers: float32, as in the data set, or float64, as the pipeline computes them.
            feedback_days: how long an exposure waits for feedback. Later feedback is an error.

        Raises:
            UserError: there is no snapshot (of that day), it is of other features than the schema's, or the store is
                damaged, in use, or of another snapshot.
        """
        schema = pbtxt.load(data_dir)
        store = store or Memory()
        day = day or store.day() or snapshots.newest_day(data_dir)
        try:
            own = store.open(day)
            state = snapshots.load(own or snapshots.of_day(data_dir, day), schema)
            found = cls(schema, day, state, store, dtype, feedback_days)
            found._catch_up()
        except BaseException:
            store.close()
            raise
        return found

    def features(
        self, user: Any, candidates: Mapping[str, Any], context: Mapping[str, Any] | None = None,
        now: int | None = None,
    ) -> dict[str, np.ndarray]:
        """The computed features of a user's candidates, as the signature `rank` of a served model takes them.

        Args:
            user: the user's id.
            candidates: columns of the candidates, by name: the item, and what keys and comparisons need. Columns of the
                schema that no computed feature needs may be there.
            context: columns that all candidates share, such as the tab.
            now: the time in milliseconds since 1970. Default: the clock's.

        Returns:
            Arrays by name: (N,), or (1,) where all candidates share the value and the feature is not an item's. Lists
            are (1, L) or (N, L), padded with -1 or "".

        Raises:
            UserError: a column is unknown, is missing, has no value, or is of the wrong type or length; or `now` is
                earlier than an hour after the boundary, which is a day before the snapshot's newest exposure.
        """
        columns, rows = self._checks.candidates(user, candidates, context or {})
        now = int(time.time() * 1000) if now is None else int(now)
        with self._lock:
            self._catch_up()
            self._check_time("now", now)
            self._state.advance(now)
            view = View(self._state, now, columns)
            found = {name: make(view) for name, make in self._programs.items()}
        for name, values in found.items():
            if values.dtype.kind == "f" and values.dtype != self._dtype:
                values = found[name] = values.astype(self._dtype)
            if name in self._items and len(values) != rows:
                found[name] = np.repeat(values, rows, axis=0)
        return found

    def update(self, exposure: Mapping[str, Any]) -> int:
        """Count an exposure.

        Args:
            exposure: its columns, as in the log: user, item, time in milliseconds, and what features read of it.
                Feedback may be among them, or come later.

        Returns:
            The exposure's number, by which `feedback` finds it without a search.

        Raises:
            UserError: a column is unknown, missing or of the wrong type, a key has no value, or the time is earlier
                than an hour after the boundary.
        """
        columns = self._checks.exposure(exposure)
        at = columns[self._checks.time]
        held = {c: columns[c] for c in self._checks.held if c in columns and c not in self.feedback_columns}
        values, known = self._checks.reaction(Exposure(0, at, columns), columns, None)
        with self._lock:
            self._catch_up()
            self._check_time(f"column {self._checks.time!r}", at)
            return self._write({"exposure": held | values, "time": at, "known": known})

    def feedback(self, exposure: Mapping[str, Any] | int, values: Mapping[str, Any], known: int | None = None) -> None:
        """Count feedback of an exposure, from the time at which it is known.

        Args:
            exposure: the number that `update` returned, or a mapping with the exposure's user, item and time, and
                perhaps more of its columns. If several exposures have them, it is for the first without this feedback.
            values: the feedback columns; all that come together in one call. Where the schema says in which column the
                time stands at which they are known (`known_at`, `known_after`), that column, too.
            known: that time in milliseconds, in place of such a column.

        The same feedback may be given again, which changes nothing.

        Raises:
            UserError: there is no such exposure, or no longer; a column is unknown or of the wrong type; it is not
                known when the feedback is known; or other values were given before.
        """
        with self._lock:
            self._catch_up()
            found = self._find(exposure, values)
            new, times = self._checks.reaction(found, values, known)
            again = [c for c in new if c in found.known]
            if wrong := [c for c in again if found.columns[c] != new[c]]:
                raise UserError(f"feedback must not change. Received: {wrong[0]!r} = {new[wrong[0]]!r}, after "
                                f"{found.columns[wrong[0]]!r} before.")
            for column in again:
                del new[column], times[column]
            if new:
                self._write({"feedback": found.number, "values": new, "known": times})

    def compact(self) -> None:
        """Forget what no later time needs, and begin the store anew with a snapshot.

        The boundary moves to a day before the newest exposure. Call it from time to time, such as every hour; other
        calls wait meanwhile.

        Raises:
            UserError: the store cannot be written.
        """
        with self._lock:
            self._catch_up()
            boundary = self._state.next_boundary()
            self._state.advance(boundary)
            self._store.compact(lambda directory: snapshots.save(
                self._state, directory, boundary, self._wait_ms, self.schema))
            self._state.close(boundary, self._wait_ms)
            self._index_exposures()

    def close(self) -> None:
        """Close the store; nothing can be counted afterwards."""
        with self._lock:
            self._store.close()

    def __enter__(self) -> "OnlineFeatures":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _write(self, record: Mapping[str, Any]) -> int:
        """Keep a record, and count it and all that others have written before it; returns an exposure's number."""
        place = self._store.append(record)
        return self._catch_up().get(place, -1)

    def _catch_up(self) -> dict[Any, int]:
        """Count the store's new records; returns the numbers of exposures by their places in the store."""
        numbers = {}
        for place, record in self._store.new():
            if "exposure" in record:
                number = numbers[place] = self._state.next_number
                made = Exposure(number, record["time"], dict(record["exposure"]), dict(record["known"]))
                self._state.expose(made)
                self._exposures.setdefault(self._identity(made), []).append(number)
            elif (held := self._state.exposures.get(record["feedback"])) is not None:
                # Two servers may have told the same feedback at once.
                new = {c: v for c, v in record["values"].items() if c not in held.known}
                self._state.react(held, new, {c: record["known"][c] for c in new})
        return numbers

    def _identity(self, exposure: Exposure) -> tuple[Any, Any, int]:
        return exposure.columns.get(self._checks.user), exposure.columns[self._checks.item], exposure.time

    def _index_exposures(self) -> None:
        self._exposures: dict[tuple[Any, Any, int], list[int]] = {}
        for number, exposure in self._state.exposures.items():
            self._exposures.setdefault(self._identity(exposure), []).append(number)

    def _find(self, given: Mapping[str, Any] | int, values: Mapping[str, Any]) -> Exposure:
        """The exposure that feedback is for."""
        held = self._state.exposures
        if isinstance(given, int | np.integer):
            numbers = [int(given)] if given in held else []
        else:
            numbers = self._exposures.get(self._checks.identity(given), [])
            also = {c: v for c, v in given.items() if c in self._checks.held and c not in self.feedback_columns}
            numbers = [n for n in numbers if all(held[n].columns.get(c) == v for c, v in also.items())]
        if not numbers:
            raise UserError(f"feedback must be for an exposure of the last {self._wait_ms / 1000 / DAY_S:g} days that "
                            f"was given to update. Received: {given!r}.")
        wanted = [c for c in self.feedback_columns if c in values]
        return held[next((n for n in numbers if not any(c in held[n].known for c in wanted)), numbers[-1])]

    def _check_time(self, what: str, at: int) -> None:
        if at > _LATEST_MS:  # such as microseconds; it would close all counters
            raise UserError(f"{what} must be milliseconds since 1970, before the year 2100. Received: {at}.")
        earliest = self._state.boundary + HOUR_MS
        if at < earliest:
            raise UserError(f"{what} must be at most 23 hours before the newest exposure of the snapshot, since "
                            f"counters before time_ms={earliest} are closed. Received: {at}.")
