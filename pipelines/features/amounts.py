"""What is counted: the log's columns, amounts that are added up by key, and lists of the last events."""

import dataclasses
from collections.abc import Mapping

from dlen_cam2.schema import Known
from pipelines.engines import quoted

HOUR_MS = 3_600_000
ALL = 0  # a window without a limit
INTERNAL = "__"  # how the names of our own columns begin
ROW, TS = f"{INTERNAL}row", f"{INTERNAL}ts"

Key = tuple[str, ...]
Moment = tuple[Known, ...]  # what must be known beside the exposure; () is the time of the exposure


@dataclasses.dataclass(frozen=True)
class Log:
    """What the table `exposures` offers.

    Attributes:
        types: "int", "float" or "string" for each column that a feature may be computed from.
        time, item: the columns of these keys; times are milliseconds since 1970.
        known: when the feedback columns are known; the others are known with the exposure.
        unknown: columns that are null in some rows, such as feedback of exposures from before the log.
        masks: the column in which each label lies: it is known no earlier than that, as a return is not before the
            purchase.
    """

    types: Mapping[str, str]
    time: str
    item: str
    known: Mapping[str, Known] = dataclasses.field(default_factory=dict)
    unknown: frozenset[str] = frozenset()
    masks: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def moment(self, *columns: str) -> Moment:
        """When the last of these columns, and of those in which they lie, is known."""
        found: dict[str, Known] = {}
        waiting = list(columns)
        while waiting:
            column = waiting.pop()
            if column and column not in found:
                found[column] = self.known.get(column, Known())
                waiting.append(self.masks.get(column, ""))
        return tuple(sorted({*found.values()} - {Known()}, key=repr))

    def times(self, *columns: str) -> set[str]:
        """The columns of times at which these columns are known: nothing is known where one is missing."""
        return {known.at for known in self.moment(*columns)} - {""}


@dataclasses.dataclass(frozen=True)
class Amount:
    """Something that is added up, or of which the greatest is kept, by key.

    Attributes:
        name: its name in the tables.
        sql: its value in a row of `today`, which counts only where `holds`.
        holds: a condition in SQL; "" for every row.
        moment: when it is known.
        combine: "sum"; "max", for the time of the last event; or "values", which are not combined, but told apart.
        table: the table that has it: `today`, or that of a key's first meetings with a value.
    """

    name: str
    sql: str
    holds: str = ""
    moment: Moment = ()
    combine: str = "sum"
    table: str = "today"


@dataclasses.dataclass(frozen=True)
class Listed:
    """Events of a key in the order in which they became known; features look at the last ones.

    Attributes:
        by: the key.
        amount: the amount that numbers them: one for each event.
        values: the columns whose values are kept, the item first: they order events of one moment.
        length: how many events are kept.
        totals: the sums that features need: of which column, over how many of the last events.
        arrays: the same for the lists of values.
    """

    by: Key
    amount: Amount
    values: tuple[str, ...]
    length: int
    totals: tuple[tuple[str, int], ...] = ()
    arrays: tuple[tuple[str, int], ...] = ()

    @property
    def names(self) -> list[str]:
        """The names of the time and the values in the tables of the list."""
        return [TS, *(value_name(place) for place, _ in enumerate(self.values))]

    @property
    def newest(self) -> str:
        """SQL of a window over a key's events, newest first."""
        order = ", ".join(f"{name} DESC" for name in self.names)
        return f"PARTITION BY {', '.join(key_names(self.by))} ORDER BY {order}"


def key_names(by: Key) -> tuple[str, ...]:
    """The names of a key's columns in the tables of what was counted: no column of the log can be called so."""
    return tuple(f"{INTERNAL}key_{n}" for n, _ in enumerate(by))


def key_columns(by: Key) -> list[str]:
    """SQL that selects the columns of a key from `today` under these names."""
    return [f"{quoted(c)} AS {name}" for c, name in zip(by, key_names(by), strict=True)]


def value_name(place: int) -> str:
    """The name of the value at a place of a list."""
    return f"{INTERNAL}value_{place}"
