"""Turn KuaiRand-Pure into a data set: `python -m pipelines.kuairand --input=DIR --output=DIR`.

DIR is the official directory, or a part of it: any of its `log_*.csv` files, including the log of random exposures,
`user_features_*.csv`, `video_features_basic_*.csv`, and optionally `user_history_before_*.csv`. The statistics file of
the videos is not read, since it aggregates over the whole log and so sees the future.
"""

import csv
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from absl import flags

from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.utils import commands, console
from dlen_cam2.utils.errors import UserError
from pipelines import options
from pipelines.engines import Engine
from pipelines.features.feed import COUNTERS, KNOWN, SESSION, histories
from pipelines.options import Options, publish
from pipelines.sources import csv_tables

FLAGS = flags.FLAGS

# The columns that are read, with their types; files may have more.
_LOG = {
    **dict.fromkeys(
        ("user_id", "video_id", "date", "hourmin", "time_ms", "is_click", "is_like", "is_follow", "is_comment",
         "is_forward", "is_hate", "long_view", "play_time_ms", "duration_ms", "profile_stay_time",
         "comment_stay_time", "is_profile_enter", "is_rand", "tab"),
        "BIGINT",
    ),
    "date": "STRING",
}
_USERS = {
    **dict.fromkeys(
        ("user_id", "is_live_streamer", "is_video_author", "follow_user_num", "fans_user_num", "friend_user_num",
         "register_days"), "BIGINT",
    ),
    **dict.fromkeys(
        ("user_active_degree", "follow_user_num_range", "fans_user_num_range", "friend_user_num_range",
         "register_days_range"), "STRING",
    ),
    **{f"onehot_feat{i}": "DOUBLE" for i in range(18)},
}
_VIDEOS = {
    "video_id": "BIGINT", "author_id": "BIGINT", "video_type": "STRING", "upload_dt": "DATE",
    "upload_type": "STRING", "server_width": "DOUBLE", "server_height": "DOUBLE", "music_type": "DOUBLE",
    "tag": "STRING",
}
_HISTORY = ("user_id", "last_time_ms", "watch_seq", "like_seq", "long_watch_seq")
_NEEDED = ("user_id", "video_id", "time_ms", "is_click", "long_view", "is_like", "is_profile_enter")
# What is not known of the videos that users watched before the log.
_UNKNOWN = ("click", "profile_enter", "play_s")
# What the log's values must be: the column, the rule, and when it holds.
_RULES = (
    ("date", "YYYYMMDD", "length(date) = 8 AND TRY_CAST(date AS BIGINT) IS NOT NULL AND "
     "TRY_CAST(substr(date, 1, 4) || '-' || substr(date, 5, 2) || '-' || substr(date, 7, 2) AS DATE) IS NOT NULL"),
    ("play_time_ms", "at least 0", "play_time_ms >= 0"),
    ("duration_ms", "at least 0", "duration_ms >= 0"),
    ("is_rand", "0 or 1", "is_rand IN (0, 1)"),
    ("time_ms", "milliseconds since 1970, of the years 2000 to 2099", "time_ms BETWEEN 946684800000 AND 4102444799999"),
)
TASKS = (
    Task("click"), Task("long_view"), Task("like"), Task("profile_enter"), Task("comment"), Task("follow"),
    Task("forward"), Task("hate", negative=True),
)


def convert(source: pathlib.Path, output: str, how: Options = Options()) -> dict[str, Any]:  # noqa: B008
    """Read the directory `source` and write the data set `output`; returns its statistics.

    Raises:
        UserError: a file or column is missing, a value has the wrong type, or there are no exposures.
    """
    with how.connect(output) as engine:
        csv_tables.load(engine, "log", csv_tables.files(source, "log_*.csv"), _LOG, required=_NEEDED)
        csv_tables.load(engine, "users_file", csv_tables.files(source, "user_features_*.csv"), _USERS, key="user_id")
        csv_tables.load(engine, "videos_file", csv_tables.files(source, "video_features_basic_*.csv"), _VIDEOS,
                        key="video_id")
        for column, rule, holds in _RULES:
            csv_tables.check(engine, "log", column, rule, holds)
        history = [] if how.since else sorted(source.glob("user_history_before_*.csv"))
        engine.put("prior", _prior(history))
        engine.run(pathlib.Path(__file__).with_suffix(".sql"))
        read = engine.one("SELECT count(*) FROM log")
        kept = engine.one("SELECT count(*) FROM exposures WHERE split IS NOT NULL")
        distinct = engine.one("SELECT count(*) FROM (SELECT DISTINCT user_id, video_id, time_ms FROM log) AS keys")
        console.say(f"{read:,} exposures were read, {read - kept:,} exact duplicates were dropped; {kept - distinct:,} "
                    "of the remaining rows repeat (user, video, time) with other values")
        report = {"pipeline": "kuairand", "rows_read": read, "duplicates_dropped": read - kept,
                  "reported_again": kept - distinct}
        return publish(engine, output, _schema(engine), report, how, unknown=_UNKNOWN)


def _prior(files: Sequence[pathlib.Path]) -> pa.Table:
    """The videos that users watched before the log, as older exposures.

    The files hold only ids. The times are unknown, except that they end at last_time_ms, so the events are placed one
    millisecond apart before it. Of the feedback, only long views and likes are known. Two approximations: the list does
    not say which exposure of a repeated video was viewed long or liked, so all of them count as such; and up to 50
    events share one moment, which the last-hour counters of a first exposure within the hour see.
    """
    users: list[np.ndarray] = []
    times: list[np.ndarray] = []
    videos: list[np.ndarray] = []
    long_views: list[np.ndarray] = []
    likes: list[np.ndarray] = []
    seen: set[int] = set()
    for path in files:
        for row in _history_rows(path):
            user, last, watched, liked, long_viewed = row
            if user in seen:
                raise UserError(f"{path}: each user_id may have one row. Received twice: {user}.")
            seen.add(user)
            users.append(np.full(len(watched), user))
            times.append(last - np.arange(len(watched))[::-1])
            videos.append(watched)
            long_views.append(np.isin(watched, long_viewed))
            likes.append(np.isin(watched, liked))

    def column(parts: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)

    ends = [np.full(len(t), t[-1] if len(t) else 0) for t in times]
    return pa.table({"user_id": column(users), "last_time_ms": column(ends), "time_ms": column(times),
                     "video_id": column(videos), "long_view": column(long_views), "like": column(likes)})


def _history_rows(path: pathlib.Path) -> Iterator[tuple[int, int, np.ndarray, np.ndarray, np.ndarray]]:
    """The user, the last time, and the watched, liked and long watched ids of each row."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if missing := [c for c in _HISTORY if c not in (rows.fieldnames or ())]:
                raise UserError(f"{path} has no column {missing}. Received columns: {rows.fieldnames}.")
            for row in rows:
                for name in _HISTORY:
                    if not re.fullmatch("-?[0-9]{1,18}" if name in _HISTORY[:2] else "([0-9]{1,18}( [0-9]{1,18})*)?",
                                        row[name] if row[name] is not None else "-", re.ASCII):
                        rule = "an integer" if name in _HISTORY[:2] else "ids separated by one space"
                        raise UserError(f"{path}: column {name!r} must hold {rule}. Received: {row[name]!r}.")
                watched, liked, long_viewed = (np.array(row[name].split(), np.int64) for name in _HISTORY[2:])
                yield int(row["user_id"]), int(row["last_time_ms"]), watched, liked, long_viewed
    except (UnicodeDecodeError, OSError, csv.Error) as error:
        raise UserError(f"{path} must be a UTF-8 text file. Received: {error}.") from error


def _schema(engine: Engine) -> Schema:
    """The schema. Sizes of ids come from the tables of users and videos and from the log; vocabularies are learned."""

    def size(table: str, column: str) -> int:
        return 1 + max(0, int(engine.one(f'SELECT coalesce(max("{column}"), 0) FROM "{table}"')))

    def strings(name: str, side: str, **how: Any) -> Feature:
        return Feature(name, "string", side, "content", **({"width": 8, "min_count": 1} | how))

    videos = max(size("videos_file", "video_id"), size("log", "video_id"))
    onehots = [f"onehot_feat{i}" for i in range(18)]
    return Schema(
        name="kuairand",
        features=(
            Feature("user_id", "int", "user", "content", width=16,
                    size=max(size("users_file", "user_id"), size("log", "user_id"))),
            *(strings(c, "user") for c in (
                "user_active_degree", "follow_user_num_range", "fans_user_num_range", "friend_user_num_range",
                "register_days_range")),
            *(Feature(c, "int", "user", "content", size=size("users_file", c), width=8) for c in (
                "is_live_streamer", "is_video_author", *onehots)),
            *(Feature(c, "float", "user", "content", transform="log1p") for c in (
                "follow_user_num", "fans_user_num", "friend_user_num", "register_days")),
            *histories(videos),
            Feature("video_id", "int", "item", "content", size=videos, width=16),
            strings("author", "item", width=16),
            strings("video_type", "item"),
            strings("upload_type", "item"),
            Feature("music_type", "int", "item", "content", size=size("videos_file", "music_type"), width=8),
            strings("tags", "item", max_length=3),
            Feature("duration_s", "float", "item", "content", transform="log1p"),
            Feature("aspect_ratio", "float", "item", "content"),
            Feature("video_age_days", "float", "item", "content", transform="log1p"),
            Feature("tab", "int", "context", "context", size=max(15, size("log", "tab")), width=8),
            Feature("hour", "int", "context", "context", size=24, width=8),
            *COUNTERS,
            *SESSION,
        ),
        tasks=TASKS,
        targets=("play_s", "duration_s"),
        keys={"user": "user_id", "item": "video_id", "time": "time_ms"},
        known=KNOWN | {task.label: KNOWN["play_s"] for task in TASKS},
    )


def define_flags() -> None:
    flags.DEFINE_string("input", None, "Directory with KuaiRand-Pure's files.", required=True)
    options.define_flags()


def main() -> None:
    statistics = convert(pathlib.Path(FLAGS.input), FLAGS.output, options.from_flags())
    options.finish(statistics)


if __name__ == "__main__":
    commands.run(main, define_flags)
