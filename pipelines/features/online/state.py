"""The state of the online features: what is counted, exposures whose feedback may come, and what is not known yet."""

import collections
import dataclasses
import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dlen_cam2.schema.computed import DAY_MS
from pipelines.features.amounts import ALL, HOUR_MS, Amount, Key
from pipelines.features.counting import totals_of
from pipelines.features.online.counted import Counts, Firsts, Hours, Lists, Sessions, key_of
from pipelines.features.online.readings import Reading, reading
from pipelines.features.plan import Plan
from pipelines.features.statements import oldest_needed

Target = Counts | Firsts | Lists | Sessions | Hours
Operation = tuple[Target, Any, Any]


@dataclasses.dataclass
class Exposure:
    """An exposure that is still needed.

    Attributes:
        number: exposures are numbered in the order in which they come.
        time: its time in milliseconds.
        columns: the columns that are known so far, by name.
        known: when each feedback column that has come is known.
    """

    number: int
    time: int
    columns: dict[str, Any]
    known: dict[str, int] = dataclasses.field(default_factory=dict)


class State:
    """What has been counted, at any time from an hour after the boundary on.

    An event counts for `now` if it is known before it. Those that are known later wait until the clock has passed them.
    The clock is the latest time that was asked for; for an earlier one, timelines answer more slowly.

    Attributes:
        plan: what is counted.
        boundary: events before this time are only in totals, and in windows.
        oldest: events before this time are only in totals.
        clock: the events before this time have been counted.
        newest: the time of the newest exposure.
        exposures: the exposures that are still needed, by number.
    """

    def __init__(self, plan: Plan, feedback: tuple[str, ...], boundary: int):
        self.plan, self.feedback, self.boundary = plan, feedback, boundary
        self.oldest = oldest_needed(plan, boundary)
        self.clock = self.newest = boundary
        self.exposures: dict[int, Exposure] = {}
        self.next_number = 0
        self.counts = {by: Counts(by, {name: a for found in windows.values() for name, a in found.items()})
                       for by, windows in plan.amounts.items()}
        self.lists = [Lists(listed.by, listed.length) for listed in plan.listed]
        self.firsts = []
        for n, (by, _, _) in enumerate(plan.firsts):
            name = next(a.name for a in plan.amounts[by][ALL].values() if a.table == f"firsts_{n}")
            self.firsts.append(Firsts(self.counts[by], self.counts[by].places[name]))
        self.sessions = {(by, pause): Sessions(by, pause) for by, pause in plan.sessions}
        self.hours = Hours(totals_of(plan))
        self._by_waits = self._firings()
        self._waiting: list[tuple[int, int, list[Operation]]] = []
        self._order = 0

    @property
    def targets(self) -> tuple[Target, ...]:
        return (*self.counts.values(), *self.firsts, *self.lists, *self.sessions.values(), self.hours)

    def _firings(self) -> dict[frozenset[str], "_Firing"]:
        """What an exposure makes count, by the feedback that this waits for."""
        found: dict[frozenset[str], _Firing] = collections.defaultdict(_Firing)

        def counting(target: Target, by: Key, amounts: Mapping[str, Amount], places: Mapping[str, int]) -> None:
            parts: dict[frozenset[str], list[tuple[int, Reading]]] = {}
            for name, amount in amounts.items():
                if amount.table == "today":
                    made = reading(amount, self.plan, self.feedback)
                    parts.setdefault(made.waits, []).append((places[name], made))
            for waits, readings in parts.items():
                found[waits].counting(target, by, readings)

        for by, counts in self.counts.items():
            amounts = {name: a for windows in self.plan.amounts[by].values() for name, a in windows.items()}
            counting(counts, by, amounts, counts.places)
        counting(self.hours, (), totals_of(self.plan), self.hours.places)
        for lists, listed in zip(self.lists, self.plan.listed, strict=True):
            made = reading(listed.amount, self.plan, self.feedback)
            waits = made.waits.union(set(listed.values).intersection(self.feedback))
            found[waits].listing(lists, lists.by, made, listed.values)
        for firsts, (by, value, event) in zip(self.firsts, self.plan.firsts, strict=True):
            made = reading(event, self.plan, self.feedback)
            found[made.waits.union({value}.intersection(self.feedback))].meeting(firsts, by, made, value)
        for (by, _), sessions in self.sessions.items():
            found[frozenset()].session(sessions, by)
        return dict(found)

    def expose(self, exposure: Exposure) -> None:
        """Take in an exposure with the feedback that it has."""
        self.exposures[exposure.number] = exposure
        self.next_number = max(self.next_number, exposure.number + 1)
        self.newest = max(self.newest, exposure.time)
        given = exposure.known.keys()
        self._fire(exposure, [waits for waits in self._by_waits if waits <= given])

    def react(self, exposure: Exposure, values: Mapping[str, Any], known: Mapping[str, int]) -> None:
        """Take in feedback of an exposure."""
        exposure.columns.update(values)
        exposure.known.update(known)
        given = exposure.known.keys()
        self._fire(exposure, [waits for waits in self._by_waits if waits <= given and waits & known.keys()])

    def _fire(self, exposure: Exposure, found: Iterable[frozenset[str]]) -> None:
        for time, operations in self._events(exposure, found):
            if time < self.clock:
                self._apply(time, operations)
            else:
                self._order += 1
                heapq.heappush(self._waiting, (time, self._order, operations))

    def restore(self, exposure: Exposure) -> None:
        """Take in an exposure from a snapshot, where it counts as far as it was known before the boundary."""
        self.exposures[exposure.number] = exposure
        self.next_number = max(self.next_number, exposure.number + 1)
        self.newest = max(self.newest, exposure.time)
        given = exposure.known.keys()
        for time, operations in self._events(exposure, [waits for waits in self._by_waits if waits <= given]):
            if time < self.boundary:
                for target, key, found in operations:
                    target.seen(key, time, found, self.oldest)
            else:
                self._order += 1
                heapq.heappush(self._waiting, (time, self._order, operations))

    def _events(
        self, exposure: Exposure, found: Iterable[frozenset[str]]
    ) -> Iterable[tuple[int, list[Operation]]]:
        events: dict[int, list[Operation]] = {}
        for waits in found:
            time = max([exposure.known[column] for column in waits], default=exposure.time)
            events.setdefault(time, []).extend(self._by_waits[waits].operations(exposure.columns))
        return events.items()

    def _apply(self, time: int, operations: Iterable[Operation]) -> None:
        for target, key, found in operations:
            target.add(key, time, found, self.oldest)

    def advance(self, now: int) -> None:
        """Count what is known before `now`."""
        while self._waiting and self._waiting[0][0] < now:
            time, _, operations = heapq.heappop(self._waiting)
            self._apply(time, operations)
        self.clock = max(self.clock, now)

    def next_boundary(self) -> int:
        """The boundary a day before the newest exposure, as a day of the pipelines leaves it; never an earlier one."""
        newest = self.newest - DAY_MS
        return max(self.boundary, newest - newest % HOUR_MS)

    def close(self, boundary: int, wait_ms: int) -> None:
        """Move the boundary, and forget what no later time needs.

        Exposures are kept for windows, and for `wait_ms` after their time while feedback of them is missing.
        """
        self.advance(boundary)
        self.boundary, self.oldest = boundary, oldest_needed(self.plan, boundary)
        for target in self.targets:
            target.trim(boundary if isinstance(target, Lists | Hours) else self.oldest)
        self.exposures = {number: e for number, e in self.exposures.items()
                          if self.needed(e, boundary, self.oldest, wait_ms)}

    def needed(self, exposure: Exposure, boundary: int, oldest: int, wait_ms: int) -> bool:
        """Whether an exposure is needed after the boundary, see `close`."""
        if exposure.time >= oldest or max(exposure.known.values(), default=0) >= oldest:
            return True
        return len(exposure.known) < len(self.feedback) and exposure.time >= boundary - wait_ms


class _Firing:
    """What counts once the same feedback has come; an amount that several keys count is read once."""

    def __init__(self) -> None:
        self._readings: dict[Reading, int] = {}
        self._makers: list[Callable[[Mapping[str, Any], Sequence[Any]], Operation | None]] = []

    def operations(self, columns: Mapping[str, Any]) -> list[Operation]:
        """What an exposure with these columns makes count."""
        values = [read.of(columns) for read in self._readings]
        return [operation for make in self._makers if (operation := make(columns, values)) is not None]

    def _place(self, read: Reading) -> int:
        return self._readings.setdefault(read, len(self._readings))

    def counting(self, target: Target, by: Key, readings: Iterable[tuple[int, Reading]]) -> None:
        """Amounts of a key, or of all exposures."""
        places = [(place, self._place(read), bool(read.value)) for place, read in readings]

        def make(columns: Mapping[str, Any], values: Sequence[Any]) -> Operation | None:
            found = [(place, value) for place, n, told_apart in places
                     if (value := values[n]) is not None and (value != 0 or told_apart)]  # 0 adds nothing
            if not found or (key := key_of(by, columns)) is None:
                return None
            return target, key, found

        self._makers.append(make)

    def listing(self, target: Target, by: Key, read: Reading, listed: Sequence[str]) -> None:
        """An event of a list."""
        n = self._place(read)

        def make(columns: Mapping[str, Any], values: Sequence[Any]) -> Operation | None:
            if values[n] is None or (key := key_of(by, columns)) is None:
                return None
            return target, key, tuple([columns[c] for c in listed])

        self._makers.append(make)

    def meeting(self, target: Target, by: Key, read: Reading, met: str) -> None:
        """A meeting of a key and a value, perhaps the first."""
        n = self._place(read)

        def make(columns: Mapping[str, Any], values: Sequence[Any]) -> Operation | None:
            if values[n] is None or columns[met] is None or (key := key_of(by, columns)) is None:
                return None
            return target, key, columns[met]

        self._makers.append(make)

    def session(self, target: Target, by: Key) -> None:
        """An exposure of a session."""
        self._makers.append(lambda columns, _: None if (key := key_of(by, columns)) is None else (target, key, None))
