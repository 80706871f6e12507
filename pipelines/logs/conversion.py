"""Turns a log into a data set, by a schema that describes its columns."""

import dataclasses
import glob
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from dlen_cam2.schema import Schema
from dlen_cam2.utils import console
from dlen_cam2.utils.errors import UserError
from pipelines import options
from pipelines.engines import Engine, literal, quoted
from pipelines.features import point_in_time
from pipelines.logs.log_files import OURS, Log, open_log
from pipelines.logs.read_columns import read_columns
from pipelines.logs.split_by import ROW_HASH, SPLITS
from pipelines.logs.typed_columns import (
    YOUNG,
    Roles,
    attribution_ms,
    broken,
    holds_texts,
    time_ms,
    typed,
)
from pipelines.options import Options, publish
from pipelines.writer import dataset

POLICIES = ("fail", "skip")
YOUNG_ROWS = ("drop", "mark")


def convert(
    logs: str, schema: Schema, roles: Roles, output: str, on_bad_row: str = "fail",
    how: Options = Options(), young_rows: str = "drop",  # noqa: B008
) -> dict[str, Any]:
    """Read the files that match the pattern `logs` and write the data set `output`; returns its statistics.

    Rows that are equal in every column count once. In a log without times, they may be different events, and all count.
    Time is kept in milliseconds. With an attribution window (`Known.within`), the rows that are younger than it at the
    end of the log have no sure label yet: they feed features, and are left out, or in splits `DAY_young` with
    `young_rows="mark"`.

    Raises:
        UserError: no file matches, a file cannot be read, a column is missing or has another type, a row breaks a rule
            (with `on_bad_row="skip"`, it is left out and counted), there are no rows, or days are added to a data set
            that does not exist or was written with other settings.
    """
    if on_bad_row not in POLICIES:
        raise UserError(f"on_bad_row must be one of {POLICIES}. Received: {on_bad_row!r}.")
    if young_rows not in YOUNG_ROWS:
        raise UserError(f"young_rows must be one of {YOUNG_ROWS}. Received: {young_rows!r}.")
    if how.engine != "duckdb":
        raise UserError(f"--engine must be duckdb for from_logs. Received: {how.engine!r}.")
    if how.since and not roles.time:
        raise UserError(f"--since needs a log with times, since it adds days. Received: --since={how.since}.")
    with how.connect(output) as engine:
        log = open_log(engine, files(logs))
        for column in filter(None, (*roles.keys.values(), roles.random, roles.split_column)):
            log.column(column)
        there = dataset.standing(output) if how.since else None
        texts = there[0].text_keys if there else [
            name for name in (roles.user, roles.item) if name not in schema.columns and holds_texts(engine, log, name)]
        schema = with_keys(schema, roles, texts)
        clock = {"time_unit": roles.unit, "utc_offset": roles.utc_offset, "random": roles.random}
        if roles.split_by:
            clock = {"split_by": dataclasses.asdict(roles.split_by), "random": roles.random}
        if there:
            _check_as_before(output, there, schema, clock)
            if (young := there[1].get("source", {}).get("young_from")) and young < how.since:
                raise UserError(f"days must be added from {young} on, whose youngest rows had no sure label when "
                                f"{output} was written. Received: --since={how.since}.")
        computed = [f.name for f in schema.features if f.computed]
        if computed and not roles.time:
            raise UserError("computed features need a log with times, since they are computed from earlier rows: "
                            f"remove them from the schema, or pass --time. Received: {computed}.")
        labels = {t.label for t in schema.tasks if not t.is_number}
        if windows := sorted(name for name, known in schema.known.items() if known.within and
                             (name not in labels or not roles.time)):
            raise UserError(f"only the label of a task of 0 and 1, in a log with times, may have an attribution window "
                            f"(within:). Received: {windows}.")
        given = typed(log, schema, roles, _end_ms(engine, log, schema, roles))
        columns = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in given.items())
        rule = broken(log, schema, roles)
        statement = f"CREATE TABLE typed AS SELECT {columns}, {rule} AS broken FROM log"
        engine.execute(statement, f"{log.name} cannot be read")
        report = _count(engine, log, on_bad_row) | clock
        if roles.split_by is None:
            engine.run(pathlib.Path(__file__).with_name("distinct_rows.sql"))
        else:
            roles.split_by.divide(engine, schema)
        report["rows_repeated"] = report["rows_read"] - sum(report["rows_skipped"].values()) - engine.one(
            "SELECT count(*) FROM exposures")
        console.say(f"{report['rows_read']:,} rows were read, {sum(report['rows_skipped'].values()):,} skipped, and "
                    f"{report['rows_repeated']:,} exact duplicates dropped")
        if older := engine.one(f"SELECT count(*) FROM exposures WHERE split < {literal(how.since)}"):
            console.say(f"{older:,} rows of days before --since={how.since} are left out")
        report |= _young(engine, schema, young_rows)
        without = YOUNG if young_rows == "drop" and attribution_ms(schema) else ""
        _tell_long_lists(engine, schema)
        if computed:
            return publish(engine, output, schema, report, how, unknown=_unknown(schema, log), without=without)
        splits = _splits(engine, schema, how, without)
        total = options.exposures(engine, how.since, without)
        if how.since:
            return dataset.append(output, splits, {**report, "since": how.since}, how.form, total=total)
        return dataset.write_dataset(
            output, schema, splits, report, form=how.form, train_days=how.train_days, total=total)


def sql(schema: Schema, roles: Roles, logs: str, how: Options = Options()) -> str:  # noqa: B008
    """The SQL that computes the features of `schema` from files that match `logs`: of a day, and of its snapshot.

    Raises:
        UserError: no file matches, or a feature cannot be computed from them.
    """
    with how.connect("sql") as engine:
        log = open_log(engine, files(logs))
        schema = with_keys(schema, roles)
        columns = ", ".join(f"{value} AS {quoted(name)}" for name, value in typed(log, schema, roles).items())
        engine.execute(f"CREATE TABLE exposures AS SELECT {columns} FROM log LIMIT 0")
        return point_in_time.described(engine, schema, _unknown(schema, log))


def _unknown(schema: Schema, log: Log) -> list[str]:
    """The columns that only features read and that rows may lack."""
    return [name for name, read in read_columns(schema, log).items() if read == "float"]


def files(pattern: str) -> list[pathlib.Path]:
    """The files that match `pattern`; commas separate several patterns. Raises `UserError` if there are none."""
    found = sorted({path for part in pattern.split(",") for path in glob.glob(part.strip(), recursive=True)})
    found = [path for path in found if os.path.isfile(path)]
    if not found:
        raise UserError(f"--logs must match at least one file. Received: {pattern!r}.")
    return [pathlib.Path(path) for path in found]


def with_keys(schema: Schema, roles: Roles, texts: Sequence[str] = ()) -> Schema:
    """The schema with the keys of the roles; those in `texts` hold texts without being features."""
    keys = roles.keys
    if len(set(keys.values())) < len(keys):
        raise UserError(f"--{', --'.join(keys)} must be different columns. Received: {keys}.")
    if ours := sorted(set(OURS) & set(schema.columns)):
        raise UserError(f"the schema must not use the reserved column names 'split' and 'broken'. Received: {ours}.")
    wrong = {role: column for role, column in schema.keys.items() if keys.get(role) != column}
    if wrong:
        raise UserError(f"the schema's keys must be the columns of --user, --item and --time. Received: {wrong} in the "
                        f"schema, and {keys}.")
    return dataclasses.replace(schema, keys=keys, text_keys=(*schema.text_keys, *texts))


def _check_as_before(
    directory: str, there: tuple[Schema, dict[str, Any]], schema: Schema, clock: dict[str, Any]
) -> None:
    """Raise `UserError` unless the data set was written with this schema and clock."""
    stored, content = there
    source = content.get("source", {})
    for name, value in clock.items():
        if source.get(name, value) != value:
            raise UserError(f"days must be added with --{name}={source[name]}, as {directory} was written. "
                            f"Received: --{name}={value}.")
    ours, theirs = _parts(schema), _parts(stored)
    if different := sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n)):
        raise UserError(f"days must be added with the schema that {directory} was written with: run without --since to "
                        f"write all days again. Received: different {different}.")


def _parts(schema: Schema) -> dict[str, Any]:
    """The parts that two schemas must share, by name; learned vocabularies do not count."""
    features = {f.name: dataclasses.replace(f, vocabulary=()) if f.min_count else f for f in schema.features}
    return {**features, **{t.label: t for t in schema.tasks}, "the targets": schema.targets,
            "the keys": dict(schema.keys), "the keys that are texts": schema.text_keys,
            "the times at which feedback is known": dict(schema.known)}


def _end_ms(engine: Engine, log: Log, schema: Schema, roles: Roles) -> int:
    """The time of the log's last row; 0 if no label has an attribution window."""
    if not attribution_ms(schema):
        return 0
    time = time_ms(log, roles, roles.time)
    return int(engine.one(f"SELECT coalesce(max({time}), 0) FROM log WHERE {time} <= {roles.now_ms}"))


def _young(engine: Engine, schema: Schema, young_rows: str) -> dict[str, Any]:
    """How many rows are younger than the attribution window, and the first day that has such rows."""
    if not attribution_ms(schema):
        return {}
    where = f"right(split, {len(YOUNG)}) = {literal(YOUNG)}"
    rows, first = engine.query(f"SELECT count(*), min(split) FROM exposures WHERE {where}")[0]
    became = "are left out" if young_rows == "drop" else f"are in splits DAY{YOUNG}"
    console.say(f"{rows:,} rows are younger at the end of the log than the attribution window: they {became}")
    if rows:
        console.say(f"the next --since must be {first.partition('_')[0]}, so that they are written with their labels")
    return {"rows_young": rows, "young_rows": young_rows, "young_from": first.partition("_")[0] if rows else ""}


def _tell_long_lists(engine: Engine, schema: Schema) -> None:
    for f in schema.features:
        if f.is_list and not f.computed and (
                longer := engine.one(f"SELECT count(*) FROM exposures WHERE len({quoted(f.name)}) > {f.max_length}")):
            console.say(f"column {f.name!r}: {longer:,} rows have more than {f.max_length} values (value_count.max); "
                        "the reader keeps the first of them")


def _count(engine: Engine, log: Log, on_bad_row: str) -> dict[str, Any]:
    """Count the rows read, and those skipped by rule; raises `UserError` for the first unless they may be skipped."""
    read = engine.one("SELECT count(*) FROM typed")
    bad = engine.query("SELECT broken.rule, count(*), min(broken.received), arg_min(broken.file, broken.received) "
                       "FROM typed WHERE broken IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1")
    if bad and on_bad_row == "fail":
        rule, count, received, file = bad[0]
        raise UserError(f"{file}: {rule}. Received: {received}. {count:,} of {read:,} rows break this rule"
                        + (f", and {len(bad) - 1} more rules are broken" if len(bad) > 1 else "")
                        + "; --on_bad_row=skip leaves such rows out.")
    for rule, count, received, file in bad:
        console.warn(f"skipped {count:,} of {read:,} rows: {file}: {rule}. Received: {received}")
    return {"pipeline": "from_logs", "rows_read": read, "rows_skipped": {rule: count for rule, count, *_ in bad}}


def _splits(engine: Engine, schema: Schema, how: Options, without: str) -> Iterator[tuple[str, pa.RecordBatchReader]]:
    """The rows of each split by time, or by hash without times; every column that has an order breaks ties."""
    lists = {f.name for f in schema.features if f.is_list}
    first = quoted(schema.keys["time"]) if "time" in schema.keys else ROW_HASH
    order = [first, *[quoted(c) for c in schema.columns if c not in lists]]
    found = [split for (split,) in engine.query("SELECT DISTINCT split FROM exposures ORDER BY split")]
    if "time" not in schema.keys:
        found.sort(key=lambda split: SPLITS.index(split.partition("_")[0]))  # what is trained on comes first
    how.check_days(found)
    if how.since and how.since not in {split.split("_")[0] for split in found}:
        raise UserError(f"--since must be a day of the log. Received: {how.since!r}. Known: {found}.")
    for split in found:
        if split >= how.since and not (without and split.endswith(without)):
            yield split, engine.stream(
                f"SELECT {', '.join(map(quoted, schema.columns))} FROM exposures AS e "
                f"WHERE split = {literal(split)} ORDER BY {', '.join(order)}")
