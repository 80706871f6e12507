"""Turn MovieLens into a data set: `python -m pipelines.movielens --input=DIR --output=DIR`.

DIR is one of:

- MovieLens-1M: `ratings.dat`, `users.dat`, `movies.dat` (fields between `::`, Latin-1);
- MovieLens-100K: `u.data` (tabs), `u.user`, `u.item` (`|`, Latin-1);
- RecBole's atomic files: one `NAME.inter` with `NAME.user` and `NAME.item` (tabs, UTF-8, a header such as
  `user_id:token`).

In place of `--input`, `--tfds=movielens/1m-ratings` (or 100k-ratings) loads the copy of TensorFlow Datasets from
`--tfds_dir`, and downloads it first if necessary.

MovieLens has ratings, but no feedback of a feed. DESIGN: an exposure is a rating at its time, and the tasks are
thresholds of it: "like" (at least 4), "favourite" (5), "dislike" (at most 2). Items that were shown and not rated are
unknown, so these are not click rates. Times are when users rated, not when they watched: many users rate their whole
past in one sitting. Splits are months in UTC ("200004"), and count as days wherever days are named. A rating is known
as soon as it is given; features see those of strictly earlier seconds.

Ids are the ids of the files; tokens of RecBole that are not integers are numbered by the lines of its .user or .item
file. Occupations and genres are spelled as in the source: 1M has codes for occupations, and TensorFlow Datasets writes
"Children" for "Children's".

Source: F. M. Harper and J. A. Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015, and the README
of each data set. Their terms do not allow redistribution, so this project contains none of the data.
"""

import pathlib
from typing import Any

from absl import flags

from dlen_cam2.schema import Computed, Feature, Schema, Task
from dlen_cam2.utils import commands
from dlen_cam2.utils.errors import UserError
from pipelines import options
from pipelines.options import Options, publish
from pipelines.sources.csv_tables import check
from pipelines.sources.movielens_layouts import TFDS_NAMES, load_directory, load_tfds

FLAGS = flags.FLAGS
_AGES = (1, 18, 25, 35, 45, 50, 56)  # README of MovieLens-1M
_END = 253_402_300_800  # the year 10000


def convert(
    output: str, source: str | pathlib.Path = "", tfds: str = "", tfds_dir: str = "",
    how: Options = Options(),  # noqa: B008
) -> dict[str, Any]:
    """Read the directory `source` or the TFDS data set `tfds` and write the data set `output`; returns its statistics.

    Args:
        output: the directory to write.
        source: a directory in one of the three layouts.
        tfds: one of `TFDS_NAMES`.
        tfds_dir: TFDS's data directory; empty: its default.
        how: layout, compression, processes, and the months from which vocabularies are learned.

    Raises:
        UserError: not exactly one source is given; a file is missing or damaged; a value has the wrong type or range; a
            user, a movie, or a rating by (user, movie, time) occurs twice; a rating's user or movie is not listed.
    """
    if bool(source) == bool(tfds):
        raise UserError(
            f"exactly one of --input and --tfds must be given. Received: --input={str(source)!r}, --tfds={tfds!r}.")
    tables = load_tfds(tfds, tfds_dir) if tfds else load_directory(pathlib.Path(source))
    with how.connect(output) as engine:
        for name, table in tables.items():
            engine.put(name, table)
        check(engine, "ratings", "rating", "from 0.5 to 5", "rating BETWEEN 0.5 AND 5")
        check(engine, "ratings", "timestamp", "seconds from 1970 up to the year 10000",
              f"timestamp >= 0 AND timestamp < {_END}")
        for table, column in (("ratings", "user_id"), ("ratings", "movie_id"), ("users", "user_id"),
                              ("movies", "movie_id")):
            check(engine, table, column, "at least 0", f"{column} >= 0")
        check(engine, "users", "gender", "F, M or empty", "coalesce(gender, '') IN ('', 'F', 'M')")
        for table, key in (("ratings", "user_id, movie_id, timestamp"), ("users", "user_id"), ("movies", "movie_id")):
            twice = engine.query(f"SELECT {key} FROM {table} GROUP BY {key} HAVING count(*) > 1 ORDER BY {key} LIMIT 1")
            if twice:
                raise UserError(f"{table}: each ({key}) may have one row. Received twice: {twice[0]}.")
        for table, key in (("users", "user_id"), ("movies", "movie_id")):
            lost = engine.query(f"SELECT r.{key} FROM ratings AS r LEFT JOIN {table} AS t ON t.{key} = r.{key} "
                                f"WHERE t.{key} IS NULL LIMIT 1")
            if lost:
                raise UserError(f"ratings: each {key} must be among the {table}. Received: {lost[0][0]}.")
        engine.run(pathlib.Path(__file__).with_suffix(".sql"))
        report = {"pipeline": "movielens", "tfds": tfds, "rows_read": len(tables["ratings"]),
                  "users": len(tables["users"]), "movies": len(tables["movies"])}
        return publish(engine, output, _schema(), report, how)


def _schema() -> Schema:
    """The schema. Vocabularies are learned: one rule suits 1M, 100K, TFDS and RecBole, which number and spell
    differently.

    The only given vocabularies are those that MovieLens-1M's README lists and movielens.sql creates. Movies with fewer
    than 5 ratings share rows, so that movies that appear after the training months use trained rows; a new user is
    simply unknown.
    """
    def text(name: str, side: str, **more: Any) -> Feature:
        return Feature(name, "string", side, "content", **({"min_count": 1, "width": 8} | more))

    def computed(name: str, side: str, kind: str, **how: Any) -> Feature:
        by = {"user": "user_id", "item": "movie_id"}[side]
        return Feature(name, "float", side, "statistical", transform="logit" if kind == "rate" else "log1p",
                       computed=Computed(kind, (by,), **how))

    return Schema(
        name="movielens",
        features=(
            Feature("user_id", "int", "user", "content", min_count=1, width=16),
            text("gender", "user", vocabulary=("F", "M"), min_count=0),
            Feature("age", "int", "user", "content", vocabulary=_AGES, width=8),
            text("occupation", "user"),
            text("zip_region", "user"),
            computed("user_ratings", "user", "count"),
            computed("user_like_rate", "user", "rate", of="like", strength=10),
            computed("user_idle_s", "user", "age"),
            Feature("movie_id", "int", "item", "content", min_count=5, oov_buckets=16, width=16),
            text("genres", "item", max_length=6),
            Feature("release_year", "int", "item", "content", min_count=1, width=8),
            computed("movie_ratings", "item", "count"),
            computed("movie_like_rate", "item", "rate", of="like", strength=20),
            Feature("hour", "int", "context", "context", size=24, width=8),
            Feature("weekday", "int", "context", "context", size=7, width=8),
        ),
        tasks=(Task("like"), Task("favourite"), Task("dislike", negative=True)),
        targets=("rating",),
        keys={"user": "user_id", "item": "movie_id", "time": "time_ms"},
    )


def define_flags() -> None:
    flags.DEFINE_string("input", "", "Directory of MovieLens-1M, MovieLens-100K or RecBole's atomic files.")
    flags.DEFINE_string("tfds", "", f"Data set of TensorFlow Datasets, in place of --input: {', '.join(TFDS_NAMES)}.")
    flags.DEFINE_string("tfds_dir", "", "Data directory of TensorFlow Datasets. Default: its own.")
    options.define_flags()


def main() -> None:
    statistics = convert(FLAGS.output, FLAGS.input, FLAGS.tfds, FLAGS.tfds_dir, options.from_flags())
    options.finish(statistics)


if __name__ == "__main__":
    commands.run(main, define_flags)
