"""KuaiRand-Pure to a data set: `python -m pipelines.kuairand --input=DIR --output=DIR`.

DIR is the official directory (or a part of it): any of its `log_*.csv` files, the random-exposure log
included, `user_features_*.csv`, `video_features_basic_*.csv`, and, if there, `user_history_before_*.csv`.
The statistic file of the videos is not read: it aggregates over the whole log and so sees the future.
"""

import csv
import pathlib

import duckdb
from absl import flags

from dlen_cam2 import cli
from dlen_cam2.cli import UserError
from dlen_cam2.schema import Feature, Schema, Task
from pipelines.dataset import write_dataset
from pipelines.point_in_time import COUNTERS, histories, splits

FLAGS = flags.FLAGS

# The columns that are read, with their types; files may have more.
_LOG = {
    **dict.fromkeys(
        ("user_id", "video_id", "date", "hourmin", "time_ms", "is_click", "is_like", "is_follow", "is_comment",
         "is_forward", "is_hate", "long_view", "play_time_ms", "duration_ms", "profile_stay_time",
         "comment_stay_time", "is_profile_enter", "is_rand", "tab"),
        "BIGINT",
    ),
    "date": "VARCHAR",
}
_USERS = {
    **dict.fromkeys(
        ("user_id", "is_live_streamer", "is_video_author", "follow_user_num", "fans_user_num", "friend_user_num",
         "register_days"), "BIGINT",
    ),
    **dict.fromkeys(
        ("user_active_degree", "follow_user_num_range", "fans_user_num_range", "friend_user_num_range",
         "register_days_range"), "VARCHAR",
    ),
    **{f"onehot_feat{i}": "DOUBLE" for i in range(18)},
}
_VIDEOS = {
    "video_id": "BIGINT", "author_id": "BIGINT", "video_type": "VARCHAR", "upload_dt": "DATE",
    "upload_type": "VARCHAR", "server_width": "DOUBLE", "server_height": "DOUBLE", "music_type": "DOUBLE",
    "tag": "VARCHAR",
}
_HISTORY = {
    "user_id": "BIGINT", "last_time_ms": "BIGINT", "watch_seq": "VARCHAR", "like_seq": "VARCHAR",
    "long_watch_seq": "VARCHAR",
}
TASKS = (
    Task("click"), Task("long_view"), Task("like"), Task("profile_enter"), Task("comment"), Task("follow"),
    Task("forward"), Task("hate", negative=True),
)


def convert(source: pathlib.Path, output: str) -> dict:
    """Read the directory `source`, write the data set `output`; returns its statistics.

    Raises:
        UserError: a file or column is missing, a value has the wrong type, or there are no exposures.
    """
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        _load(connection, "log", _files(source, "log_*.csv"), _LOG)
        _load(connection, "users", _files(source, "user_features_*.csv"), _USERS, key="user_id")
        _load(connection, "videos", _files(source, "video_features_basic_*.csv"), _VIDEOS, key="video_id")
        _load(connection, "prior", sorted(source.glob("user_history_before_*.csv")), _HISTORY, key="user_id")
        _check(connection, "date must be YYYYMMDD", "date",
               "NOT regexp_full_match(date, '[0-9]{8}') OR try_strptime(date, '%Y%m%d') IS NULL")
        _check(connection, "play_time_ms must be at least 0", "play_time_ms", "play_time_ms < 0")
        _check(connection, "is_rand must be 0 or 1", "is_rand", "is_rand NOT IN (0, 1)")
        try:
            connection.execute(pathlib.Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
        except duckdb.ConversionException as error:
            reason = " ".join(str(error).split()).split(" LINE ")[0]
            raise UserError(f"a value of {source} has the wrong type. Received: {reason}") from error
        read = _one(connection, "SELECT count(*) FROM log")
        kept = _one(connection, "SELECT count(*) FROM exposures WHERE split IS NOT NULL")
        distinct = _one(connection, "SELECT count(*) FROM (SELECT DISTINCT user_id, video_id, time_ms FROM log)")
        print(f"{read:,} exposures read, {read - kept:,} exact duplicates dropped; {kept - distinct:,} of those kept "
              "repeat (user, video, time) with other values", flush=True)
        report = {"pipeline": "kuairand", "rows_read": read, "duplicates_dropped": read - kept,
                  "reported_again": kept - distinct}
        return write_dataset(output, _schema(connection), splits(connection), report)


def _files(source: pathlib.Path, pattern: str) -> list[pathlib.Path]:
    files = sorted(source.glob(pattern))
    if not files:
        raise UserError(f"{source} must hold at least one file {pattern}. Received: no such file.")
    return files


def _check(connection: duckdb.DuckDBPyConnection, rule: str, column: str, broken: str) -> None:
    """Raise if the log has a row for which the condition `broken` holds, or is unknown."""
    bad = connection.sql(f"SELECT {column} FROM log WHERE coalesce({broken}, true) LIMIT 1").fetchall()
    if bad:
        raise UserError(f"the log's column {rule}. Received: {bad[0][0]!r}.")


def _load(
    connection: duckdb.DuckDBPyConnection, table: str, files: list[pathlib.Path], types: dict[str, str],
    key: str | None = None,
) -> None:
    """Create `table` with just the columns of `types` from CSV files that each have all of them.

    Integers are read as text first, because DuckDB would round a decimal number to one without a word. With a
    `key`, no two rows may have the same.
    """
    columns = ", ".join(f'CAST(NULL AS {t}) AS "{c}"' for c, t in types.items())
    connection.execute(f'CREATE TABLE "{table}" AS SELECT {columns} LIMIT 0')
    for path in files:
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                header = next(csv.reader(file), [])
        except (UnicodeDecodeError, OSError) as error:
            raise UserError(f"{path} must be a UTF-8 text file. Received: {error}.") from error
        missing = [c for c in types if c not in header]
        if missing:
            raise UserError(f"{path} has no column {missing}. Received columns: {header}.")
        integers = [c for c, t in types.items() if t == "BIGINT"]
        as_text = types | dict.fromkeys(integers, "VARCHAR")
        names = ", ".join(f'"{c}"' for c in types)
        try:
            connection.execute(
                f"CREATE OR REPLACE TEMP TABLE file AS SELECT {names} "
                "FROM read_csv(?, header = true, delim = ',', types = ?)", [str(path), as_text],
            )
            rules = [(c, "-?[0-9]+", "integers") for c in integers]
            rules += [(c, "([0-9]+( [0-9]+)*)?", "ids separated by one space") for c in types if c.endswith("_seq")]
            for column, pattern, rule in rules:
                query = f'SELECT "{column}" FROM file WHERE NOT regexp_full_match("{column}", $1) LIMIT 1'
                bad = connection.sql(query, params=[pattern]).fetchall()
                if bad:
                    raise UserError(f"{path}: column {column!r} must hold {rule}. Received: {bad[0][0]!r}.")
            connection.execute(f'INSERT INTO "{table}" SELECT {names} FROM file')
        except duckdb.Error as error:
            reason = " ".join(str(error).split())[:400]
            raise UserError(f"{path} cannot be read as {table}. Received: {reason}") from error
    for column in [c for c in (key, "last_time_ms") if c in types]:
        if _one(connection, f'SELECT count(*) FROM "{table}" WHERE "{column}" IS NULL'):
            raise UserError(f"{table}: each row must have a {column}. Received: a row without.")
    if key:
        query = f'SELECT "{key}" FROM "{table}" GROUP BY "{key}" HAVING count(*) > 1 LIMIT 1'
        twice = connection.sql(query).fetchall()
        if twice:
            names = ", ".join(map(str, files))
            raise UserError(f"{names}: each {key} may have one row. Received twice: {twice[0][0]}.")


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    (value,), = connection.sql(query).fetchall()
    return value if value is not None else 0


def _schema(connection: duckdb.DuckDBPyConnection) -> Schema:
    """Vocabularies come from the users' and videos' tables; sizes also from the largest id in the log."""

    def size(table: str, column: str) -> int:
        return 1 + max(0, int(_one(connection, f'SELECT max("{column}") FROM "{table}"')))

    def vocabulary(query: str) -> tuple[str, ...]:
        found = connection.sql(f"SELECT DISTINCT v FROM ({query}) WHERE v <> '' ORDER BY v").fetchall()
        # A column without any value still needs a table; its one row is never looked up.
        return tuple(v for (v,) in found) or ("UNKNOWN",)

    def strings(name: str, side: str, table: str, width: int = 8) -> Feature:
        return Feature(name, "string", side, "content", width=width,
                       vocabulary=vocabulary(f'SELECT "{name}" AS v FROM "{table}"'))

    videos = max(size("videos", "video_id"), size("log", "video_id"))
    onehots = [f"onehot_feat{i}" for i in range(18)]
    return Schema(
        name="kuairand",
        features=(
            Feature("user_id", "int", "user", "content", width=16,
                    size=max(size("users", "user_id"), size("log", "user_id"))),
            *(strings(c, "user", "users") for c in (
                "user_active_degree", "follow_user_num_range", "fans_user_num_range", "friend_user_num_range",
                "register_days_range")),
            *(Feature(c, "int", "user", "content", size=size("users", c), width=8) for c in (
                "is_live_streamer", "is_video_author", *onehots)),
            *(Feature(c, "float", "user", "content", transform="log1p") for c in (
                "follow_user_num", "fans_user_num", "friend_user_num", "register_days")),
            *histories(videos),
            Feature("video_id", "int", "item", "content", size=videos, width=16),
            Feature("author", "string", "item", "content", width=16,
                    vocabulary=vocabulary("SELECT CAST(author_id AS VARCHAR) AS v FROM videos")),
            strings("video_type", "item", "videos"),
            strings("upload_type", "item", "videos"),
            Feature("music_type", "int", "item", "content", size=size("videos", "music_type"), width=8),
            Feature("tags", "string", "item", "content", width=8, max_length=3,
                    vocabulary=vocabulary("SELECT unnest(string_split(tag, ',')) AS v FROM videos")),
            Feature("duration_s", "float", "item", "content", transform="log1p"),
            Feature("aspect_ratio", "float", "item", "content"),
            Feature("video_age_days", "float", "item", "content", transform="log1p"),
            Feature("tab", "int", "context", "context", size=max(15, size("log", "tab")), width=8),
            Feature("hour", "int", "context", "context", size=24, width=8),
            *COUNTERS,
        ),
        tasks=TASKS,
        targets=("play_s", "duration_s"),
        keys={"user": "user_id", "item": "video_id", "time": "time_ms"},
    )


def define_flags() -> None:
    flags.DEFINE_string("input", None, "KuaiRand-Pure directory.", required=True)
    flags.DEFINE_string("output", None, "Directory of the data set to write.", required=True)


def main() -> None:
    statistics = convert(pathlib.Path(FLAGS.input), FLAGS.output)
    rows = sum(day["rows"] for day in statistics["days"].values())
    print(f"{rows:,} rows of {len(statistics['days'])} splits are in {FLAGS.output}")


if __name__ == "__main__":
    cli.run(main, define_flags)
