"""MovieLens -> a data set: months, labels, counters, and the real files where they are at hand."""

import collections
import datetime
import os

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.data import manifest
from dlen_cam2.schema import pbtxt
from dlen_cam2.utils.errors import UserError
from pipelines import movielens
from pipelines.options import Options
from pipelines.writer.shards import Form
from tests.support.builders import command
from tests.support.movielens_files import DAY, MOVIES, START, USERS, random_ratings, read, write_1m

HOUR = 3600
REAL = os.environ.get("DLEN_CAM2_MOVIELENS", "")


def test_splits_are_months_in_utc_and_rows_stand_in_time_order(movielens_1m):
    ratings, output, statistics, rows = movielens_1m
    month = {r: datetime.datetime.fromtimestamp(r[3], datetime.UTC).strftime("%Y%m") for r in ratings}
    assert {split: day["rows"] for split, day in statistics["days"].items()} == collections.Counter(month.values())
    assert list(statistics["days"]) == ["200004", "200005", "200006"] and statistics["vocabularies_of"] == [
        "200004", "200005"]
    assert manifest.parse_days("200004..200005", list(statistics["days"])) == ["200004", "200005"]
    assert {k: row["split"] for k, row in rows.items()} == {(u, m, t): month[u, m, r, t] for u, m, r, t in ratings}
    assert [k[2] for k in rows] == sorted(k[2] for k in rows)
    assert statistics["source"] == {
        "pipeline": "movielens", "tfds": "", "rows_read": len(ratings), "users": 3, "movies": 4}


def test_labels_and_attributes(movielens_1m):
    ratings, _, _, rows = movielens_1m
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
    found = tf.io.parse_example(records, {"time_ms": tf.io.FixedLenFeature([], tf.int64)})["time_ms"].numpy() // 1000
    assert len(paths) == 3 and found.tolist() == sorted(times.tolist())


def reference(ratings, user, movie, time):
    """The counters of a rating by their definition: a loop over those that are strictly earlier."""
    before = [r for r in ratings if r[3] < time]
    hours = [r[2] >= 4 for r in ratings if r[3] // HOUR < time // HOUR]
    base = (sum(hours) + 1) / (len(hours) + 2)
    users, movies = [r for r in before if r[0] == user], [r for r in before if r[1] == movie]
    return {
        "user_ratings": len(users),
        "user_like_rate": (sum(r[2] >= 4 for r in users) + 10 * base) / (len(users) + 10),
        "user_idle_s": time - max(r[3] for r in users) if users else 10 * DAY,
        "movie_ratings": len(movies),
        "movie_like_rate": (sum(r[2] >= 4 for r in movies) + 20 * base) / (len(movies) + 20),
    }


@pytest.mark.parametrize("seed", range(3))
def test_counters_equal_the_reference(movielens_1m, tmp_path, seed):
    ratings, _, _, rows = movielens_1m
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
    base = (1 + 1) / (3 + 2)  # that of earlier hours; half before
    assert [r["user_like_rate"] for r in rows] == pytest.approx(
        [0.5, 0.5, 0.5, (1 + 10 * base) / 12, (0 + 10 * base) / 11])
    assert [r["movie_like_rate"] for r in rows] == pytest.approx([0.5, 0.5, (1 + 20 * 0.5) / 21, base, base])


def test_a_rating_does_not_change_the_features_of_its_own_second_or_before(movielens_1m, tmp_path):
    ratings, _, _, rows = movielens_1m
    now = sorted(r[3] for r in ratings)[len(ratings) // 2]
    other = [(u, m, r if t < now else 6 - r, t) for u, m, r, t in ratings]
    movielens.convert(str(tmp_path / "out"), write_1m(tmp_path / "in", other))
    changed = read(tmp_path / "out")
    names = list(reference(ratings, *next(iter(rows))))
    same = {k: all(rows[k][n] == changed[k][n] for n in names) for k in rows}
    assert all(same[k] for k in rows if k[2] <= now) and not all(same.values())


def test_vocabularies_are_of_the_months_that_are_named(movielens_1m, tmp_path):
    ratings, output, _, _ = movielens_1m
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
    with pytest.raises(UserError, match="days must name days.*Received: '200001'"):
        movielens.convert(str(tmp_path / "other"), tmp_path / "in", how=Options(train_days="200001"))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("given", [{}, {"source": "a", "tfds": "movielens/1m-ratings"}])
def test_exactly_one_source(tmp_path, given):
    with pytest.raises(UserError, match="exactly one of --input and --tfds must be given. Received: --input="):
        movielens.convert(str(tmp_path / "out"), **given)


@pytest.mark.slow
def test_the_command(tmp_path):
    def run(*arguments):
        return command("pipelines.movielens", f"--output={tmp_path / 'out'}", *arguments)

    write_1m(tmp_path / "in", random_ratings())
    done = run(f"--input={tmp_path / 'in'}", "--train_days=200004")
    assert (done.returncode, done.stdout.splitlines()[-2].split(" rows ")[1]) == (
        0, f"in 3 splits were written to {tmp_path / 'out'}"), done.stderr
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
