"""Point-in-time features: the SQL beside this file, and what its columns are."""

import pathlib
from collections.abc import Iterator

import duckdb
import pyarrow as pa

from dlen_cam2.cli import UserError
from dlen_cam2.schema import Feature

SQL = pathlib.Path(__file__).with_suffix(".sql")
HISTORY_LENGTH = 20


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
        for name in ("watched", "long_viewed", "liked")
    )


def splits(connection: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, pa.Table]]:
    """Run point_in_time.sql on the table `exposures`; yield each split's rows in time order.

    Raises:
        UserError: a time, user id or video id is missing (null).
    """
    for column in ("time_ms", "user_id", "video_id"):
        nulls = connection.sql(f'SELECT count(*) FROM exposures WHERE "{column}" IS NULL').fetchall()[0][0]
        if nulls:
            raise UserError(f"column {column!r} must have a value in every exposure. Received: {nulls} without.")
    connection.execute(SQL.read_text(encoding="utf-8"))
    names = [name for (name,) in connection.sql("SELECT DISTINCT split FROM rows ORDER BY split").fetchall()]
    for name in names:
        # Ties of (time, user, video) fall by the rest of the row, so every run writes the same order.
        query = "SELECT * EXCLUDE (split) FROM rows WHERE split = $1 ORDER BY time_ms, user_id, video_id, hash(rows)"
        yield name, connection.sql(query, params=[name]).to_arrow_table()
