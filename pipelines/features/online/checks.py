"""Checks what is given to the online features; every error says what, where, the rule, and what was received."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlen_cam2.schema import Known, Schema
from dlen_cam2.utils.errors import UserError
from pipelines.features.online.readings import known_ms
from pipelines.features.online.state import Exposure, State

_KINDS: dict[str, tuple[str, tuple[type, ...]]] = {
    "int": ("an integer", (int,)), "float": ("a finite number", (int, float)), "string": ("a text", (str,))}


class Checks:
    """The rules for what is given, made from a schema and what its features read.

    Attributes:
        types: the type of each column that may be given, by name.
        needed: the columns that an exposure must have.
        keys: those of them that must not be missing (None).
        compared: the columns that candidates and their context must have.
    """

    def __init__(self, schema: Schema, state: State, compared: Sequence[str]):
        plan = state.plan
        self.user, self.item, self.time = (schema.keys[role] for role in ("user", "item", "time"))
        self.known = schema.known
        times = {k.at: "int" for k in schema.known.values() if k.at}
        times |= {k.after: "float" for k in schema.known.values() if k.after}
        computed = {f.name for f in schema.features if f.computed}
        self.types = {c: t for c, t in (times | schema.columns | dict(plan.log.types)).items() if c not in computed}
        self.lists = {f.name for f in schema.features if f.is_list}
        by = dict.fromkeys(c for f in plan.features for c in plan.resolved(f).by)
        self.keys = tuple(dict.fromkeys((self.user, self.item, self.time, *by)))
        self.needed = tuple(c for c in dict.fromkeys((*self.keys, *plan.columns)) if c not in state.feedback)
        self.compared = tuple(c for c in compared if c != self.user)
        self.held = tuple(dict.fromkeys((self.user, *plan.columns)))
        self.feedback = state.feedback

    def exposure(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of an exposure, with plain values."""
        self._known_columns("an exposure", given)
        if missing := [c for c in self.needed if c not in given]:
            raise UserError(f"an exposure must have the column {missing[0]!r}. Received columns: {sorted(given)}.")
        found = {c: self.value(c, v) for c, v in given.items() if c not in self.lists}
        if missing := [c for c in self.keys if c in found and found[c] is None]:
            raise UserError(f"column {missing[0]!r} must have a value in every exposure. Received: None.")
        return found

    def value(self, column: str, given: Any) -> Any:
        """The value as an int, float or str; None stays None."""
        if isinstance(given, np.generic | np.ndarray) and given.size == 1:
            given = given.item()
        if isinstance(given, bytes):
            given = given.decode("utf-8", "replace")
        dtype = self.types[column]
        rule, kinds = _KINDS[dtype]
        if given is None:
            return None
        number: Any = given
        if not isinstance(given, kinds) or dtype == "float" and not math.isfinite(number):
            raise UserError(f"column {column!r} must be {rule}. Received: {given!r}.")
        return float(number) if dtype == "float" else int(number) if dtype == "int" else given

    def candidates(self, user: Any, candidates: Mapping[str, Any], context: Mapping[str, Any]) -> tuple[
            dict[str, Any], int]:
        """The columns that features need, as values and lists, and the number of candidates."""
        for where, given in (("candidates", candidates), ("context", context)):
            self._known_columns(where, given)
        if twice := sorted(candidates.keys() & context.keys()):
            raise UserError(f"a column must be either of the candidates or of the context. Received as both: {twice}.")
        if self.item not in candidates:
            raise UserError(f"candidates must have the column {self.item!r}. Received columns: {sorted(candidates)}.")
        columns: dict[str, Any] = {self.user: self._key(self.user, user)}
        rows = len(candidates[self.item])
        for name in self.compared:
            if name in candidates:
                columns[name] = self._list(name, candidates[name])
                if len(columns[name]) != rows:
                    raise UserError(f"column {name!r} must have a value for each of the {rows} candidates. "
                                    f"Received: {len(columns[name])}.")
            elif name in context:
                columns[name] = self._key(name, context[name])
            else:
                raise UserError(f"the candidates or the context must have the column {name!r}. Received columns: "
                                f"{sorted(candidates)} and {sorted(context)}.")
        return columns, rows

    def _key(self, column: str, given: Any) -> Any:
        found = self.value(column, given)
        if found is None:
            raise UserError(f"column {column!r} must have a value. Received: None.")
        return found

    def _list(self, column: str, given: Any) -> list[Any]:
        dtype = self.types[column]
        array = given if isinstance(given, np.ndarray) else np.asarray(given, object if dtype == "string" else None)
        if array.ndim == 1 and (dtype == "int" and array.dtype.kind in "iu" or dtype == "string" and
                                array.dtype.kind == "U" or dtype == "float" and array.dtype.kind == "f"):
            return array.tolist()
        if array.ndim != 1:
            raise UserError(f"column {column!r} of the candidates must be an array with one value for each. Received: "
                            f"shape {array.shape}.")
        found = array.tolist()
        if dtype == "string" and all(type(value) is str for value in found):
            return found
        return [self._key(column, value) for value in found]

    def identity(self, given: Mapping[str, Any]) -> tuple[Any, Any, int]:
        """The user, item and time of an exposure that feedback is for."""
        if missing := [c for c in (self.user, self.item, self.time) if c not in given]:
            raise UserError(f"feedback must name the column {missing[0]!r} of its exposure. Received columns: "
                            f"{sorted(given)}.")
        user, item, time = (self._key(c, given[c]) for c in (self.user, self.item, self.time))
        return user, item, time

    def reaction(
        self, exposure: Exposure, given: Mapping[str, Any], known: int | None
    ) -> tuple[dict[str, Any], dict[str, int]]:
        """The feedback columns among those given, and when each is known."""
        self._known_columns("feedback", given)
        values = {c: self.value(c, v) for c, v in given.items()}
        there = exposure.columns | values
        found, times = {}, {}
        for column in self.feedback:
            if column not in values:
                continue
            rule = self.known.get(column, Known())
            source = rule.at or rule.after
            if source and source not in there and known is None:
                raise UserError(f"feedback {column!r} must come with the column {source!r}, or known=MILLISECONDS, "
                                f"which say when it is known. Received columns: {sorted(given)}.")
            if source and source not in there:
                times[column] = max(exposure.time, int(known or 0))
            else:
                times[column] = known_ms(rule, exposure.time, there)
            at = there.get(rule.at) if rule.at and values[column] else None
            if at is not None and at < exposure.time:
                raise UserError(f"column {rule.at!r} must be milliseconds since 1970 that are not before the exposure, "
                                f"where {column!r} is not 0. Received: {at}, and an exposure at {exposure.time}.")
            late = rule.within and times[column] - exposure.time > round(rule.within * 1000)
            found[column] = 0 if late else values[column]
        return found, times

    def _known_columns(self, what: str, given: Mapping[str, Any]) -> None:
        if unknown := sorted(set(given) - set(self.types)):
            raise UserError(f"{what} must have columns of the schema and the log only. Received: {unknown}. "
                            f"Known: {', '.join(sorted(self.types))}.")
