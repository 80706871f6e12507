"""What one key has counted since the boundary, in the order of time; what was counted before is a number."""

from array import array
from bisect import bisect_left, bisect_right
from typing import Any

from dlen_cam2.schema.computed import DAY_MS


class Sums:
    """A sum at any time: `start`, and what was added since.

    Attributes:
        start: the sum before the first of the times.
        times, sums: when something was added, and the sum of all additions up to it.
    """

    __slots__ = ("start", "times", "sums")

    def __init__(self, start: int):
        self.start, self.times, self.sums = start, array("q"), array("q")

    def add(self, time: int, value: int) -> None:
        if not self.times or time >= self.times[-1]:
            self.sums.append(value + (self.sums[-1] if self.sums else 0))
            self.times.append(time)
            return
        place = bisect_right(self.times, time)
        self.times.insert(place, time)
        self.sums.insert(place, self.sums[place - 1] if place else 0)
        for later in range(place, len(self.sums)):
            self.sums[later] += value

    def remove(self, time: int, value: int) -> None:
        """Take back what was added at the time."""
        place = bisect_left(self.times, time)
        del self.times[place], self.sums[place]
        for later in range(place, len(self.sums)):
            self.sums[later] -= value

    def before(self, time: int) -> int:
        """The sum of what was added before the time."""
        place = bisect_left(self.times, time)
        return self.start + (self.sums[place - 1] if place else 0)

    def within(self, window: int, time: int) -> int:
        """What was added at most `window` milliseconds before the time."""
        return self.before(time) - self.before(time - window)

    def trim(self, oldest: int) -> None:
        """Forget times before `oldest`; the sums stay."""
        if place := bisect_left(self.times, oldest):
            gone = self.sums[place - 1]
            self.start += gone
            self.times = self.times[place:]
            self.sums = array("q", [s - gone for s in self.sums[place:]])


class Latest:
    """The time of the last event before any time; -1 if there is none."""

    __slots__ = ("start", "times")

    def __init__(self, start: int):
        self.start, self.times = start, array("q")

    def add(self, time: int, value: Any = None) -> None:
        if not self.times or time >= self.times[-1]:
            self.times.append(time)
        else:
            self.times.insert(bisect_right(self.times, time), time)

    def before(self, time: int) -> int:
        place = bisect_left(self.times, time)
        return self.times[place - 1] if place else self.start

    def within(self, window: int, time: int) -> int:
        place = bisect_left(self.times, time)
        return self.times[place - 1] if place and self.times[place - 1] >= time - window else -1

    def trim(self, oldest: int) -> None:
        if place := bisect_left(self.times, oldest):
            self.start = max(self.start, self.times[place - 1])
            self.times = self.times[place:]


class Different:
    """The number of different values of events within a window."""

    __slots__ = ("times", "values")

    def __init__(self, start: int = 0):
        self.times, self.values = array("q"), list[Any]()

    def add(self, time: int, value: Any) -> None:
        place = len(self.times) if not self.times or time >= self.times[-1] else bisect_right(self.times, time)
        self.times.insert(place, time)
        self.values.insert(place, value)

    def before(self, time: int) -> int:
        return len(set(self.values[:bisect_left(self.times, time)]))

    def within(self, window: int, time: int) -> int:
        return len(set(self.values[bisect_left(self.times, time - window):bisect_left(self.times, time)]))

    def trim(self, oldest: int) -> None:
        if place := bisect_left(self.times, oldest):
            self.times, self.values = self.times[place:], self.values[place:]


class Session:
    """The times of a key's exposures, and for each the place at which its session begins."""

    __slots__ = ("pause", "times", "begins")

    def __init__(self, pause: int):
        self.pause, self.times, self.begins = pause, array("q"), array("q")

    def add(self, time: int) -> None:
        place = len(self.times) if not self.times or time >= self.times[-1] else bisect_right(self.times, time)
        self.times.insert(place, time)
        self.begins.insert(place, 0)
        for later in range(place, len(self.times)):
            new = not later or self.times[later] - self.times[later - 1] >= self.pause
            self.begins[later] = later if new else self.begins[later - 1]

    def before(self, time: int) -> int:
        """How many exposures the session of an exposure at the time has had before; within a day."""
        place = bisect_left(self.times, time)
        if not place or time - self.times[place - 1] >= self.pause:
            return 0
        begin, day = self.begins[place - 1], time - DAY_MS
        return place - (begin if self.times[begin] >= day else bisect_left(self.times, day))

    def trim(self, oldest: int) -> None:
        if place := bisect_left(self.times, oldest):
            self.times = self.times[place:]
            self.begins = array("q", [max(b - place, 0) for b in self.begins[place:]])


class Listed:
    """A key's last events, the oldest first: (time, item, other values); those of one time in the order of values."""

    __slots__ = ("events",)

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def add(self, event: tuple[Any, ...]) -> None:
        if not self.events or event[0] > self.events[-1][0]:
            self.events.append(event)
        else:
            self.events.insert(bisect_right(self.events, _order(event), key=_order), event)

    def before(self, time: int, length: int) -> list[tuple[Any, ...]]:
        """The last `length` events before the time, the newest first."""
        place = bisect_left(self.events, (time,))
        return self.events[max(place - length, 0):place][::-1]

    def trim(self, boundary: int, length: int) -> None:
        """Forget all but the last `length` events before the boundary."""
        if (gone := bisect_left(self.events, (boundary,)) - length) > 0:
            self.events = self.events[gone:]


def _order(event: tuple[Any, ...]) -> tuple[tuple[bool, Any], ...]:
    """What is missing comes first, as in SQL, where it is last among the newest."""
    return tuple((value is not None, value) for value in event)
