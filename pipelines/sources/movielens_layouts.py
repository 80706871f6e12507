"""Reads MovieLens in each of its layouts, as the tables ratings, users and movies of movielens.sql."""

import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dlen_cam2.utils.errors import UserError

Tables = dict[str, pa.Table]
TFDS_NAMES = ("movielens/1m-ratings", "movielens/100k-ratings")  # later ones know nothing of their users
# The flags of u.item in their order (u.genre).
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)
_LINES = 65536
_BATCH = 8192


def load_directory(source: pathlib.Path) -> Tables:
    """Load the tables ratings, users and movies for movielens.sql."""
    atomic = sorted(source.glob("*.inter"))
    if (source / "ratings.dat").is_file():
        return _load_1m(source)
    if (source / "u.data").is_file():
        return _load_100k(source)
    if len(atomic) == 1:
        return _load_atomic(atomic[0])
    found = [p.name for p in atomic] or "no such file"
    raise UserError(f"{source} must hold ratings.dat, u.data, or exactly one file *.inter. Received: {found}.")


def _load_1m(source: pathlib.Path) -> Tables:
    ratings = _fields(source / "ratings.dat", ("user_id", "movie_id", "rating", "timestamp"), "::")
    users = _fields(source / "users.dat", ("user_id", "gender", "age", "occupation", "zip"), "::")
    movies = _fields(source / "movies.dat", ("movie_id", "title", "genres"), "::")
    return _tables(str(source), ratings, users, movies | {
        "release_year": _years(movies["title"]), "genres": pc.split_pattern(movies["genres"], "|")})


def _load_100k(source: pathlib.Path) -> Tables:
    ratings = _fields(source / "u.data", ("user_id", "movie_id", "rating", "timestamp"), "\t")
    users = _fields(source / "u.user", ("user_id", "age", "gender", "occupation", "zip"), "|")
    movies = _fields(source / "u.item", ("movie_id", "title", "released", "video_released", "url", *GENRES), "|")
    for genre in GENRES:
        _match(f"{source / 'u.item'}: genre {genre!r}", movies[genre], "[01]", "0 or 1")
    flags_of = zip(*(movies[genre].to_pylist() for genre in GENRES), strict=True)
    genres = [[g for g, flag in zip(GENRES, row, strict=True) if flag == "1"] for row in flags_of]
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
            raise UserError(f"{inter}: each {column} must be in its .user or .item file. Received: {lost!r}.")
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


def load_tfds(name: str, directory: str) -> Tables:
    """Load the tables from TFDS, whose ratings repeat the attributes of users and movies; the first are taken."""
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
    """Typed tables from columns of text."""
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
    """Convert integers that are written as floats ("25.0") to integers."""
    return pc.replace_substring_regex(column, r"^(-?[0-9]+)\.0*$", r"\1")


def _years(titles: pa.Array) -> pa.Array:
    """The year in parentheses at the end of a title; null where there is none."""
    return pc.struct_field(pc.extract_regex(titles, r"\((?P<year>[0-9]{4})\)\s*$"), "year").cast(pa.int64())


def _header(path: pathlib.Path) -> list[str]:
    """The names of the columns of an atomic file, without their types."""
    return [name.split(":")[0] for name in next(_lines(path, "utf-8-sig"), "").split("\t")]


def _headed(path: pathlib.Path, wanted: Sequence[str]) -> dict[str, pa.Array]:
    names = _header(path)
    if missing := [c for c in wanted if names.count(c) != 1]:
        raise UserError(f"{path} must have exactly one column for each of {missing}. Received columns: {names}.")
    return _fields(path, names, "\t", encoding="utf-8-sig", skip=1, keep=wanted)


def _fields(
    path: pathlib.Path, names: Sequence[str], separator: str, encoding: str = "latin-1", skip: int = 0,
    keep: Sequence[str] = (),
) -> dict[str, pa.Array]:
    """Read the columns `keep` (default: all) of a file without quotation, as text, after `skip` lines."""
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
