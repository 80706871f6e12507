"""Point-in-time features: computes what a schema declares, day by day."""

import pathlib
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from dlen_cam2.schema import Schema
from dlen_cam2.schema.computed import DAY_MS
from dlen_cam2.schema.computed_tags import known_to_tags, to_tags
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import read_json, write_json
from pipelines.engines import Engine, literal, quoted
from pipelines.features import statements
from pipelines.features.amounts import HOUR_MS, ROW, TS, Log
from pipelines.features.plan import Plan

BOUNDARY = "boundary.json"


def splits(
    engine: Engine, schema: Schema, snapshots: pathlib.Path, saved: pathlib.Path | None = None, since: str = "",
    there: Sequence[str] = (), unknown: Iterable[str] = (), without: str = "",
) -> Iterator[tuple[str, pa.RecordBatchReader]]:
    """Compute the features of the table `exposures` day by day; yields the rows of each split in time order.

    A day is the part of a split's name before "_". Exposures whose split is null are older than all days: they feed
    features and are not kept. A feature of a row is made from events of the same and earlier days that are known at a
    strictly earlier time (`Schema.known`). (The days of a log may follow another clock than the times of its rows, such
    as that of the report; what a later day reports was not known before.)

    What was counted of everything older than a day is kept in separate tables, so the cost of a day depends only on its
    own rows and on the longest window. After every day, they are written to `snapshots/DAY` as Parquet files, from
    which a later run resumes.

    Args:
        engine: an engine with the table `exposures`: split, and the columns of the schema that are not computed.
        schema: the columns to yield, and how they are computed. Its keys name the user, the item and the time.
        snapshots: where to write snapshots.
        saved: with `since`, a directory with the snapshots of an earlier run.
        since: the first day to compute, from the snapshot of the day before it. Default: all days, from the start.
        there: with `since`, the splits that are already computed; none of their days may lack its snapshot.
        unknown: feedback that is null in exposures from before the log.
        without: how the names of splits end that are not yielded, though their rows feed features. Default: all are.

    Raises:
        UserError: see `Plan`; a key of a feature is missing (null); there is no day `since` or no snapshot of the day
            before it, or its features were declared otherwise; the log lacks a later day that is already computed; or
            a day holds exposures that are more than 23 hours older than the newest of the days before.
    """
    days = _Days(engine, schema, Plan(schema, _log(engine, schema, unknown)))
    days.check_keys()
    of_day = days.of_day()
    names = sorted(of_day)
    if saved is not None:
        names = days.resume(saved, names, since, there)
    else:
        days.begin()
    for day in names:
        days.open(day, of_day[day])
        for split in of_day[day]:
            if not (without and split.endswith(without)):
                yield split, days.rows(split)
        days.close()
        days.save(snapshots / day)


def _log(engine: Engine, schema: Schema, unknown: Iterable[str]) -> Log:
    types = {name: dtype for name, dtype in engine.types("exposures").items() if name != "split"}
    return Log(types, schema.keys["time"], schema.keys["item"], schema.known, frozenset(unknown),
               masks_of(schema))


def masks_of(schema: Schema) -> dict[str, str]:
    """The column in which each label lies."""
    return {task.label: task.mask for task in schema.tasks if task.mask}


def described(engine: Engine, schema: Schema, unknown: Iterable[str] = ()) -> str:
    """The SQL of a day and of its snapshot, to be read; the day begins with events known before hour 1 of 1970."""
    plan = Plan(schema, _log(engine, schema, unknown))
    parts = {
        "Before the first day": statements.begin(plan),
        "A day: what it has, and what is not known yet": statements.today(plan, "split = 'DAY'", HOUR_MS),
        "Its features": statements.compute(plan, HOUR_MS),
        "After it: what is known a day before its newest exposure": statements.advance(plan, HOUR_MS, 25 * HOUR_MS),
    }
    return "\n\n".join(f"-- {title}.\n\n" + ";\n\n".join(found) + ";" for title, found in parts.items())


class _Days:
    """The tables of a log while its days pass.

    Attributes:
        boundary: what is known before this time (milliseconds) is in the kept tables; None before the first day.
    """

    def __init__(self, engine: Engine, schema: Schema, plan: Plan):
        self.engine, self.schema, self.plan = engine, schema, plan
        self.boundary: int | None = None
        engine.number("exposures", "numbered", ROW)

    def check_keys(self) -> None:
        """Raise `UserError` if a user, an item, a time, or another key of a row that is written is missing."""
        by = [column for f in self.plan.features for column in self.plan.resolved(f).by]
        for column in dict.fromkeys((*self.schema.keys.values(), *by)):
            older = "" if column in self.schema.keys.values() else " AND split IS NOT NULL"
            nulls = self.engine.one(f"SELECT count(*) FROM exposures WHERE {quoted(column)} IS NULL{older}")
            if nulls:
                raise UserError(
                    f"column {column!r} must have a value in every exposure. Received: {nulls} without one.")

    def of_day(self) -> dict[str, list[str]]:
        """The splits of each day."""
        found: dict[str, list[str]] = {}
        names = self.engine.query("SELECT DISTINCT split FROM exposures WHERE split IS NOT NULL ORDER BY split")
        for (split,) in names:
            found.setdefault(split.partition("_")[0], []).append(split)
        return found

    def begin(self) -> None:
        """Start with nothing, or with the exposures that are older than all days."""
        self._run(statements.begin(self.plan))
        if self.engine.one("SELECT count(*) FROM exposures WHERE split IS NULL"):
            self._run(statements.today(self.plan, "split IS NULL", None))
            self.close()

    def open(self, day: str, names: Sequence[str]) -> None:
        """Compute the features of a day's splits."""
        where = f"split IN ({', '.join(map(literal, names))})"
        oldest = self.engine.one(f"SELECT min({quoted(self.plan.log.time)}) FROM exposures WHERE {where}")
        if self.boundary is not None and oldest < self.boundary + HOUR_MS:
            raise UserError(
                f"day {day}: exposures must be at most 23 hours older than the newest exposure of the days before, "
                f"since counters before time_ms={self.boundary + HOUR_MS} are closed. Received: time_ms={oldest}.")
        self._run(statements.today(self.plan, where, self.boundary))
        self._run(statements.compute(self.plan, self.boundary))

    def rows(self, split: str) -> pa.RecordBatchReader:
        """The rows of a split of the day. Labels and targets break ties of (time, user, item): runs write one order."""
        computed = {f.name for f in self.plan.features}
        columns = [f"{'f' if c in computed else 'n'}.{quoted(c)}" for c in self.schema.columns]
        first = [self.schema.keys[role] for role in ("time", "user", "item")]
        rest = [c for c in (*self.plan.columns, *self.schema.binary_columns, *self.schema.targets) if c not in first]
        order = ", ".join(f"n.{quoted(c)}" for c in dict.fromkeys(first + rest))
        rows = self.engine.stream(
            f"SELECT {', '.join(columns)} FROM numbered AS n JOIN computed AS f ON f.{ROW} = n.{ROW} "
            f"WHERE n.split = {literal(split)} ORDER BY {order}")
        expected = self.engine.one(f"SELECT count(*) FROM exposures WHERE split = {literal(split)}")

        def counted() -> Iterator[pa.RecordBatch]:
            made = 0
            for batch in rows:
                made += batch.num_rows
                yield batch
            if made != expected:
                raise RuntimeError(f"{split}: {expected} exposures became {made} rows")  # never in silence

        return pa.RecordBatchReader.from_batches(rows.schema, counted())

    def close(self) -> None:
        """Move the day into the kept tables."""
        newest = self.engine.one(f"SELECT max({TS}) FROM today") - DAY_MS
        boundary = newest - newest % HOUR_MS
        self._run(statements.advance(self.plan, self.boundary, boundary))
        for table in statements.kept(self.plan):
            self.engine.drop(table)
            self.engine.execute(f"ALTER TABLE new_{table} RENAME TO {table}")
        self.engine.drop(*statements.temporary(self.plan))
        self.boundary = boundary

    def save(self, directory: pathlib.Path) -> None:
        directory.mkdir(parents=True)
        for table in statements.kept(self.plan):
            self.engine.save(table, directory / f"{table}.parquet")
        write_json(directory / BOUNDARY, {
            "boundary_ms": self.boundary, "declared": self._declared(), "tables": statements.kept(self.plan),
            "unknown": sorted(self.plan.log.unknown)})

    def _declared(self) -> list[str]:
        """What the kept tables depend on, in words: they are of use to the same features only."""
        known = [f"{name} {' '.join(known_to_tags(known))}" for name, known in sorted(self.plan.log.known.items())]
        return [f"{f.name} {' '.join(to_tags(self.plan.resolved(f)))}" for f in self.plan.features] + known

    def resume(self, directory: pathlib.Path, days: list[str], since: str, there: Sequence[str]) -> list[str]:
        """Load the newest snapshot before `since`; returns the days to compute."""
        saved = sorted(p.name for p in directory.glob("*") if p.is_dir() and p.name < since)
        if since not in days:
            raise UserError(f"--since must be a day of the log. Received: {since!r}. Known: {days}.")
        if not saved:
            raise UserError(f"--since needs a snapshot of an earlier day: run without --since first. Received: "
                            f"--since={since}, and no earlier snapshot in {directory}.")
        written = {split.partition("_")[0] for split in there}
        if later := sorted(day for day in written if day > since and day not in days):
            raise UserError(f"--since={since} needs a log with all later days of the data set, since their counters "
                            f"change. Received: a data set with {later}, and a log with {days}.")
        between = sorted(day for day in {*days, *written} if saved[-1] < day < since)
        if between:
            raise UserError(f"--since must directly follow a day that has a snapshot, so that no day is left out. "
                            f"Received: --since={since}, with {between} after the snapshot of {saved[-1]}.")
        content = read_json(directory / saved[-1] / BOUNDARY)
        if (content["declared"], content["tables"]) != (self._declared(), statements.kept(self.plan)):
            raise UserError(f"--since must have the features and columns of the run that wrote the snapshots: run "
                            f"without --since to write all days again. Received: others than those of "
                            f"{directory / saved[-1]}.")
        self.boundary = content["boundary_ms"]
        for table in statements.kept(self.plan):
            self.engine.load_parquet(table, directory / saved[-1] / f"{table}.parquet")
        return [day for day in days if day >= since]

    def _run(self, found: Iterable[str]) -> None:
        for statement in found:
            self.engine.execute(statement)
