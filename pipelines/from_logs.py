"""Turn any log (Parquet, CSV or JSON lines) into a data set, with a schema that describes its columns.

    python -m pipelines.from_logs --logs='s/*.csv' --time=ts --user=uid --item=vid --schema=my.pbtxt --suggest_schema
    python -m pipelines.from_logs --logs='s/*.csv' --time=ts --user=uid --item=vid --schema=my.pbtxt --out=data/my

The first command reads a sample and proposes a schema, which you read and correct. The second writes the data set. The
columns of the log must have the schema's names. A missing id is written as -1, a missing string as "", and a missing
list as empty; labels, numbers and keys must not be missing. In text, a list is JSON, such as `["a", "b"]`, or values
separated by spaces. For a log without times, pass --split_by in place of --time.

The tags of the schema describe the columns:

    side:user|item|context and cause:statistical|content|context: a feature
    task:NAME: a label of 0 and 1; with negative if it shows dislike, and weight:W
    mask:COLUMN: the task counts only where COLUMN is 1, and its label may be missing where it is 0. COLUMN may be the
        label of another task, which this one follows (purchases among clicks), or a column tagged sample_space.
    task:NAME with kind:regression: a label that is a number, such as watch seconds
    target:N: a number to keep beside the labels
    transform:log1p|logit, min_count:N, oov_buckets:N, hash_buckets:N, embedding_width:N, table:NAME: for a feature

    known_at:COLUMN: feedback is known at the time in this column; with within:24h, a label counts as 0 if it comes
        later
    known_after:COLUMN|2h: feedback is known so many seconds (or 2h) after its exposure. Default: right after it
    computed:KIND, by:COLUMNS, …: a feature that is no column of the log; see docs/concepts/computed_features.md
"""

import dataclasses
import glob
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from absl import flags

from dlen_cam2.schema import Schema, pbtxt
from dlen_cam2.utils import commands, console
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import read_bytes, write_text
from pipelines import options
from pipelines.engines import Engine, literal, quoted
from pipelines.logs.log_files import OURS, Log, open_log
from pipelines.logs.read_columns import read_columns
from pipelines.logs.split_by import ROW_HASH, SPLITS, WAYS, SplitBy
from pipelines.logs.typed_columns import UNITS, Roles, broken, check_time, holds_texts, typed
from pipelines.options import Options, publish
from pipelines.suggestion.propose_computed import costs
from pipelines.suggestion.suggest import suggest
from pipelines.writer import dataset

FLAGS = flags.FLAGS

POLICIES = ("fail", "skip")


def propose(
    logs: str, roles: Roles, beside: str | os.PathLike = "schema.pbtxt", how: Options = Options(),  # noqa: B008
) -> tuple[Schema, dict[str, str]]:
    """Propose a schema for the files that match the pattern `logs`, and say why for each column; see `suggest`.

    The engine works in a directory beside `beside`, and leaves nothing there.

    Raises:
        UserError: no file matches, a file cannot be read, or `suggest` raises it.
    """
    with how.connect(beside) as engine:
        log = open_log(engine, files(logs))
        check_time(engine, log, roles)
        return suggest(engine, log, roles.time, roles.user, roles.item, roles.random, roles.split_column)


def convert(
    logs: str, schema: Schema, roles: Roles, output: str, on_bad_row: str = "fail",
    how: Options = Options(),  # noqa: B008
) -> dict[str, Any]:
    """Read the files that match the pattern `logs` and write the data set `output`; returns its statistics.

    Rows that are equal in every column count once. In a log without times, they may be different events, and all count.
    Time is kept in milliseconds.

    Raises:
        UserError: no file matches, a file cannot be read, a column is missing or has another type, a row breaks a rule
            (with `on_bad_row="skip"`, it is left out and counted), there are no rows, or days are added to a data set
            that does not exist or was written with other settings.
    """
    if on_bad_row not in POLICIES:
        raise UserError(f"on_bad_row must be one of {POLICIES}. Received: {on_bad_row!r}.")
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
        schema = _with_keys(schema, roles, texts)
        clock = {"time_unit": roles.unit, "utc_offset": roles.utc_offset, "random": roles.random}
        if roles.split_by:
            clock = {"split_by": dataclasses.asdict(roles.split_by), "random": roles.random}
        if there:
            _check_as_before(output, there, schema, clock)
        computed = [f.name for f in schema.features if f.computed]
        if computed and not roles.time:
            raise UserError("computed features need a log with times, since they are computed from earlier rows: "
                            f"remove them from the schema, or pass --time. Received: {computed}.")
        given = typed(log, schema, roles)
        columns = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in given.items())
        rule = broken(log, schema, roles)
        statement = f"CREATE TABLE typed AS SELECT {columns}, {rule} AS broken FROM log"
        engine.execute(statement, f"{log.name} cannot be read")
        report = _count(engine, log, on_bad_row) | clock
        if roles.split_by is None:
            engine.run(pathlib.Path(__file__).with_suffix(".sql"))
        else:
            roles.split_by.divide(engine, schema)
        report["rows_repeated"] = report["rows_read"] - sum(report["rows_skipped"].values()) - engine.one(
            "SELECT count(*) FROM exposures")
        console.say(f"{report['rows_read']:,} rows were read, {sum(report['rows_skipped'].values()):,} skipped, and "
                    f"{report['rows_repeated']:,} exact duplicates dropped")
        if older := engine.one(f"SELECT count(*) FROM exposures WHERE split < {literal(how.since)}"):
            console.say(f"{older:,} rows of days before --since={how.since} are left out")
        _tell_long_lists(engine, schema)
        if computed:
            unknown = [name for name, read in read_columns(schema, log).items() if read == "float"]
            return publish(engine, output, schema, report, how, unknown=unknown)
        splits = _splits(engine, schema, how)
        total = options.exposures(engine, how.since)
        if how.since:
            return dataset.append(output, splits, {**report, "since": how.since}, how.form, total=total)
        return dataset.write_dataset(
            output, schema, splits, report, form=how.form, train_days=how.train_days, total=total)


def files(pattern: str) -> list[pathlib.Path]:
    """The files that match `pattern`; commas separate several patterns. Raises `UserError` if there are none."""
    found = sorted({path for part in pattern.split(",") for path in glob.glob(part.strip(), recursive=True)})
    found = [path for path in found if os.path.isfile(path)]
    if not found:
        raise UserError(f"--logs must match at least one file. Received: {pattern!r}.")
    return [pathlib.Path(path) for path in found]


def _with_keys(schema: Schema, roles: Roles, texts: Sequence[str] = ()) -> Schema:
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


def _splits(engine: Engine, schema: Schema, how: Options) -> Iterator[tuple[str, pa.RecordBatchReader]]:
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
        if split >= how.since:
            yield split, engine.stream(
                f"SELECT {', '.join(map(quoted, schema.columns))} FROM exposures AS e "
                f"WHERE split = {literal(split)} ORDER BY {', '.join(order)}")


def define_flags() -> None:
    flags.DEFINE_string("logs", None, "Files of the log: a pattern, or several separated by commas.", required=True)
    flags.DEFINE_string("schema", None, "File of the schema; with --suggest_schema, a new file to write it to.")
    flags.DEFINE_bool("suggest_schema", False, "Propose a schema from a sample of the log, and write no data set.")
    flags.DEFINE_string("time", "", "Column of the time of exposure; required unless --split_by is given.")
    flags.DEFINE_string("user", None, "Column of the user's id.", required=True)
    flags.DEFINE_string("item", None, "Column of the item's id.", required=True)
    flags.DEFINE_string("random", "", "Column that is 1 for uniformly random exposures. Default: none.")
    flags.DEFINE_enum("time_unit", "ms", list(UNITS), "Unit of a time that is an integer.")
    flags.DEFINE_integer("utc_offset", 0, "Hours by which days begin earlier than in UTC, 8 for Beijing.", -14, 14)
    flags.DEFINE_enum("split_by", None, WAYS, "Split of a log without times. user, item: all rows of one are in train "
                      "or in test; label: each combination of labels is divided; split: --split_column names it.")
    flags.DEFINE_string("split_column", "split", "Column that is train, validation or test, with --split_by=split.")
    flags.DEFINE_float("test_share", 0.2, "Share of users, items or rows that --split_by puts into test.")
    flags.DEFINE_enum("on_bad_row", "fail", POLICIES, "Rows that break a rule: fail stops, skip leaves them out and "
                      "counts them.")
    options.define_flags(output=False)
    flags.DEFINE_alias("out", "output")


def main() -> None:
    import time

    split_by = SplitBy(FLAGS.split_by, FLAGS.split_column, FLAGS.test_share) if FLAGS.split_by else None
    roles = Roles(FLAGS.time, FLAGS.user, FLAGS.item, FLAGS.random, FLAGS.time_unit, FLAGS.utc_offset,
                  int(time.time() * 1000) + 60_000, split_by)
    if FLAGS.suggest_schema:
        _suggest(roles)
        return
    if not FLAGS.schema or not FLAGS.output:
        raise UserError(f"--schema and --out must be given. Received: {FLAGS.schema!r}, {FLAGS.output!r}.")
    content = read_bytes(FLAGS.schema)
    try:
        schema = pbtxt.loads(content.decode())
    except (UserError, UnicodeDecodeError) as error:
        raise UserError(f"{FLAGS.schema}: {error}") from error
    statistics = convert(FLAGS.logs, schema, roles, FLAGS.output, FLAGS.on_bad_row, options.from_flags())
    options.finish(statistics)


def _suggest(roles: Roles) -> None:
    if FLAGS.schema and pathlib.Path(FLAGS.schema).exists():
        raise UserError(f"--schema must be a new file with --suggest_schema. Received: {FLAGS.schema!r}, which exists.")
    schema, why = propose(FLAGS.logs, roles, FLAGS.schema or "schema.pbtxt", Options(memory=FLAGS.memory))
    console.say("\n".join(f"{name}: {reason}" for name, reason in why.items()))
    if computed := [f for f in schema.features if f.computed]:
        console.say(costs(computed))
    if FLAGS.schema:
        write_text(FLAGS.schema, pbtxt.dumps(schema))
        console.next_step(f"read and correct {FLAGS.schema}, then run the command without --suggest_schema")
    else:
        print(pbtxt.dumps(schema))


if __name__ == "__main__":
    commands.run(main, define_flags)
