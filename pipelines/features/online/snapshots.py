"""Reads the state from a snapshot: one of a data set, or one that the online features wrote, in the same tables.

The second kind knows more of the exposures in `tail`: their numbers, and when each feedback column is known, if it has
come at all.
"""

import gc
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dlen_cam2.schema import Schema
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import read_json
from pipelines.features.amounts import ALL, TS, Key, Log, key_names, value_name
from pipelines.features.online.counted import values_of
from pipelines.features.online.readings import feedback_columns, known_of_columns
from pipelines.features.online.state import Exposure, State
from pipelines.features.plan import Plan
from pipelines.features.point_in_time import BOUNDARY, masks_of
from pipelines.features.statements import kept, oldest_needed

SNAPSHOTS = "snapshots"
NUMBER = "__number"
_KNOWN, _USER = "__known_of_", "__user"
_TYPES = {"BIGINT": "int", "DOUBLE": "float", "STRING": "string"}
_ARROW = {"BIGINT": pa.int64(), "DOUBLE": pa.float64(), "STRING": pa.string()}


def newest_day(data_dir: str | os.PathLike) -> str:
    """The day of the newest snapshot of a data set. Raises `UserError` if it has none."""
    return _days(data_dir)[-1]


def of_day(data_dir: str | os.PathLike, day: str) -> pathlib.Path:
    """The snapshot of a day. Raises `UserError` if the data set has none of it."""
    if day not in (days := _days(data_dir)):
        raise UserError(f"{data_dir} must have a snapshot of the day. Received: day {day!r}. Known: {', '.join(days)}.")
    return pathlib.Path(data_dir) / SNAPSHOTS / day


def _days(data_dir: str | os.PathLike) -> list[str]:
    directory = pathlib.Path(data_dir) / SNAPSHOTS
    if not (days := sorted(p.name for p in directory.glob("*") if (p / BOUNDARY).is_file())):
        raise UserError(f"{directory} must have a snapshot: write the data set with computed features, by a pipeline. "
                        "Received: none.")
    return days


def load(directory: pathlib.Path, schema: Schema) -> State:
    """The state that a snapshot keeps.

    Raises:
        UserError: a file is missing or damaged, or the snapshot is of other features than the schema's.
    """
    collects = gc.isenabled()
    gc.disable()  # of so many new objects none is garbage; looking for it would double the time
    try:
        return _loaded(directory, schema)
    finally:
        if collects:
            gc.enable()


def _loaded(directory: pathlib.Path, schema: Schema) -> State:
    content = read_json(directory / BOUNDARY)
    try:
        types = {name: _TYPES[sql] for name, sql in content["tables"]["tail"].items() if not name.startswith("__")}
        log = Log({schema.keys["time"]: "int"} | types, schema.keys["time"], schema.keys["item"], schema.known,
                  frozenset(content.get("unknown", ())), masks_of(schema))
        plan = Plan(schema, log)
        right = kept(plan) == content["tables"]
    except (KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"{directory} must be a snapshot of the schema's features. Received: {error}.") from error
    if not right:
        raise UserError(f"{directory} must be a snapshot of the features that the schema declares: write the data set "
                        "again. Received: a snapshot of others.")
    state = State(plan, feedback_columns(schema, plan), content["boundary_ms"])
    for n, (by, counts) in enumerate(state.counts.items()):
        if names := list(plan.amounts[by].get(ALL, {})):
            table = _read(directory, f"kept_counts_{n}")
            counts.load(list(_keys(table, by)), {
                name: table[name].fill_null(-1 if counts.combines[counts.places[name]] == "max" else 0).to_numpy()
                for name in names})
    for n, lists in enumerate(state.lists):
        table = _read(directory, f"kept_listed_{n}")
        values = map(value_name, range(len(plan.listed[n].values)))
        rows = zip(*(table[c].to_pylist() for c in (TS, *values)), strict=True)
        for key, event in zip(_keys(table, lists.by), rows, strict=True):
            lists.add(key, event[0], event[1:], 0)
    for n, (by, _, _) in enumerate(plan.firsts):
        table = _read(directory, f"kept_firsts_{n}")
        state.firsts[n].load(zip(_keys(table, by), table[value_name(0)].to_pylist(), strict=True))
    if plan.bases:
        for row in _read(directory, "kept_hours").to_pylist():
            state.hours.start = [row[name] or 0 for name in state.hours.places]
    for exposure in _exposures(_read(directory, "tail"), state, schema.keys["user"]):
        state.restore(exposure)
    state.next_number = max(state.next_number, content.get("next_number", 0))
    return state


def _read(directory: pathlib.Path, table: str) -> pa.Table:
    path = directory / f"{table}.parquet"
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} must be a Parquet file. Received: {error}.") from error


def _keys(table: pa.Table, by: Key) -> Iterator[Any]:
    columns = [table[c].to_pylist() for c in key_names(by)]
    return iter(columns[0]) if len(by) == 1 else zip(*columns, strict=True)


def _exposures(tail: pa.Table, state: State, user: str) -> Iterator[Exposure]:
    """The exposures of the table, in order: those of one millisecond by their columns."""
    plan, held = state.plan, state.plan.columns
    named = [(moment, f"__known_{n}") for n, moment in enumerate(plan.moments)]
    for number, row in enumerate(tail.to_pylist()):
        columns = {c: row[c] for c in held}
        if NUMBER in row:
            known = {c: ms for c in state.feedback if (ms := row[_KNOWN + c]) is not None}
            for c in state.feedback:
                if c not in known:
                    del columns[c]
            columns[user] = row.get(_USER, columns.get(user))
            yield Exposure(row[NUMBER], row[TS], columns, known)
        else:
            moments = {moment: row[name] for moment, name in named}
            yield Exposure(number, row[TS], columns, known_of_columns(row[TS], moments, plan.log.known, state.feedback))


def save(state: State, directory: pathlib.Path, boundary: int, wait_ms: int, schema: Schema) -> None:
    """Write the state at the boundary into an empty directory; see `State.close` for the exposures that it keeps."""
    plan, tables = state.plan, kept(state.plan)
    for n, (by, counts) in enumerate(state.counts.items()):
        if names := list(plan.amounts[by].get(ALL, {})):
            keys, totals = counts.kept(boundary, names)
            columns: dict[str, Any] = _of_keys(keys, by)
            for name, values in totals.items():
                newest = counts.combines[counts.places[name]] == "max"
                columns[name] = pa.array(values, mask=values < 0) if newest else values
            _write(directory, f"kept_counts_{n}", columns, tables)
    for n, lists in enumerate(state.lists):
        events = list(lists.kept(boundary))
        names = [TS, *map(value_name, range(len(plan.listed[n].values)))]
        columns = _of_keys([key for key, _ in events], lists.by)
        columns |= {name: [event[place] for _, event in events] for place, name in enumerate(names)}
        _write(directory, f"kept_listed_{n}", columns, tables)
    for n, (by, _, _) in enumerate(plan.firsts):
        pairs = list(state.firsts[n].kept(boundary))
        columns = _of_keys([key for key, _ in pairs], by) | {value_name(0): [found for _, found in pairs]}
        _write(directory, f"kept_firsts_{n}", columns, tables)
    if plan.bases:
        sums = state.hours.before(boundary)
        _write(directory, "kept_hours", {name: [sums[p]] for name, p in state.hours.places.items()}, tables)
    oldest = oldest_needed(plan, boundary)
    held = [e for e in state.exposures.values() if state.needed(e, boundary, oldest, wait_ms)]
    columns = {TS: [e.time for e in held]} | {c: [e.columns.get(c) for e in held] for c in plan.columns}
    columns |= {name: [None] * len(held) for name in tables["tail"] if name not in columns}
    extra: dict[str, list[Any]] = {NUMBER: [e.number for e in held]}
    extra |= {_KNOWN + c: [e.known.get(c) for e in held] for c in state.feedback}
    types = tables["tail"] | dict.fromkeys(extra, "BIGINT")
    if (user := schema.keys["user"]) not in columns:  # no feature reads it, but feedback names it
        extra[_USER] = [e.columns.get(user) for e in held]
        types |= {_USER: "STRING" if schema.columns[user] == "string" else "BIGINT"}
    _write(directory, "tail", columns | extra, {"tail": types})
    text = json.dumps({"boundary_ms": boundary, "tables": tables, "unknown": sorted(plan.log.unknown),
                       "next_number": state.next_number})
    (directory / BOUNDARY).write_text(text, encoding="utf-8")


def _of_keys(keys: Sequence[Any], by: Key) -> dict[str, Any]:
    rows = [values_of(key, by) for key in keys]
    return {column: [row[place] for row in rows] for place, column in enumerate(key_names(by))}


def _write(directory: pathlib.Path, table: str, columns: Mapping[str, Any],
           tables: Mapping[str, Mapping[str, str]]) -> None:
    arrays = {name: columns[name] if isinstance(columns[name], pa.Array) else pa.array(columns[name], _ARROW[sql])
              for name, sql in tables[table].items()}
    pq.write_table(pa.table(arrays), directory / f"{table}.parquet", compression="zstd")
