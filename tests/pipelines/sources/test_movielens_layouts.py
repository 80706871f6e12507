"""Every layout of MovieLens holds the same rows; a damaged file is one message."""

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from dlen_cam2.utils.errors import UserError
from pipelines import movielens
from tests.support.movielens_files import MOVIES, USERS, random_ratings, read, write_1m, write_100k, write_atomic


def plain(rows, without=()):
    return {k: {n: v.tolist() if hasattr(v, "tolist") else v for n, v in row.items() if n not in without}
            for k, row in rows.items()}


@pytest.mark.parametrize("layout", ["crlf", "100k", "atomic", "class"])
def test_every_layout_gives_the_same_rows(movielens_1m, tmp_path, layout):
    ratings, _, _, rows = movielens_1m
    source = tmp_path / "in"
    if layout == "crlf":
        write_1m(source, ratings, end="\r\n")
    elif layout == "100k":
        write_100k(source, ratings)
    else:
        write_atomic(source, ratings, genre="genre:token" if layout == "atomic" else "class:token_seq")
    movielens.convert(str(tmp_path / "out"), source)
    found = read(tmp_path / "out")
    differ = ("occupation", "zip_region") if layout == "100k" else ()  # these users live and work elsewhere
    assert plain(found, differ) == plain(rows, differ)
    if layout == "100k":
        assert {(r["occupation"], r["zip_region"]) for r in found.values()} == {
            (b"student", b"4"), (b"none", b"T"), (b"scientist", b"")}


def test_tokens_that_are_no_integers_are_numbered_by_their_lines(movielens_1m, tmp_path):
    ratings, _, _, rows = movielens_1m
    movielens.convert(str(tmp_path / "out"), write_atomic(tmp_path / "in", ratings, tokens=True))
    user, movie = ({row[0]: n for n, row in enumerate(table, start=1)} for table in (USERS, MOVIES))
    wanted = {(user[u], movie[m], t): row for (u, m, t), row in plain(rows, ("user_id", "movie_id")).items()}
    assert plain(read(tmp_path / "out"), ("user_id", "movie_id")) == wanted


def mock(ratings):
    """A context in which `tfds.load` gives these ratings, with the features that TFDS's own builder declares."""
    users, movies = {u[0]: u for u in USERS}, {m[0]: m for m in MOVIES}

    def rows(names):
        for user, movie, rating, time in ratings:
            _, gender, age, occupation, code = users[user]
            yield {
                "user_id": str(user), "movie_id": str(movie), "user_rating": rating, "timestamp": time,
                "user_gender": gender == "M", "bucketized_user_age": age, "user_occupation_text": occupation,
                "user_occupation_label": 3, "user_zip_code": code, "movie_title": movies[movie][1],
                "movie_genres": [names.index(g.replace("'s", "")) for g in movies[movie][3]],
            }

    def dataset(self, *args, **kwargs):
        names = self.info.features["movie_genres"].feature.names
        return tf.data.Dataset.from_generator(
            lambda: rows(names), output_signature=self.info.features.get_tensor_spec())

    return tfds.testing.mock_data(as_dataset_fn=dataset, policy=tfds.testing.MockPolicy.USE_CODE)


def test_tfds_gives_the_same_rows(movielens_1m, tmp_path):
    ratings, _, _, rows = movielens_1m
    with mock(ratings):
        statistics = movielens.convert(str(tmp_path / "out"), tfds="movielens/1m-ratings")
    found = read(tmp_path / "out")
    assert plain(found, ("genres",)) == plain(rows, ("genres",))
    assert {k: [g.replace(b"Children", b"Children's") for g in row["genres"]] for k, row in found.items()} == {
        k: list(row["genres"]) for k, row in rows.items()}
    assert statistics["source"]["tfds"] == "movielens/1m-ratings" and statistics["source"]["movies"] == 4


def test_what_tfds_cannot_load_is_one_error(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="--tfds must be one of .*Received: 'movielens/25m-ratings'"):
        movielens.convert(str(tmp_path / "out"), tfds="movielens/25m-ratings")

    def fails(*args, **kwargs):
        raise ConnectionError("no way\nout")

    monkeypatch.setattr(tfds, "load", fails)
    with pytest.raises(UserError, match="failed. Received: ConnectionError: no way out"):
        movielens.convert(str(tmp_path / "out"), tfds="movielens/1m-ratings", tfds_dir=str(tmp_path / "data"))
    monkeypatch.undo()
    with tfds.testing.mock_data(num_examples=3, policy=tfds.testing.MockPolicy.USE_CODE):  # random text for ids
        with pytest.raises(UserError, match="user_id of ratings must be an integer. Received: '"):
            movielens.convert(str(tmp_path / "out"), tfds="movielens/1m-ratings")
    assert list(tmp_path.iterdir()) == []


DAMAGES = {
    # (file, what to change it to), and the message
    "no ratings": ("ratings.dat", None, r"ratings.dat, u.data, or exactly one file \*.inter. Received: no such"),
    "no users": ("users.dat", None, r"users.dat cannot be read. Received: .*No such file"),
    "no movies": ("movies.dat", None, r"movies.dat cannot be read. Received: .*No such file"),
    "empty": ("ratings.dat", "", r"there must be rows to write to .*. Received: none"),
    "few fields": ("ratings.dat", "1::1::5\n", r"line 1 must have 4 fields between '::'. Received: '1::1::5'"),
    "blank line": ("ratings.dat", "1::1::5::9\n\n", r"line 2 must have 4 fields between '::'. Received: ''"),
    "many fields": ("movies.dat", "1::A::B (1995)::Drama\n", r"movies.dat: line 1 must have 3 fields"),
    "rating 0": ("ratings.dat", "1::1::0::9\n", r"'rating' must be from 0.5 to 5. Received: 0.0"),
    "rating 6": ("ratings.dat", "1::1::5.5::9\n", r"'rating' must be from 0.5 to 5. Received: 5.5"),
    "rating nan": ("ratings.dat", "1::1::nan::9\n", r"rating must be a number. Received: 'nan'"),
    "rating -1": ("ratings.dat", "1::1::-1::9\n", r"rating must be a number. Received: '-1'"),
    "user a": ("ratings.dat", "a::1::5::9\n", r"user_id of ratings must be an integer. Received: 'a'"),
    "user empty": ("ratings.dat", "::1::5::9\n", r"user_id of ratings must be an integer. Received: ''"),
    "user hex": ("ratings.dat", "0x1::1::5::9\n", r"user_id of ratings must be an integer. Received: '0x1'"),
    "user below 0": ("users.dat", "-1::F::1::10::48067\n", r"users: column 'user_id' must be at least 0. Received: -1"),
    "movie 1.0": ("ratings.dat", "1::1.0::5::9\n", r"movie_id of ratings must be an integer. Received: '1.0'"),
    "movie space": ("movies.dat", " 1::A (1995)::Drama\n", r"movie_id of movies must be an integer. Received: ' 1'"),
    "time text": ("ratings.dat", "1::1::5::now\n", r"timestamp of ratings must be an integer. Received: 'now'"),
    "time 2^63": ("ratings.dat", f"1::1::5::{2**63}\n", r"must be an integer of 64 bits.*9223372036854775"),
    "time ms": ("ratings.dat", "1::1::5::956703932000\n", r"'timestamp' must be seconds .*Received: 956703932000"),
    "time below 0": ("ratings.dat", "1::1::5::-1\n", r"'timestamp' must be seconds .*Received: -1"),
    "twice": ("ratings.dat", "1::1::5::9\n1::1::4::9\n",
              r"\(user_id, movie_id, timestamp\) may have one row. Received twice: \(1, 1, 9\)"),
    "user twice": ("users.dat", "1::F::1::10::48067\n" * 2, r"users: each \(user_id\) may have one row. Received"),
    "movie twice": ("movies.dat", "1::A (1995)::Drama\n" * 2, r"movies: each \(movie_id\) may have one row. Received"),
    "user unknown": ("ratings.dat", "3::1::5::9\n", r"each user_id must be among the users. Received: 3"),
    "movie unknown": ("ratings.dat", "1::2::5::9\n", r"each movie_id must be among the movies. Received: 2"),
    "gender": ("users.dat", "1::25::M::10::48067\n", r"age must be an integer. Received: 'M'"),
    "gender X": ("users.dat", "1::X::25::10::48067\n", r"'gender' must be F, M or empty. Received: 'X'"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_one_error_and_leaves_nothing(tmp_path, name):
    file, text, message = DAMAGES[name]
    source = write_1m(tmp_path / "in", random_ratings()[:5])
    if text is None:
        (source / file).unlink()
    else:
        (source / file).write_text(text)
    with pytest.raises(UserError, match=message):
        movielens.convert(str(tmp_path / "out"), source)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
USER = "user_id:token\tage:float\tgender:token\toccupation:token\tzip_code:token\n"
ATOMIC_DAMAGES = {
    "no user file": ("user", None, r"ml.user cannot be read. Received: .*No such file"),
    "empty": ("inter", "", r"must have exactly one column for each of .*'timestamp'\]. Received columns: \[''\]"),
    "column": ("item", "item_id:token\tclass:token_seq\n1\tDrama\n", r"one column for each of \['release_year'\]"),
    "no genre": ("item", "item_id:token\trelease_year:float\n1\t1995\n", r"column for each of \['class'\]. Received"),
    "utf-8": ("item", "item_id:token\trelease_year:float\tgenre:token\n1\t\xe9\tDrama\n", r"must be UTF-8. Received"),
    "fields": ("user", USER + "1\t2\n", r"ml.user: line 2 must have 5 fields between '\\t'. Received: '1\\t2'"),
    "token": ("inter", INTER + "1m_3\tToy\t5\t9\n", r"user_id must be in its .user or .item file. Received: '1m_3'"),
    "twice": ("user", USER + "".join(f"1m_{i}\t1\tF\t1\t1\n" for i in (1, 2, 7, 1)),
              r"each user_id may have one row. Received twice: '1m_1'"),
    "time": ("inter", INTER + "1m_1\tToy Story (1995)\t5\t9.5\n",
             r"timestamp of ratings must be an integer. Received: '9.5'"),
    "two": ("inter", "", r"exactly one file \*.inter. Received: \['also.inter', 'ml.inter'\]"),
}


@pytest.mark.parametrize("name", ATOMIC_DAMAGES)
def test_a_damaged_atomic_file_is_one_error(tmp_path, name):
    file, content, message = ATOMIC_DAMAGES[name]
    source = write_atomic(tmp_path / "in", random_ratings()[:5], tokens=True)
    if content is None:
        (source / f"ml.{file}").unlink()
    else:
        (source / f"{'also' if name == 'two' else 'ml'}.{file}").write_text(content, "latin-1")
    with pytest.raises(UserError, match=message):
        movielens.convert(str(tmp_path / "out"), source)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_genre_of_100k_is_0_or_1(tmp_path):
    source = write_100k(tmp_path / "in", random_ratings()[:5])
    text = (source / "u.item").read_bytes()
    (source / "u.item").write_bytes(text.replace(b"|1|", b"|2|", 1))
    with pytest.raises(UserError, match="u.item: genre '.*' must be 0 or 1. Received: '2'"):
        movielens.convert(str(tmp_path / "out"), source)
