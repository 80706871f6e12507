"""Point-in-time features: runs the SQL beside this file, day by day, and describes its columns."""

import pathlib
from collections.abc import Iterator, Sequence

import pyarrow as pa

from dlen_cam2.schema import Feature, Schema
from dlen_cam2.utils.errors import UserError
from pipelines.engines import Engine, literal, quoted
from pipelines.features.text_ids import HISTORIES, TextIds

SQL = pathlib.Path(__file__).with_suffix(".sql")
SNAPSHOT = pathlib.Path(__file__).with_name("snapshot.sql")
HOUR_MS = 3_600_000
HISTORY_LENGTH = 20


_FEEDBACK = ("clicks", "long_views", "likes")
_ALL = ("impressions", "logged", *_FEEDBACK, "profile_enters")
_PLAY = ("play_ms", "offered_ms")
# The tables that snapshot.sql keeps: the key's columns, then the counters.
STATE = {
    "totals": dict.fromkeys(("impressions", "views", *_FEEDBACK, "profile_enters"), "BIGINT"),
    "users": dict.fromkeys(("user_id", *_ALL, *_PLAY, "last_ms"), "BIGINT"),
    "videos": dict.fromkeys(("video_id", *_ALL, *_PLAY), "BIGINT"),
    "authors": dict.fromkeys(("author_id", *_ALL), "BIGINT"),
    "user_tabs": dict.fromkeys(("user_id", "tab", "logged", *_FEEDBACK), "BIGINT"),
    "user_topics": dict.fromkeys(("user_id", "topic", "impressions", "logged", *_FEEDBACK), "BIGINT")
    | {"topic": "STRING"},
    "user_authors": dict.fromkeys(("user_id", "author_id", "impressions", "long_views"), "BIGINT"),
    "user_videos": dict.fromkeys(("user_id", "video_id", "impressions"), "BIGINT"),
    "recent": dict.fromkeys(("user_id", "time_ms", "video_id", "long_view", "like"), "BIGINT"),
}


# What counters calculate with: feedback, 0 or 1, and seconds.
BINARY = ("click", "long_view", "like", "profile_enter")
SECONDS = ("duration_s", "play_s")
# What counters and histories are made of.
_NARROW = ('time_ms, user_id, video_id, author_id, topic, tab, duration_s, play_s, click, long_view, "like", '
           "profile_enter")


def _count(name: str, side: str) -> Feature:
    return Feature(name, "float", side, "statistical", transform="log1p")


def _rate(name: str, side: str) -> Feature:
    return Feature(name, "float", side, "statistical", transform="logit")


# The numeric columns that point_in_time.sql adds.
COUNTERS = (
    *(_count(f"user_{c}", "user") for c in (
        "impressions", "clicks", "long_views", "likes", "profile_enters", "idle_s", "hour_impressions",
        "hour_long_views")),
    *(_rate(f"user_{r}", "user") for r in (
        "click_rate", "long_view_rate", "like_rate", "profile_enter_rate", "play_ratio")),
    *(_count(f"video_{c}", "item") for c in (
        "impressions", "clicks", "long_views", "likes", "profile_enters")),
    *(_rate(f"video_{r}", "item") for r in (
        "click_rate", "long_view_rate", "like_rate", "profile_enter_rate", "play_ratio")),
    *(_count(f"author_{c}", "item") for c in (
        "impressions", "clicks", "long_views", "likes", "profile_enters")),
    *(_rate(f"author_{r}", "item") for r in ("click_rate", "long_view_rate", "like_rate", "profile_enter_rate")),
    *(_count(f"user_{c}", "context") for c in (
        "tab_logged", "topic_impressions", "author_impressions", "author_long_views", "video_impressions")),
    *(_rate(f"user_{r}", "context") for r in (
        "tab_click_rate", "tab_long_view_rate", "tab_like_rate", "topic_click_rate", "topic_long_view_rate",
        "topic_like_rate")),
)


def histories(videos: int) -> tuple[Feature, ...]:
    """The user's earlier videos, newest first, sharing the table of `video_id`."""
    return tuple(
        Feature(name, "int", "user", "content", size=videos, width=16, table="video_id", max_length=HISTORY_LENGTH)
        for name in HISTORIES
    )


def splits(
    engine: Engine, schema: Schema, snapshots: pathlib.Path, saved: pathlib.Path | None = None, since: str = "",
    there: Sequence[str] = (), ids: TextIds = TextIds(),  # noqa: B008
) -> Iterator[tuple[str, pa.RecordBatchReader]]:
    """Compute the features of the table `exposures` day by day; yields the rows of each split in time order.

    A day is the part of a split's name before "_". Exposures whose split is null are older than all days: they feed
    counters and histories and are not kept. A feature of a row is made from rows of the same and earlier days with a
    strictly earlier time. (The days of a log may follow another clock than the times of its rows, such as that of the
    report; what a later day reports was not known before.)

    The counters and histories of everything older than a day are kept in separate tables, so the cost of a day depends
    only on its own rows. After every day, they are written to `snapshots/DAY` as Parquet files, from which a later run
    resumes.

    Args:
        engine: an engine with the table `exposures`, as point_in_time.sql describes `today`.
        schema: the columns to yield.
        snapshots: where to write snapshots.
        saved: with `since`, a directory with the snapshots of an earlier run.
        since: the first day to compute, from the snapshot of the day before it. Default: all days, from the start.
        there: with `since`, the splits that are already computed; none of their days may lack its snapshot.
        ids: which id columns of `exposures` are texts.

    Raises:
        UserError: a time, user, video, author, topic or tab is missing (null); there is no day `since` or no snapshot
            of the day before it; the log lacks a later day that is already computed; or a day holds exposures that are
            more than 23 hours older than the newest of the days before.
    """
    for column in ("time_ms", "user_id", "video_id", "author_id", "topic", "tab"):
        older = " AND split IS NOT NULL" if column == "tab" else ""  # in which tab is not known of older exposures
        nulls = engine.one(f'SELECT count(*) FROM exposures WHERE "{column}" IS NULL{older}')
        if nulls:
            raise UserError(f"column {column!r} must have a value in every exposure. Received: {nulls} without one.")
    found = engine.query("SELECT DISTINCT split FROM exposures WHERE split IS NOT NULL ORDER BY split")
    of_day: dict[str, list[str]] = {}
    for (split,) in found:
        of_day.setdefault(split.partition("_")[0], []).append(split)
    days = sorted(of_day)
    if saved is not None:
        days = _resume(engine, saved, days, since, there, ids)
    else:
        ids.encode(engine)
        _begin(engine)
        if engine.one("SELECT count(*) FROM exposures WHERE split IS NULL"):
            engine.execute(f"CREATE TABLE today AS SELECT {_NARROW}, 1 AS new FROM exposures WHERE split IS NULL")
            _advance(engine)
    items = ids.items(engine, schema.columns)
    for day in days:
        _begin_day(engine, day, of_day[day])
        engine.run(SQL)
        made, new = engine.one("SELECT count(*) FROM rows"), engine.one("SELECT sum(new) FROM today")
        if made != new:
            raise RuntimeError(f"day {day}: {new} exposures became {made} rows")  # never in silence
        for split in of_day[day]:
            where = f"split = {literal(split)}"
            # A history without entries is null in SQL, an empty list in a data set.
            rows = engine.stream(f"SELECT {ids.select(schema.columns)} FROM rows WHERE {where} {_order(schema)}")
            yield split, ids.decode(rows, items)
        engine.drop("rows")
        _advance(engine)
        _save(engine, snapshots / day)
        ids.save(engine, day, snapshots / day)


def _order(schema: Schema) -> str:
    """The order of a split's rows. Labels and targets break ties of (time, user, video): every run writes one order."""
    first = ["time_ms", "user_id", "video_id"]
    rest = [c for c in ("tab", *schema.binary_columns, *schema.targets) if c not in first]
    return "ORDER BY " + ", ".join(map(quoted, first + rest))


def _begin(engine: Engine) -> None:
    for table, columns in STATE.items():
        value, where = (0, "") if table == "totals" else ("NULL", "WHERE false")
        row = ", ".join(f"CAST({value} AS {t}) AS {quoted(c)}" for c, t in columns.items())
        engine.execute(f"CREATE TABLE {table} AS SELECT * FROM (SELECT {row}) AS state {where}")
    engine.execute("CREATE TABLE boundary AS SELECT CAST(NULL AS BIGINT) AS from_ms")
    engine.execute(f"CREATE TABLE tail AS SELECT {_NARROW}, 1 AS new FROM exposures WHERE false")


def _begin_day(engine: Engine, day: str, names: list[str]) -> None:
    where = f"split IN ({', '.join(map(literal, names))})"
    engine.execute(f"CREATE OR REPLACE TEMPORARY VIEW shown AS SELECT * FROM exposures WHERE {where}")
    oldest = engine.one("SELECT min(time_ms) FROM shown")
    boundary = engine.one("SELECT from_ms FROM boundary")
    if boundary is not None and oldest < boundary + HOUR_MS:
        raise UserError(
            f"day {day}: exposures must be at most 23 hours older than the newest exposure of the days before, since "
            f"counters before time_ms={boundary + HOUR_MS} are closed. Received: time_ms={oldest}."
        )
    engine.execute(
        f"CREATE TABLE today AS SELECT {_NARROW}, 1 AS new FROM shown UNION ALL SELECT {_NARROW}, 0 AS new FROM tail"
    )


def _advance(engine: Engine) -> None:
    engine.run(SNAPSHOT)
    for table in (*STATE, "tail", "boundary"):
        engine.drop(table)
        engine.execute(f"ALTER TABLE new_{table} RENAME TO {table}")
    engine.drop("today")


def _save(engine: Engine, directory: pathlib.Path) -> None:
    directory.mkdir(parents=True)
    for table in (*STATE, "tail", "boundary"):
        engine.save(table, directory / f"{table}.parquet")


def _resume(
    engine: Engine, directory: pathlib.Path, days: list[str], since: str, there: Sequence[str], ids: TextIds
) -> list[str]:
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
    for table in (*STATE, "tail", "boundary"):
        engine.load_parquet(table, directory / saved[-1] / f"{table}.parquet")
    ids.encode(engine, since, directory / saved[-1])
    return [day for day in days if day >= since]
