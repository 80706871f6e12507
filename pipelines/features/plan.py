"""From the computed features of a schema to what has to be counted: by which key, of which events, known when."""

import dataclasses
from collections.abc import Iterable

from dlen_cam2.schema import Feature, Schema
from dlen_cam2.schema.computed import EXPOSURES, Computed
from dlen_cam2.utils.errors import UserError
from pipelines.engines import quoted
from pipelines.features.amounts import ALL, INTERNAL, ROW, TS, Amount, Key, Listed, Log, Moment

MOST = 10_000  # keys times windows
_THOUSANDTHS = 1000  # numbers are added up as integers, so that no order of summation can change a result


class Plan:
    """What has to be counted for the computed features of a schema.

    Attributes:
        features: the computed features.
        log: the columns that they are computed from.
        amounts: by key and window (milliseconds, or `ALL`), the amounts by name.
        listed: the lists, whose place names their tables.
        firsts: for numbers of different values of all times, the key, the column of the values, and the events.
        bases: (Σ of, Σ among, start) of the rates that are smoothed towards the rate of earlier hours, by name.
        sessions: keys and pauses.

    Raises:
        UserError: a feature names an unknown column, or one of the wrong type; a prior is no computed rate, or depends
            on itself; or there are more than 10,000 pairs of key and window.
    """

    def __init__(self, schema: Schema, log: Log):
        self.log = log
        self.features = tuple(f for f in schema.features if f.computed)
        self.amounts: dict[Key, dict[int, dict[str, Amount]]] = {}
        self.firsts: list[tuple[Key, str, Amount]] = []
        self.bases: dict[str, tuple[Amount, Amount, float]] = {}
        self.sessions: dict[tuple[Key, int], None] = {}
        self._lists: dict[tuple[Key, str], Listed] = {}
        self._names: dict[tuple[str, tuple[object, ...]], int] = {}
        self._others = schema.columns.keys() - set(schema.binary_columns)  # of the columns that the schema describes
        self._labels = {t.name: t.label for t in schema.tasks if t.name not in log.types}
        read = {c for f in self.features for c in (f.name, *self.resolved(f).columns)}
        if internal := [c for c in sorted(read | {ROW} & log.types.keys()) if c.startswith(INTERNAL)]:
            raise UserError(f"the name of a column that features read must not begin with {INTERNAL!r}. "
                            f"Received: {internal}.")
        lower: dict[str, str] = {}
        for name in dict.fromkeys((*log.types, *schema.columns)):
            if lower.setdefault(name.lower(), name) != name:
                raise UserError(f"names of columns and computed features must differ in more than case. "
                                f"Received: {lower[name.lower()]!r} and {name!r}.")
        _check_priors(self.features)
        for feature in self.features:
            try:
                self._add(feature, self.resolved(feature))
            except UserError as error:
                raise UserError(f"feature {feature.name!r}: {error}") from error
        pairs = sum(len(windows) for windows in self.amounts.values()) + len(self.sessions)
        if pairs > MOST:
            raise UserError(f"there must be at most {MOST:,} pairs of key and window. Received: {pairs:,}, of which "
                            f"feature {self.features[-1].name!r} has the last.")

    @property
    def listed(self) -> tuple[Listed, ...]:
        return tuple(self._lists.values())

    @property
    def moments(self) -> tuple[Moment, ...]:
        """The moments other than that of the exposure, in the order of their columns in `today`."""
        amounts = [a for windows in self.amounts.values() for found in windows.values() for a in found.values()]
        amounts += [event for _, _, event in self.firsts]
        return tuple(dict.fromkeys(a.moment for a in amounts if a.moment))

    @property
    def longest(self) -> int:
        """The milliseconds of the longest window."""
        return max((f.computed.window for f in self.features if f.computed), default=0)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of `exposures` that the features read, the keys among them."""
        read = [c for f in self.features for c in self.resolved(f).columns]
        return tuple(dict.fromkeys((self.log.item, *read)))

    def resolved(self, feature: Feature) -> Computed:
        """How the feature is computed, with columns in place of tasks."""
        assert feature.computed is not None
        found = feature.computed
        of, among, value, *by = (self._labels.get(c, c) for c in (found.of, found.among, found.value, *found.by))
        return dataclasses.replace(found, of=of, among=among, value=value, by=tuple(by))

    def list_of(self, computed: Computed) -> tuple[int, Listed]:
        """The place of the list that a feature over the last events looks at, and the list."""
        name = self._event(computed.of, computed.value).name
        place = list(self._lists).index((computed.by, name))
        return place, self.listed[place]

    def _add(self, feature: Feature, c: Computed) -> None:
        self._check(feature, c)
        if c.is_session:
            self.sessions[c.by, c.milliseconds] = None
        elif c.is_numbered:
            self._add_list(c, feature)
        elif c.kind == "rate":
            of, among = self.rate(c)
            self._use(c.by, c.window, of)
            self._use(c.by, c.window, among)
            if not c.prior:
                self.bases[self.base(c)] = (of, among, c.start)
        elif c.kind == "distinct" and c.window < 0:
            if (first := (c.by, c.value, self._event(c.of, c.value))) not in self.firsts:
                self.firsts.append(first)
            self._use(c.by, ALL, self.first(c))
        else:
            for amount in self.summed(c):
                self._use(c.by, c.window, amount)

    def _use(self, by: Key, window: int, amount: Amount) -> None:
        self.amounts.setdefault(by, {}).setdefault(max(window, ALL), {})[amount.name] = amount

    def _add_list(self, c: Computed, feature: Feature) -> None:
        event = self._event(c.of, c.value)
        self._use(c.by, ALL, event)
        there = self._lists.get((c.by, event.name), Listed(c.by, event, (self.log.item,), 0))
        values = sorted({*there.values, c.value} - {self.log.item})
        length = last_events(feature, c)
        totals, arrays = set(there.totals), set(there.arrays)
        if c.kind in ("sum", "mean"):
            totals.add((c.value, length))
        elif length > 1 or c.kind == "sequence":
            arrays.add((c.value, length))
        self._lists[c.by, event.name] = Listed(
            c.by, event, (self.log.item, *values), max(there.length, length), tuple(sorted(totals)),
            tuple(sorted(arrays)))

    def summed(self, c: Computed) -> tuple[Amount, ...]:
        """The amounts of a count, sum, mean, age or number of different values within a window."""
        event = self._event(c.of, c.value)
        if c.kind == "count":
            return (event,)
        if c.kind == "age":
            return (dataclasses.replace(event, name=self._name("last", event.name), sql=TS, combine="max"),)
        if c.kind == "distinct":
            name = self._name("values", c.value, event.name)
            return (dataclasses.replace(event, name=name, sql=quoted(c.value), combine="values"),)
        total = dataclasses.replace(event, name=self._name("sum", c.value, event.name), sql=self.number(c.value))
        return (total,) if c.kind == "sum" else (total, event)

    def first(self, c: Computed) -> Amount:
        """The events whose value is new for the key."""
        event = self._event(c.of, c.value)
        place = self.firsts.index((c.by, c.value, event))
        return Amount(self._name("new", c.value, event.name), "1e0", table=f"firsts_{place}")

    def rate(self, c: Computed) -> tuple[Amount, Amount]:
        """What a rate adds up: above, when it is known, and below, when the exposure is.

        Of numbers, what is below is known with what is above, since whether there is a number may not be known before;
        where it has a time of its own, whether it comes at all is not known, and every exposure counts below.
        """
        if c.value:
            of, among = self.number(c.value), self.number(c.among)
            there = f"{quoted(c.among)} IS NOT NULL"
            both = f"{quoted(c.value)} IS NOT NULL AND {there}"  # least() passes over nulls
            holds = f"{quoted(c.of)} = 1 AND {both}" if c.of != EXPOSURES else both
            part = Amount(self._name("part", c.of, c.value, c.among), f"least({of}, {among})", holds,
                          self.log.moment(c.of, c.value, c.among))
            comes = bool(self.log.times(c.value))
            moment = self.log.moment(c.among) if comes else part.moment
            name = self._name("whole", c.value, c.among, moment=moment)
            return part, Amount(name, among, there if comes else both, moment)
        ones = self._event(c.of, "")
        if c.among:
            return ones, self._event(c.among, "")
        if c.of in self.log.unknown:
            return ones, Amount(self._name("has", c.of), "1e0", f"{quoted(c.of)} IS NOT NULL")
        return ones, self._event(EXPOSURES, "")

    def _event(self, of: str, value: str) -> Amount:
        """One for each event; those that are known at one moment and hold in the same rows are one amount."""
        holds = [f"{quoted(of)} = 1"] if of != EXPOSURES else []
        if value and value in self.log.unknown:
            holds.append(f"{quoted(value)} IS NOT NULL")
        moment = self.log.moment(of, value)
        return Amount(self._name("n", of, *holds[1:] or holds * (of == EXPOSURES), moment=moment), "1e0",
                      " AND ".join(holds), moment)

    def _name(self, kind: str, *of: str, moment: Moment = ()) -> str:
        """A name that tells what it is, and by its number is no other's."""
        number = self._names.setdefault((kind, (*of, moment)), len(self._names))
        return "_".join((f"{kind}{number}", *of[:1]))

    def base(self, c: Computed) -> str:
        """The name of the rate of earlier hours towards which `c` is smoothed."""
        return self._name("base", c.of, c.value, c.among, repr(c.start))

    def number(self, column: str, name: str = "") -> str:
        """SQL for the column (in a table, `name`) as a double that holds an integer: thousandths of a FLOAT."""
        value = quoted(name or column)
        return f"CAST({value} AS DOUBLE)" if self.unit(column) == 1 else f"floor({value} * {_THOUSANDTHS}e0 + 0.5e0)"

    def unit(self, column: str) -> int:
        """How many units of `number` one of the column's has."""
        return _THOUSANDTHS if self.log.types[column] == "float" else 1

    def _check(self, feature: Feature, c: Computed) -> None:
        types = self.log.types

        def known(role: str, columns: Iterable[str]) -> None:
            for column in columns:
                if column not in types:
                    raise UserError(f"{role} must be a column of the log (or a task). Received: {column!r}. "
                                    f"Known: {', '.join(sorted(types))}.")

        known("by", c.by)
        if c.of != EXPOSURES:
            known("of", [c.of])
        events = [c.of] * (c.of != EXPOSURES) + [c.among] * (c.kind == "rate" and bool(c.among) and not c.value)
        for column in self._others.intersection(events):
            raise UserError(f"of must be a column of 0 and 1. Received: {column!r}.")
        known("value", [c.value] if c.value else [])
        known("among", [c.among] if c.among else [])
        if floats := [column for column in c.by if types[column] == "float"]:
            raise UserError(f"by must name ids or texts, not numbers with decimals. Received: {floats}.")
        numeric = [c.value, c.among] if c.kind == "rate" and c.value else [c.value] * (c.kind in ("sum", "mean"))
        if texts := [column for column in numeric if types[column] == "string"]:
            raise UserError(f"{c.kind} must be of numbers. Received: {texts}.")
        if c.kind in ("last", "sequence"):
            wanted = feature.dtype
            if types[c.value] != wanted and (wanted != "float" or types[c.value] == "string"):
                raise UserError(f"{c.kind} must have the type of its value {c.value!r}, {types[c.value]!r}. "
                                f"Received: {wanted!r}.")
        at = self.log.times(c.value)
        zeros = c.kind in ("last", "same", "sequence", "mean", "distinct") and c.of != c.value
        if zeros and not at <= self.log.times(c.of):
            raise UserError(f"{c.kind} of {c.value!r} must be of events that are known at {min(at)!r}, too, since "
                            f"nothing is known of one whose time is missing: of:{c.value} or the like. "
                            f"Received: of:{c.of}.")


def last_events(feature: Feature, c: Computed) -> int:
    """How many of the last events a feature looks at."""
    return feature.max_length if c.kind == "sequence" else max(c.last, 1)


def _check_priors(features: Iterable[Feature]) -> None:
    rates = {f.name: f.computed for f in features if f.computed and f.computed.kind == "rate"}
    for name, rate in rates.items():
        chain = [name]
        while rate.prior and rate.prior_number is None:
            if rate.prior not in rates:
                raise UserError(f"feature {chain[-1]!r}: prior must be a number or the name of a computed rate. "
                                f"Received: {rate.prior!r}. Known: {sorted(rates)}.")
            if rate.prior in chain:
                raise UserError(f"feature {name!r}: the priors of rates must not form a cycle. "
                                f"Received: {' -> '.join([*chain, rate.prior])}.")
            chain.append(rate.prior)
            rate = rates[rate.prior]
