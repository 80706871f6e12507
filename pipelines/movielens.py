"""MovieLens to a data set: `python -m pipelines.movielens --input=DIR --output=DIR`, or with `--tfds=NAME` for --input.

DIR is one of:

- MovieLens-1M: `ratings.dat`, `users.dat`, `movies.dat` (fields between `::`, Latin-1);
- MovieLens-100K: `u.data` (tabs), `u.user`, `u.item` (`|`, Latin-1);
- RecBole's atomic files: one `NAME.inter` with `NAME.user` and `NAME.item` (tabs, UTF-8, a header such as
  `user_id:token`).

`--tfds=movielens/1m-ratings` (or 100k-ratings) loads TensorFlow Datasets' copy, from `--tfds_dir` or its default
directory, and downloads it if it is not there.

MovieLens has ratings and no feed feedback. DESIGN: an exposure is a rating at its time, and the tasks are thresholds of
it: "like" (at least 4), "favourite" (5), "dislike" (at most 2). What was shown and not rated is unknown, so these are
no click rates, and time is that of the rating, not of the watching: many users rate their whole past in one sitting.
Splits are months, UTC ("200004"), and count as days wherever days are named. Counters: movielens.sql.

Ids are those of the files; RecBole's tokens that are no integers are numbered by the lines of its .user or .item file.
The spelling of occupations and genres is that of the source, and differs: 1M has codes for occupations, TensorFlow
Datasets writes "Children" for "Children's".

Source: F. M. Harper and J. A. Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015, and the README
of each. Their terms do not allow passing the data on: this project holds none.
"""

import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from absl import flags

from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.utils import commands
from dlen_cam2.utils.errors import UserError
from pipelines import options
from pipelines.dataset import write_dataset
from pipelines.options import Options
from pipelines.tables import check

FLAGS = flags.FLAGS

Tables = dict[str, pa.Table]

TFDS_NAMES = ("movielens/1m-ratings", "movielens/100k-ratings")  # later ones know nothing of their users
# The flags of u.item in their order (u.genre).
_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)
_AGES = (1, 18, 25, 35, 45, 50, 56)  # README of MovieLens-1M
_END = 253_402_300_800  # the year 10000
_LINES = 65536
_BATCH = 8192


def convert(
    output: str, source: str | pathlib.Path = "", tfds: str = "", tfds_dir: str = "",
    how: Options = Options(),  # noqa: B008
) -> dict[str, Any]:
    """Read the directory `source` or the TFDS data set `tfds`, write the data set `output`; returns its statistics.

    Args:
        output: directory to write.
        source: directory in one of the three layouts.
        tfds: one of `TFDS_NAMES`.
        tfds_dir: TFDS's data directory; empty: its default.
        how: layout, compression, processes, the months that vocabularies are learned of.

    Raises:
        UserError: not exactly one source; a file is missing or damaged; a value has the wrong type or range; a user, a
            movie, or a rating by (user, movie, time) stands there twice; a rating's user or movie is not listed.
    """
    if bool(source) == bool(tfds):
        raise UserError(
            f"exactly one of --input and --tfds must be given. Received: --input={str(source)!r}, --tfds={tfds!r}.")
    tables = _load_tfds(tfds, tfds_dir) if tfds else _load_directory(pathlib.Path(source))
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
        months = [split for (split,) in engine.query("SELECT DISTINCT split FROM rows ORDER BY split")]
        how.check_days(months)
        splits: Iterator[tuple[str, pa.RecordBatchReader]] = (
            (month, engine.stream(
                f"SELECT * FROM rows WHERE split = '{month}' ORDER BY timestamp, user_id, movie_id"))
            for month in months
        )
        report = {"pipeline": "movielens", "tfds": tfds, "rows_read": len(tables["ratings"]),
                  "users": len(tables["users"]), "movies": len(tables["movies"])}
        return write_dataset(output, _schema(), splits, report, form=how.form, train_days=how.train_days)


def _schema() -> Schema:
    """Vocabularies are learned: one rule for 1M, 100K, TFDS and RecBole, which number and spell differently.

    Given are only those that MovieLens-1M's README lists and movielens.sql makes. Movies of fewer than 5 ratings share
    rows, so that movies which come after the training months meet trained ones; a new user is just unknown.
    """
    def text(name: str, side: str, **more: Any) -> Feature:
        return Feature(name, "string", side, "content", **({"min_count": 1, "width": 8} | more))

    def count(name: str, side: str) -> Feature:
        return Feature(name, "float", side, "statistical", transform="log1p")

    def rate(name: str, side: str) -> Feature:
        return Feature(name, "float", side, "statistical", transform="logit")

    return Schema(
        name="movielens",
        features=(
            Feature("user_id", "int", "user", "content", min_count=1, width=16),
            text("gender", "user", vocabulary=("F", "M"), min_count=0),
            Feature("age", "int", "user", "content", vocabulary=_AGES, width=8),
            text("occupation", "user"),
            text("zip_region", "user"),
            count("user_ratings", "user"),
            rate("user_like_rate", "user"),
            count("user_idle_s", "user"),
            Feature("movie_id", "int", "item", "content", min_count=5, oov_buckets=16, width=16),
            text("genres", "item", max_length=6),
            Feature("release_year", "int", "item", "content", min_count=1, width=8),
            count("movie_ratings", "item"),
            rate("movie_like_rate", "item"),
            Feature("hour", "int", "context", "context", size=24, width=8),
            Feature("weekday", "int", "context", "context", size=7, width=8),
        ),
        tasks=(Task("like"), Task("favourite"), Task("dislike", negative=True)),
        targets=("rating",),
        keys={"user": "user_id", "item": "movie_id", "time": "timestamp"},
    )


def _load_directory(source: pathlib.Path) -> Tables:
    """The tables ratings, users and movies that movielens.sql takes."""
    atomic = sorted(source.glob("*.inter"))
    if (source / "ratings.dat").is_file():
        return _load_1m(source)
    if (source / "u.data").is_file():
        return _load_100k(source)
    if len(atomic) == 1:
        return _load_atomic(atomic[0])
    found = [p.name for p in atomic] or "no such file"
    raise UserError(f"{source} must hold ratings.dat, u.data, or just one file *.inter. Received: {found}.")


def _load_1m(source: pathlib.Path) -> Tables:
    ratings = _fields(source / "ratings.dat", ("user_id", "movie_id", "rating", "timestamp"), "::")
    users = _fields(source / "users.dat", ("user_id", "gender", "age", "occupation", "zip"), "::")
    movies = _fields(source / "movies.dat", ("movie_id", "title", "genres"), "::")
    return _tables(str(source), ratings, users, movies | {
        "release_year": _years(movies["title"]), "genres": pc.split_pattern(movies["genres"], "|")})


def _load_100k(source: pathlib.Path) -> Tables:
    ratings = _fields(source / "u.data", ("user_id", "movie_id", "rating", "timestamp"), "\t")
    users = _fields(source / "u.user", ("user_id", "age", "gender", "occupation", "zip"), "|")
    movies = _fields(source / "u.item", ("movie_id", "title", "released", "video_released", "url", *_GENRES), "|")
    for genre in _GENRES:
        _match(f"{source / 'u.item'}: genre {genre!r}", movies[genre], "[01]", "0 or 1")
    flags_of = zip(*(movies[genre].to_pylist() for genre in _GENRES), strict=True)
    genres = [[g for g, flag in zip(_GENRES, row, strict=True) if flag == "1"] for row in flags_of]
    return _tables(str(source), ratings, users, movies | {
        "release_year": _years(movies["title"]), "genres": pa.array(genres, pa.list_(pa.string()))})


def _load_atomic(inter: pathlib.Path) -> Tables:
    ratings = _headed(inter, ("user_id", "item_id", "rating", "timestamp"))
    users = _headed(inter.with_suffix(".user"), ("user_id", "gender", "age", "occupation", "zip_code"))
    path = inter.with_suffix(".item")
    items = _headed(path, ("item_id", "release_year"))
    # Both names are in use; each holds the genres between spaces.
    genres = _headed(path, ("genre",) if "genre" in _header(path) else ("class",)).popitem()[1]
    for column, own in (("user_id", users), ("item_id", items)):
        if pc.all(pc.match_substring_regex(own[column], "^[0-9]+$")).as_py():
            continue
        number = pc.index_in(ratings[column], own[column])
        if number.null_count:
            lost = ratings[column].filter(pc.is_null(number))[0].as_py()
            raise UserError(f"{inter}: each {column} must stand in its .user or .item file. Received: {lost!r}.")
        if len(pc.unique(own[column])) < len(own[column]):
            twice = next(v["values"] for v in pc.value_counts(own[column]).to_pylist() if v["counts"] > 1)
            raise UserError(f"{inter.parent}: each {column} may have one row. Received twice: {twice!r}.")
        ratings[column] = pc.cast(pc.add(number, 1), pa.string())
        own[column] = pa.array(range(1, len(own[column]) + 1)).cast(pa.string())
    year = pc.replace_substring_regex(items["release_year"], r"^([0-9]{4})(\.0+)?$", r"(\1)")
    return _tables(
        str(inter.parent),
        {"user_id": ratings["user_id"], "movie_id": ratings["item_id"], "rating": ratings["rating"],
         "timestamp": _whole(ratings["timestamp"])},
        users | {"age": _whole(users["age"]), "zip": users["zip_code"]},
        {"movie_id": items["item_id"], "release_year": _years(year), "genres": pc.split_pattern(genres, " ")},
    )


def _load_tfds(name: str, directory: str) -> Tables:
    """TFDS repeats a user's and a movie's attributes in each rating; the first ones are taken."""
    if name not in TFDS_NAMES:
        raise UserError(f"--tfds must be one of {TFDS_NAMES}. Received: {name!r}.")
    import tensorflow_datasets

    ratings: list[tuple[Any, ...]] = []
    users: dict[bytes, tuple[Any, ...]] = {}
    movies: dict[bytes, tuple[Any, ...]] = {}
    about_user = ("user_id", "user_gender", "bucketized_user_age", "user_occupation_text", "user_zip_code")
    try:
        rows, info = tensorflow_datasets.load(name, split="train", data_dir=directory or None, with_info=True)
        genre = info.features["movie_genres"].feature.int2str
        for batch in rows.ragged_batch(_BATCH):
            column = {k: v.to_list() if k == "movie_genres" else v.numpy().tolist() for k, v in batch.items()}
            ratings += zip(*(column[c] for c in ("user_id", "movie_id", "user_rating", "timestamp")), strict=True)
            for user, *about in zip(*(column[c] for c in about_user), strict=True):
                users.setdefault(user, tuple(about))
            for movie, *about in zip(*(column[c] for c in ("movie_id", "movie_title", "movie_genres")), strict=True):
                movies.setdefault(movie, tuple(about))
    except Exception as error:  # TFDS's own, TensorFlow's, those of the libraries that download
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        raise UserError(f"tfds.load({name!r}, data_dir={directory or None!r}) failed. Received: {reason}") from error

    def strings(values: Sequence[Any]) -> pa.Array:
        return pa.array([v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values], pa.string())

    user, movie, rating, timestamp = zip(*ratings, strict=True) if ratings else ((), (), (), ())
    gender, age, occupation, code = zip(*users.values(), strict=True) if users else ((), (), (), ())
    title, genres = zip(*movies.values(), strict=True) if movies else ((), ())
    return _tables(
        f"tfds {name}",
        {"user_id": strings(user), "movie_id": strings(movie), "rating": strings(rating),
         "timestamp": strings(timestamp)},
        {"user_id": strings(list(users)), "gender": strings(["FM"[g] for g in gender]), "age": _whole(strings(age)),
         "occupation": strings(occupation), "zip": strings(code)},
        {"movie_id": strings(list(movies)), "release_year": _years(strings(title)),
         "genres": pa.array([[genre(g) for g in row] for row in genres], pa.list_(pa.string()))},
    )


def _tables(where: str, ratings: dict[str, Any], users: dict[str, Any], movies: dict[str, Any]) -> Tables:
    """Typed tables of columns of text."""
    ratings = {
        **{c: _integers(f"{where}: {c} of ratings", ratings[c]) for c in ("user_id", "movie_id", "timestamp")},
        "rating": _match(f"{where}: rating", ratings["rating"], r"[0-9]+(\.[0-9]+)?", "a number").cast(pa.float64()),
    }
    users = {"user_id": _integers(f"{where}: user_id of users", users["user_id"]), "gender": users["gender"],
             "age": _integers(f"{where}: age", users["age"], empty=True), "occupation": users["occupation"],
             "zip": users["zip"]}
    genres = [[g for g in row if g] for row in movies["genres"].to_pylist()]  # "" splits into [""]
    movies = {"movie_id": _integers(f"{where}: movie_id of movies", movies["movie_id"]),
              "release_year": movies["release_year"], "genres": pa.array(genres, pa.list_(pa.string()))}
    return {"ratings": pa.table(ratings), "users": pa.table(users), "movies": pa.table(movies)}


def _integers(where: str, column: pa.Array, empty: bool = False) -> pa.Array:
    if empty:
        column = pc.replace_with_mask(column, pc.equal(column, ""), pa.scalar(None, pa.string()))
    # Arrow alone would take "0x10" too.
    column = _match(where, column, "-?[0-9]+", "an integer")
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise UserError(f"{where} must be an integer of 64 bits. Received: {error}.") from error


def _match(where: str, column: pa.Array, pattern: str, rule: str) -> pa.Array:
    wrong = column.filter(pc.invert(pc.match_substring_regex(column, f"^({pattern})$")))
    if len(wrong):
        raise UserError(f"{where} must be {rule}. Received: {wrong[0].as_py()!r}.")
    return column


def _whole(column: pa.Array) -> pa.Array:
    """Integers that are written as floats ("25.0") as integers."""
    return pc.replace_substring_regex(column, r"^(-?[0-9]+)\.0*$", r"\1")


def _years(titles: pa.Array) -> pa.Array:
    """The year in parentheses that ends a title; null where there is none."""
    return pc.struct_field(pc.extract_regex(titles, r"\((?P<year>[0-9]{4})\)\s*$"), "year").cast(pa.int64())


def _header(path: pathlib.Path) -> list[str]:
    """Names of an atomic file's columns, without their types."""
    return [name.split(":")[0] for name in next(_lines(path, "utf-8-sig"), "").split("\t")]


def _headed(path: pathlib.Path, wanted: Sequence[str]) -> dict[str, pa.Array]:
    names = _header(path)
    if missing := [c for c in wanted if names.count(c) != 1]:
        raise UserError(f"{path} must have one column each of {missing}. Received columns: {names}.")
    return _fields(path, names, "\t", encoding="utf-8-sig", skip=1, keep=wanted)


def _fields(
    path: pathlib.Path, names: Sequence[str], separator: str, encoding: str = "latin-1", skip: int = 0,
    keep: Sequence[str] = (),
) -> dict[str, pa.Array]:
    """The columns `keep` (default: all) of a file without quotation, as text; after `skip` lines."""
    lines, number = _lines(path, encoding), skip
    places = {name: place for place, name in enumerate(names) if name in (keep or names)}
    parts: dict[str, list[pa.Array]] = {name: [pa.array([], pa.string())] for name in places}
    for _ in itertools.islice(lines, skip):
        pass
    while rows := [line.split(separator) for line in itertools.islice(lines, _LINES)]:
        for fields in rows:
            number += 1
            if len(fields) != len(names):
                raise UserError(f"{path}: line {number} must have {len(names)} fields between {separator!r}. "
                                f"Received: {separator.join(fields)[:200]!r}.")
        for name, place in places.items():
            parts[name].append(pa.array([fields[place] for fields in rows], pa.string()))
    return {name: pa.concat_arrays(part) for name, part in parts.items()}


def _lines(path: pathlib.Path, encoding: str) -> Iterator[str]:
    try:
        # Only line feeds end a line: Latin-1 has other characters that Python would take for an end.
        with path.open(encoding=encoding, newline="\n") as file:
            for line in file:
                yield line.rstrip("\r\n")
    except OSError as error:
        raise UserError(f"{path} cannot be read. Received: {error}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} must be UTF-8. Received: {error}.") from error


def define_flags() -> None:
    flags.DEFINE_string("input", "", "Directory of MovieLens-1M, MovieLens-100K or RecBole's atomic files.")
    flags.DEFINE_string("tfds", "", f"Instead of --input, a data set of TensorFlow Datasets: {', '.join(TFDS_NAMES)}.")
    flags.DEFINE_string("tfds_dir", "", "Data directory of TensorFlow Datasets; empty: its default.")
    options.define_flags(point_in_time=False)


def main() -> None:
    statistics = convert(FLAGS.output, FLAGS.input, FLAGS.tfds, FLAGS.tfds_dir, options.from_flags())
    rows = sum(month["rows"] for month in statistics["days"].values())
    print(f"{rows:,} rows of {len(statistics['days'])} splits are in {FLAGS.output}")


if __name__ == "__main__":
    commands.run(main, define_flags)
