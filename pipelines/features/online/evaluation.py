"""Computes features from the state: what `expressions` says in SQL, for many candidates at once, in the same order.

Every sum is of whole numbers, and each feature's arithmetic is that of its SQL, operation by operation on doubles, so
the results are equal bit for bit.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from dlen_cam2.schema import Feature
from dlen_cam2.schema.computed import Computed
from pipelines.features.amounts import ALL, Amount, Key
from pipelines.features.expressions import NEVER_S
from pipelines.features.online.readings import number
from pipelines.features.online.state import State
from pipelines.features.plan import Plan, last_events

Made = Callable[["View"], np.ndarray]


class View:
    """The state as candidates of one moment see it; whatever several features need is looked up once.

    Attributes:
        state: the state, whose clock has reached `now`.
        now: the time in milliseconds.
        columns: the columns that features need: a value, or a list with one for each candidate.
    """

    def __init__(self, state: State, now: int, columns: Mapping[str, Any]):
        self.state, self.now, self.columns = state, now, columns
        self._late = state.clock > now
        self._keys: dict[Key, Sequence[Any]] = {}
        self._slots: dict[Key, list[int]] = {}
        self._blocks: dict[Key, np.ndarray] = {}
        self._amounts: dict[tuple[Key, int, str], np.ndarray] = {}
        self._rates: dict[Computed, np.ndarray] = {}

    def keys(self, by: Key) -> Sequence[Any]:
        """The keys of the candidates; only one if they share it."""
        found = self._keys.get(by)
        if found is None:
            parts = [self.columns[c] for c in by]
            if not any(isinstance(part, list) for part in parts):
                found = [parts[0] if len(by) == 1 else tuple(parts)]
            elif len(by) == 1:
                found = parts[0]
            else:
                found = list(zip(*(p if isinstance(p, list) else repeat(p) for p in parts), strict=False))
            self._keys[by] = found
        return found

    def amount(self, by: Key, window: int, amount: Amount) -> np.ndarray:
        """What each key has counted within the window."""
        name = by, window, amount.name
        found = self._amounts.get(name)
        if found is None:
            found = self._amounts[name] = self._amount(by, window, amount)
        return found

    def _amount(self, by: Key, window: int, amount: Amount) -> np.ndarray:
        counts = self.state.counts[by]
        place = counts.places[amount.name]
        if by not in self._slots:
            get = counts.slots.get
            self._slots[by] = [get(key, 0) for key in self.keys(by)]
            self._blocks[by] = counts.totals[self._slots[by]].T.astype(np.float64)
        found: np.ndarray = self._blocks[by][place]
        recent = counts.recent[place]
        if window > ALL:
            nothing = -1 if amount.combine == "max" else 0
            within = [timeline.within(window, self.now) if (timeline := recent.get(slot)) else nothing
                      for slot in self._slots[by]]
            return np.array(within, np.float64)
        if self._late:  # the totals have counted events that are later than now
            found = found.copy()
            for row, slot in enumerate(self._slots[by]):
                if timeline := recent.get(slot):
                    found[row] = timeline.before(self.now)
        return found

    def last(self, place: int, length: int) -> list[list[tuple[Any, ...]]]:
        """The last events of each key in the list of this place, newest first."""
        lists = self.state.lists[place]
        get, now = lists.of.get, self.now
        return [listed.before(now, length) if (listed := get(key)) else [] for key in self.keys(lists.by)]

    def rate(self, c: Computed, make: Made) -> np.ndarray:
        """A rate; that of a prior is computed once."""
        found = self._rates.get(c)
        if found is None:
            found = self._rates[c] = make(self)
        return found

    def base(self, plan: Plan, c: Computed) -> float:
        """The rate of all exposures of earlier hours."""
        of, among, start = plan.bases[plan.base(c)]
        hours = self.state.hours
        sums = hours.before(self.now)
        return (sums[hours.places[of.name]] + 1) / (sums[hours.places[among.name]] + 1 / start)


def programs(plan: Plan) -> dict[str, Made]:
    """What computes each feature, by name: an array with a row for each candidate, or with one row for all."""
    rates = {f.name: plan.resolved(f) for f in plan.features if plan.resolved(f).kind == "rate"}
    found: dict[str, Made] = {}
    for feature in plan.features:
        c = plan.resolved(feature)
        if c.kind == "rate":
            found[feature.name] = _rate(plan, c, rates)
        elif c.is_session:
            found[feature.name] = _session(c)
        elif c.is_numbered:
            found[feature.name] = _of_list(plan, c, feature)
        else:
            found[feature.name] = _of_sums(plan, c)
    return found


def columns_of(plan: Plan) -> tuple[str, ...]:
    """The columns of candidates and of their context that features need: keys, and values that are compared."""
    found = [column for f in plan.features for c in [plan.resolved(f)]
             for column in (*c.by, *([c.value] if c.kind == "same" else []))]
    return tuple(dict.fromkeys(found))


def _rate(plan: Plan, c: Computed, rates: Mapping[str, Computed]) -> Made:
    of, among = plan.rate(c)
    by, window = c.by, max(c.window, ALL)
    weight = c.strength * (plan.unit(c.among) if c.value else 1)
    prior = None if c.prior_number is not None or not c.prior else _rate(plan, rates[c.prior], rates)
    constant = None if c.prior_number is None else c.prior_number * weight

    def make(view: View) -> np.ndarray:
        more: Any = constant
        if prior is not None:
            more = weight * prior(view)
        elif constant is None:
            more = weight * view.base(plan, c)
        return (view.amount(by, window, of) + more) / (view.amount(by, window, among) + weight)

    return lambda view: view.rate(c, make)


def _session(c: Computed) -> Made:
    name = c.by, c.milliseconds

    def make(view: View) -> np.ndarray:
        get = view.state.sessions[name].of.get
        return np.array([session.before(view.now) if (session := get(key)) else 0 for key in view.keys(c.by)],
                        np.float64)

    return make


def _of_sums(plan: Plan, c: Computed) -> Made:
    by, window = c.by, max(c.window, ALL)
    amounts = (plan.first(c),) if c.kind == "distinct" and c.window < 0 else plan.summed(c)
    first, *rest = amounts
    if c.kind == "age":
        never = NEVER_S if c.missing is None else c.missing

        def age(view: View) -> np.ndarray:
            last = view.amount(by, window, first)
            return np.where(last < 0, never, (view.now - last) / 1000.0)

        return age
    if c.kind == "mean":
        unit, missing = float(plan.unit(c.value)), c.missing or 0.0

        def mean(view: View) -> np.ndarray:
            total, n = view.amount(by, window, first), view.amount(by, window, rest[0])
            return np.where(n > 0, total / np.maximum(n, 1) / unit, missing)

        return mean
    if c.kind == "sum":
        unit = float(plan.unit(c.value))
        return lambda view: view.amount(by, window, first) / unit
    return lambda view: view.amount(by, window, first)


def _of_list(plan: Plan, c: Computed, feature: Feature) -> Made:
    place, listed = plan.list_of(c)
    column = 1 + listed.values.index(c.value)
    length = last_events(feature, c)
    missing = c.missing or 0.0
    absent: Any = -1 if feature.dtype == "int" else ""
    kind: Any = {"int": np.int64, "string": object, "float": np.float64}[feature.dtype]

    if c.kind == "sequence":
        def sequence(view: View) -> np.ndarray:
            found = view.last(place, length)
            rows = np.full((len(found), length), absent, kind)
            for row, events in enumerate(found):
                for n, event in enumerate(events):
                    rows[row, n] = absent if event[column] is None else event[column]
            return rows

        return sequence
    if c.kind == "last":
        nothing = missing if feature.is_numeric else absent

        def last(view: View) -> np.ndarray:
            found = [events[0][column] if events else None for events in view.last(place, 1)]
            return np.array([nothing if value is None else value for value in found], kind)

        return last
    if c.kind == "same":
        def same(view: View) -> np.ndarray:
            seen = [{event[column] for event in events} - {None} for events in view.last(place, length)]
            own = view.columns[c.value]
            if not isinstance(own, list):
                return np.array([float(own in values) for values in seen])
            if len(seen) == 1:
                return np.array([value in seen[0] for value in own], np.float64)
            return np.array([value in values for value, values in zip(own, seen, strict=True)], np.float64)

        return same
    if c.kind == "distinct":
        return lambda view: np.array([float(len({event[column] for event in events} - {None}))
                                      for events in view.last(place, length)])
    unit = plan.unit(c.value)

    def of_numbers(events: Sequence[tuple[Any, ...]]) -> float:
        numbers = [number(event[column], unit) for event in events if event[column] is not None]
        if c.kind == "sum":
            return sum(numbers) / unit
        return sum(numbers) / len(events) / unit if numbers else missing

    return lambda view: np.array([of_numbers(events) for events in view.last(place, length)], np.float64)
