"""What is counted by key: totals of all keys in one array, and timelines of what has happened since the boundary.

Each of these classes has four ways to change:

    add      an event, when its time has passed
    seen     an event from before the boundary, which what is kept counts already; only windows still need it
    trim     forget what no row after the boundary needs
    kept     (not sessions) the rows of its table in a snapshot
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.features.amounts import HOUR_MS, Amount, Key
from pipelines.features.online.timelines import Different, Latest, Listed, Session, Sums

_TIMELINES = {"sum": Sums, "max": Latest, "values": Different}
_FIRST_SLOTS = 1024


def key_of(by: Sequence[str], columns: Mapping[str, Any]) -> Any:
    """The key of an exposure: a value, or a tuple of several; None if one is missing."""
    if len(by) == 1:
        return columns[by[0]]
    key = tuple([columns[c] for c in by])
    return None if None in key else key


def values_of(key: Any, by: Sequence[str]) -> tuple[Any, ...]:
    return (key,) if len(by) == 1 else key


class Counts:
    """The amounts of one key.

    Attributes:
        by: the columns of the key.
        places: the place of each amount, by name.
        slots: the row of each key in `totals`; row 0 is that of keys without events.
        totals: (slots, amounts): what all events that have been added counted.
        recent: by amount, the timelines by slot.
    """

    def __init__(self, by: Key, amounts: Mapping[str, Amount]):
        self.by = by
        self.places = {name: place for place, name in enumerate(amounts)}
        self.combines = [amount.combine for amount in amounts.values()]
        self.slots: dict[Any, int] = {}
        self.recent: list[dict[int, Any]] = [{} for _ in amounts]
        self._nothing = np.array([-1 if c == "max" else 0 for c in self.combines], np.int64)
        self.totals = np.tile(self._nothing, (_FIRST_SLOTS, 1))

    def load(self, keys: Sequence[Any], columns: Mapping[str, np.ndarray]) -> None:
        """Begin with these totals of these keys."""
        self.totals = np.tile(self._nothing, (len(keys) + _FIRST_SLOTS, 1))
        self.slots = dict(zip(keys, range(1, len(keys) + 1), strict=True))
        for name, values in columns.items():
            self.totals[1:len(keys) + 1, self.places[name]] = values

    def slot(self, key: Any) -> int:
        found = self.slots.get(key)
        if found is None:
            found = self.slots[key] = len(self.slots) + 1
            if found >= len(self.totals):
                self.totals = np.concatenate([self.totals, np.tile(self._nothing, (len(self.totals), 1))])
        return found

    def add(self, key: Any, time: int, found: Iterable[tuple[int, Any]], oldest: int) -> None:
        slot = self.slot(key)
        row = self.totals[slot]
        for place, value in found:
            timeline = self._timeline(place, slot)
            combine = self.combines[place]
            if time >= oldest:
                timeline.add(time, value)
            elif combine == "sum":
                timeline.start += value
            elif combine == "max":
                timeline.start = max(timeline.start, time)
            if combine == "sum":
                row[place] += value
            elif combine == "max" and time > row[place]:
                row[place] = time

    def seen(self, key: Any, time: int, found: Iterable[tuple[int, Any]], oldest: int) -> None:
        slot = self.slot(key)
        for place, value in found:
            if time >= oldest:
                timeline = self._timeline(place, slot)
                timeline.add(time, value)
                if self.combines[place] == "sum":
                    timeline.start -= value

    def remove(self, key: Any, time: int, place: int) -> None:
        """Take back one that was added."""
        slot = self.slots[key]
        self.recent[place][slot].remove(time, 1)
        self.totals[slot, place] -= 1

    def _timeline(self, place: int, slot: int) -> Any:
        found = self.recent[place].get(slot)
        if found is None:
            found = self.recent[place][slot] = _TIMELINES[self.combines[place]](int(self.totals[slot, place]))
        return found

    def trim(self, oldest: int) -> None:
        for place, timelines in enumerate(self.recent):
            for timeline in timelines.values():
                timeline.trim(oldest)
            self.recent[place] = {slot: timeline for slot, timeline in timelines.items() if timeline.times}

    def kept(self, boundary: int, names: Iterable[str]) -> tuple[list[Any], dict[str, np.ndarray]]:
        """The keys, and what they had counted at the boundary."""
        rows = self.totals[1:len(self.slots) + 1].copy()
        for place in (places := [self.places[name] for name in names]):
            for slot, timeline in self.recent[place].items():
                rows[slot - 1, place] = timeline.before(boundary)
        there = (rows[:, places] != self._nothing[places]).any(1)
        keys = [key for key, some in zip(self.slots, there.tolist(), strict=True) if some]
        return keys, {name: rows[there, self.places[name]] for name in names}


class Firsts:
    """When a key first met a value; the first meetings are an amount of `counts`."""

    def __init__(self, counts: Counts, place: int):
        self.counts, self.place = counts, place
        self.times: dict[tuple[Any, Any], int] = {}

    def load(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        self.times = dict.fromkeys(pairs, -1)

    def add(self, key: Any, time: int, value: Any, oldest: int) -> None:
        first = self.times.get((key, value))
        if first is not None and first <= time:
            return
        self.times[key, value] = time
        if first is not None:
            if first < oldest:  # both are before all that is asked for
                return
            self.counts.remove(key, first, self.place)
        self.counts.add(key, time, ((self.place, 1),), oldest)

    def seen(self, key: Any, time: int, value: Any, oldest: int) -> None:
        """It is among the kept meetings."""

    def trim(self, oldest: int) -> None:
        """A first meeting is never forgotten."""

    def kept(self, boundary: int) -> Iterator[tuple[Any, Any]]:
        return (pair for pair, time in self.times.items() if time < boundary)


class Lists:
    """The last events of each key."""

    def __init__(self, by: Key, length: int):
        self.by, self.length = by, length
        self.of: dict[Any, Listed] = {}

    def add(self, key: Any, time: int, values: tuple[Any, ...], oldest: int) -> None:
        found = self.of.get(key)
        if found is None:
            found = self.of[key] = Listed()
        found.add((time, *values))

    def seen(self, key: Any, time: int, values: tuple[Any, ...], oldest: int) -> None:
        """It is among the kept events, or older than them."""

    def trim(self, boundary: int) -> None:
        for found in self.of.values():
            found.trim(boundary, self.length)

    def kept(self, boundary: int) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        return ((key, event) for key, found in self.of.items() for event in found.before(boundary, self.length))


class Sessions:
    """The sessions of each key."""

    def __init__(self, by: Key, pause: int):
        self.by, self.pause = by, pause
        self.of: dict[Any, Session] = {}

    def add(self, key: Any, time: int, found: Any, oldest: int) -> None:
        if time >= oldest:
            if key not in self.of:
                self.of[key] = Session(self.pause)
            self.of[key].add(time)

    seen = add

    def trim(self, oldest: int) -> None:
        for session in self.of.values():
            session.trim(oldest)
        self.of = {key: session for key, session in self.of.items() if session.times}


class Hours:
    """What all exposures counted before an hour."""

    def __init__(self, amounts: Iterable[str]):
        self.places = {name: place for place, name in enumerate(amounts)}
        self.start = [0] * len(self.places)
        self.of: dict[int, list[int]] = {}
        self._cached: tuple[int, list[int]] | None = None

    def add(self, key: Any, time: int, found: Iterable[tuple[int, Any]], oldest: int) -> None:
        hour = time // HOUR_MS
        counted = self.of.setdefault(hour, [0] * len(self.places))
        for place, value in found:
            counted[place] += value
        if self._cached and hour < self._cached[0]:
            self._cached = None

    def seen(self, key: Any, time: int, found: Iterable[tuple[int, Any]], oldest: int) -> None:
        """It is in the sum at the boundary."""

    def before(self, time: int) -> list[int]:
        """The sums of all hours before that of the time."""
        hour = time // HOUR_MS
        if self._cached is None or self._cached[0] != hour:
            earlier = [counted for h, counted in self.of.items() if h < hour]
            self._cached = hour, [sum(parts) for parts in zip(self.start, *earlier, strict=True)]
        return self._cached[1]

    def trim(self, boundary: int) -> None:
        self.start = list(self.before(boundary))
        self.of = {hour: counted for hour, counted in self.of.items() if hour >= boundary // HOUR_MS}
        self._cached = None
