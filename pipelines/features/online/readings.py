"""What a plan's amounts say in SQL, read by Python: how much an exposure counts, and which feedback it waits for.

Only the few forms that `Plan` writes are understood; any other is an error when the features are opened, so that SQL
and Python cannot drift apart in silence.
"""

import dataclasses
import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from dlen_cam2.schema import Known, Schema
from dlen_cam2.schema.computed import EXPOSURES
from pipelines.features.amounts import TS, Amount, Moment
from pipelines.features.plan import Plan

_NAME = r'"([^"`]+)"'
_CONDITION = re.compile(rf"{_NAME} (= 1|IS NOT NULL)(?: AND |$)")
_INTEGER = re.compile(rf"CAST\({_NAME} AS DOUBLE\)")
_THOUSANDTHS = re.compile(rf"floor\({_NAME} \* 1000e0 \+ 0\.5e0\)")
_COLUMN = re.compile(_NAME)
_LEAST = re.compile(r"least\((.*), ((?:CAST|floor)\(.*)\)")


@dataclasses.dataclass(frozen=True)
class Reading:
    """An amount, read.

    Attributes:
        ones: columns that must be 1.
        there: columns that must not be missing; feedback that has not come yet is taken to come.
        numbers: the columns whose numbers count (the least of them), and their units; none: 1 counts.
        value: the column that is told apart, of an amount of different values.
        waits: the feedback columns without which it cannot be counted.
    """

    ones: tuple[str, ...]
    there: tuple[str, ...]
    numbers: tuple[tuple[str, int], ...]
    value: str
    waits: frozenset[str]

    def of(self, columns: Mapping[str, Any]) -> Any:
        """What the exposure with these columns counts: a whole number, or a value; None for nothing."""
        for c in self.ones:
            if columns.get(c) != 1:
                return None
        for c in self.there:
            if columns.get(c, 1) is None:
                return None
        if self.value:
            return columns[self.value]
        if not self.numbers:
            return 1
        found = [number(columns[c], unit) for c, unit in self.numbers if columns[c] is not None]
        return min(found) if found else None


def number(value: float, unit: int) -> int:
    """The number in a unit's parts, as `Plan.number` has it."""
    return int(value) if unit == 1 else math.floor(value * 1000.0 + 0.5)


def reading(amount: Amount, plan: Plan, feedback: Collection[str]) -> Reading:
    """How the amount is counted. It waits for the feedback that is known at its moment."""
    ones: list[str] = []
    there: list[str] = []
    place = 0
    while place < len(amount.holds):
        if not (found := _CONDITION.match(amount.holds, place)):
            raise NotImplementedError(f"{amount.name}: a condition that is not known: {amount.holds!r}")
        (ones if found[2] == "= 1" else there).append(found[1])
        place = found.end()
    numbers: list[tuple[str, int]] = []
    value = ""
    if amount.combine == "values":
        value = _of(_COLUMN, amount.sql, amount)
    elif amount.sql not in ("1e0", TS):
        least = _LEAST.fullmatch(amount.sql)
        for part in least.groups() if least else (amount.sql,):
            form, unit = (_INTEGER, 1) if part.startswith("CAST") else (_THOUSANDTHS, 1000)
            numbers.append((_of(form, part, amount), unit))
    needed = {*ones, *(c for c, _ in numbers), *([value] if value else [])}
    known = plan.log.known
    needed |= {c for c in there if known.get(c, Known()) in (Known(), *amount.moment)}
    waits = needed.intersection(feedback)
    for moment in {*amount.moment} - {known.get(c) for c in waits}:  # an event that is known with a value of it
        waits.add(min(c for c in feedback if known.get(c) == moment))
    return Reading(tuple(ones), tuple(there), tuple(numbers), value, frozenset(waits))


def _of(form: re.Pattern[str], text: str, amount: Amount) -> str:
    if not (found := form.fullmatch(text)):
        raise NotImplementedError(f"{amount.name}: a value that is not known: {amount.sql!r}")
    return found[1]


def feedback_columns(schema: Schema, plan: Plan) -> tuple[str, ...]:
    """The columns that features read and that may come after the exposure: labels, masks, targets, and events.

    A column that the model reads, too, is known with the exposure, unless the schema says otherwise.
    """
    resolved = [plan.resolved(f) for f in plan.features]
    events = {c.of for c in resolved} | {c.among for c in resolved if c.kind == "rate" and not c.value}
    later = {*schema.binary_columns, *schema.targets, *events} - {f.name for f in schema.features}
    later |= {c for c, known in plan.log.known.items() if known != Known()}
    return tuple(c for c in plan.columns if c in later - {EXPOSURES})


def known_ms(known: Known, time: int, columns: Mapping[str, Any]) -> int:
    """When a column is known, as `statements.known` has it; never before its exposure."""
    if known.at:
        return max(time, time if columns[known.at] is None else int(columns[known.at]))
    if known.after:
        return time + math.floor(max(columns[known.after] or 0, 0) * 1000.0 + 0.5)
    return time + round(known.seconds * 1000)


def known_of_columns(
    time: int, moments: Mapping[Moment, int], known: Mapping[str, Known], columns: Iterable[str]
) -> dict[str, int]:
    """When each column is known, from the moments of a snapshot's row.

    A moment is the latest of several times. A column's own time is at most the earliest of the moments that it is part
    of; the latest of these over the columns of a moment is again that moment.
    """
    found = {}
    for column in columns:
        own = known.get(column, Known())
        found[column] = min((ms for moment, ms in moments.items() if own in moment), default=time)
    return found
