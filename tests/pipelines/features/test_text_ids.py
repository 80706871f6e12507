"""Users, items, authors and tabs that are texts: their counters and histories are those of numbers."""

import dataclasses
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dlen_cam2.schema import Computed, Feature, Schema, Task, pbtxt
from dlen_cam2.utils.errors import UserError
from pipelines.from_logs import Roles, convert
from pipelines.options import Options
from tests.support.logs import DAY, FED, START, counters, fed, named, read_all, write

IDS = ("uid", "video_id", "author_id", "tab")
HISTORIES = ("watched", "long_viewed", "liked")
ROLES = Roles("ts", "uid", "video_id")
TASKS = (Task("click", label="is_click"), Task("like", label="is_like"))
# What is counted of a log that has a user, an item and a click.
PLAIN = counters(("uid", "vid", "click"), user_id="uid", video_id="vid")


def schema(dtype, user="uid"):
    how = {"min_count": 1, "width": 4}
    found = [dataclasses.replace(f, dtype=dtype, size=0, **how) if f.name in HISTORIES else f
             for f in counters((*FED, user), 1, user_id=user)]
    own = (Feature(user, dtype, "user", "content", **how), Feature("video_id", dtype, "item", "content", **how),
           Feature("note", "int", "item", "content", size=99, width=2))
    return Schema("ids", (*own, *found), TASKS)


def text(column, value):
    """The name of an id: its order is not that of the numbers."""
    return f"{column}-{uuid.uuid5(uuid.NAMESPACE_URL, f'{column}{value}')}"


def texts(rows):
    return [row | {c: text(c, row[c]) for c in IDS} for row in rows]


def numbered(rows):
    """Each text as its place by its bytes: events of one moment stand in the order of their items."""
    places = {c: {t: n for n, t in enumerate(sorted({row[c] for row in rows}))} for c in IDS}
    return [row | {c: places[c][row[c]] for c in IDS} for row in rows], places["video_id"]


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_counters_and_histories_of_texts_are_those_of_numbers(tmp_path, ending):
    log = texts(named(fed(90)))
    numbers, items = numbered(log)
    for name, rows, dtype in (("texts", log, "string"), ("numbers", numbers, "int")):
        write(tmp_path / f"{name}{ending}", rows, {})
        convert(str(tmp_path / f"{name}{ending}"), schema(dtype), ROLES, str(tmp_path / name))
    found, wanted = ({row["note"]: row for row in read_all(tmp_path / name)} for name in ("texts", "numbers"))
    assert len(found) == 90 and {len(row) for row in found.values()} == {len(schema("int").columns) + 1}
    assert all(any(row[name] for row in found.values()) for name in HISTORIES)
    texts_of = {n: t for t, n in items.items()}
    for note, like in wanted.items():
        row = found[note]
        for name, value in like.items():
            if name in HISTORIES:
                assert row[name] == [texts_of[n] for n in value], name
            elif name not in ("uid", "video_id"):
                assert row[name] == value, name
    assert {row["video_id"] for row in found.values()} == set(items)
    stored = pbtxt.load(tmp_path / "texts")
    assert stored.text_keys == ("uid", "video_id") and stored.columns["ts"] == "int"


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_days_that_are_added_have_the_bytes_of_a_full_run(tmp_path, ending):
    log = texts(named(fed(90)))
    for day in range(3):
        write(tmp_path / "in" / f"{day}{ending}", [r for r in log if (r["ts"] - START) // DAY == day], {})
    convert(str(tmp_path / "in" / f"*{ending}"), schema("string"), ROLES, str(tmp_path / "full"))
    convert(str(tmp_path / "in" / f"0{ending}"), schema("string"), ROLES, str(tmp_path / "out"))
    for day, files in (("20220426", "[01]"), ("20220427", "[2]"), ("20220427", "*")):
        convert(str(tmp_path / "in" / f"{files}{ending}"), schema("string"), ROLES, str(tmp_path / "out"),
                how=Options(since=day))
    full, added = ({p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.tfrecord*")}
                   for name in ("full", "out"))
    assert full == added and len(full) == 3
    tables = {p.relative_to(tmp_path / "full") for p in (tmp_path / "full").rglob("snapshots/*/*.parquet")}
    assert len({p.name for p in tables}) * 3 == len(tables)
    for file in tables:
        kept = [sorted(map(repr, pq.read_table(tmp_path / name / file).to_pylist())) for name in ("full", "out")]
        assert kept[0] == kept[1], file
    users = pq.read_table(tmp_path / "out/snapshots/20220427/kept_counts_0.parquet").column("__key_0").to_pylist()
    assert set(users) <= {row["uid"] for row in log} and len(users) == len(set(users)) > 1


def test_columns_may_have_the_names_of_a_feed(tmp_path):
    log = [{"user_id" if n == "uid" else n: v for n, v in row.items()} for row in texts(named(fed(40)))]
    write(tmp_path / "log.parquet", log, {})
    convert(str(tmp_path / "log.parquet"), schema("string", "user_id"), Roles("ts", "user_id", "video_id"),
            str(tmp_path / "out"))
    found = read_all(tmp_path / "out")
    assert {row["user_id"] for row in found} == {row["user_id"] for row in log}
    assert [r["user_impressions"] for r in found if r["user_id"] == log[-1]["user_id"]][-1] > 0


def test_a_history_is_of_the_type_of_the_items(tmp_path):
    write(tmp_path / "log.parquet", texts(named(fed(9))), {})
    wrong = schema("string").select(without=["watched"])
    wrong = dataclasses.replace(wrong, features=(*wrong.features, Feature(
        "watched", "int", "user", "content", size=9, width=4, max_length=5,
        computed=Computed("sequence", ("uid",), value="video_id"))))
    message = "feature 'watched': sequence must have the type of its value 'video_id', 'string'. Received: 'int'"
    with pytest.raises(UserError, match=message):
        convert(str(tmp_path / "log.parquet"), wrong, ROLES, str(tmp_path / "out"))
    assert [p.name for p in tmp_path.iterdir()] == ["log.parquet"]


def test_a_key_of_numbers_and_texts_in_csv_is_text_in_every_day(tmp_path):
    """`tab` is no column of the schema: a file of texts has no types, so 0 and home are texts from the first day on."""
    log = named(fed(40))
    later = [row | {"tab": "home"} if row["ts"] >= START + 2 * DAY else row for row in log]
    write(tmp_path / "log.csv", log)
    write(tmp_path / "later.csv", later)
    convert(str(tmp_path / "log.csv"), schema("int"), ROLES, str(tmp_path / "out"))
    convert(str(tmp_path / "later.csv"), schema("int"), ROLES, str(tmp_path / "out"), how=Options(since="20220427"))
    convert(str(tmp_path / "later.csv"), schema("int"), ROLES, str(tmp_path / "full"))
    found = read_all(tmp_path / "out")
    assert found == read_all(tmp_path / "full")
    users = {}
    for row in (row for row in found if row["ts"] >= START + 2 * DAY):
        users.setdefault(row["uid"], []).append(row["user_tab_logged"])
    assert users and all(counts == sorted(counts) and counts[0] == 0 for counts in users.values())


def test_a_number_among_days_of_numbers_cannot_become_a_text(tmp_path):
    """In Parquet a key has a type, and the counters of the days before are kept by it."""
    log = named(fed(40))
    write(tmp_path / "log.parquet", log, {})
    convert(str(tmp_path / "log.parquet"), schema("int"), ROLES, str(tmp_path / "out"))
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    write(tmp_path / "log.parquet", [row | {"tab": "home"} for row in log], {})
    with pytest.raises(UserError, match="--since must have the features and columns of the run that wrote the snaps"):
        convert(str(tmp_path / "log.parquet"), schema("int"), ROLES, str(tmp_path / "out"),
                how=Options(since="20220427"))
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("kind", ["uuid", "dictionary", "large"])
def test_ids_of_other_text_types_in_parquet(tmp_path, kind):
    ids = [uuid.uuid5(uuid.NAMESPACE_URL, str(i % 3)) for i in range(6)]
    column = pa.array([i.bytes for i in ids], pa.uuid()) if kind == "uuid" else pa.array([str(i) for i in ids])
    column = {"dictionary": column.dictionary_encode, "large": lambda: column.cast(pa.large_string())}.get(
        kind, lambda: column)()
    pq.write_table(pa.table({"ts": [START + i for i in range(6)], "who": column, "what": column, "shop": column,
                             "click": [0, 1] * 3}), tmp_path / "log.parquet")
    how = {"min_count": 1, "width": 2}
    features = (
        Feature("who", "string", "user", "content", **how),
        Feature("clicks", "float", "user", "statistical", computed=Computed("count", ("who", "shop"), of="click")),
        Feature("shops", "string", "user", "content", max_length=3, computed=Computed(
            "sequence", ("who",), of="click", value="shop"), **how))
    convert(str(tmp_path / "log.parquet"), Schema("s", features, (Task("click"),)), Roles("ts", "who", "what"),
            str(tmp_path / "out"))
    found = read_all(tmp_path / "out")
    assert [(row["who"], row["what"]) for row in found] == [(str(i), str(i)) for i in ids]
    assert [row["clicks"] for row in found] == [0, 0, 0, 0, 1, 0]
    assert [row["shops"] for row in found] == [[], [], [], [], [str(ids[1])], []]


def test_a_key_that_is_no_feature_may_be_text(tmp_path):
    rows = [{"ts": START + i, "who": f"u{i % 2}", "what": i, "click": i % 2, "age": 3} for i in range(4)]
    write(tmp_path / "log.csv", rows)
    plain = Schema("s", (Feature("age", "int", "user", "content", size=9, width=2),), (Task("click"),))
    convert(str(tmp_path / "log.csv"), plain, Roles("ts", "who", "what"), str(tmp_path / "out"))
    assert [(row["who"], row["what"]) for row in read_all(tmp_path / "out")] == [(f"u{i % 2}", i) for i in range(4)]
    write(tmp_path / "log.csv", [*rows, rows[0] | {"who": ""}])
    with pytest.raises(UserError, match="column 'who' must be text that is not empty. Received: nothing"):
        convert(str(tmp_path / "log.csv"), plain, Roles("ts", "who", "what"), str(tmp_path / "out"))


def test_a_label_may_be_missing_where_its_mask_is_0(tmp_path):
    chain = [(0, None, None), (1, 0, None), (1, 1, 0), (1, 1, 1)]
    rows = [{"ts": START + i, "uid": i, "vid": i, "click": c, "cart": b, "buy": p} for i, (c, b, p) in enumerate(chain)]
    write(tmp_path / "log.csv", rows)
    shop = Schema("s", (Feature("uid", "int", "user", "content", size=9, width=2),),
                  (Task("click"), Task("cart", mask="click"), Task("buy", mask="cart")))
    convert(str(tmp_path / "log.csv"), shop, Roles("ts", "uid", "vid"), str(tmp_path / "out"))
    assert [(r["click"], r["cart"], r["buy"]) for r in read_all(tmp_path / "out")] == [
        (c, b or 0, p or 0) for c, b, p in chain]
    for column in ("cart", "buy"):
        write(tmp_path / "log.csv", [rows[3] | {column: None}])
        with pytest.raises(UserError, match=rf"column '{column}' must be 0 or 1 \(where its mask '\w+' is 0, it may"):
            convert(str(tmp_path / "log.csv"), shop, Roles("ts", "uid", "vid"), str(tmp_path / "out"))


def test_a_day_of_numbers_among_texts_is_read_as_texts(tmp_path):
    """Whether a key that is no feature holds texts is what the data set says, not the new day."""
    days = [["17", "abc", "17", "5"], ["17", "5", "17"]]
    counted = Schema("s", PLAIN, (Task("click"),))
    for day, users in enumerate(days):
        write(tmp_path / f"{day}.csv", [{"ts": START + day * DAY + i * 60_000, "uid": u, "vid": f"v{i}", "click": 1}
                                        for i, u in enumerate(users)])
    roles = Roles("ts", "uid", "vid")
    convert(str(tmp_path / "[01].csv"), counted, roles, str(tmp_path / "full"))
    convert(str(tmp_path / "0.csv"), counted, roles, str(tmp_path / "out"))
    convert(str(tmp_path / "1.csv"), counted, roles, str(tmp_path / "out"), how=Options(since="20220426"))
    assert read_all(tmp_path / "out") == read_all(tmp_path / "full")
    assert [row["user_impressions"] for row in read_all(tmp_path / "out")][-3:] == [2, 1, 3]


def test_a_text_among_days_of_numbers_is_one_message(tmp_path):
    plain = Schema("s", PLAIN, (Task("click"),))
    for day, user in enumerate((7, "seven")):
        write(tmp_path / f"{day}.csv", [{"ts": START + day * DAY, "uid": user, "vid": 1, "click": 1}])
    convert(str(tmp_path / "0.csv"), plain, Roles("ts", "uid", "vid"), str(tmp_path / "out"))
    with pytest.raises(UserError, match="column 'uid' must be an integer within 64 bits. Received: seven"):
        convert(str(tmp_path / "1.csv"), plain, Roles("ts", "uid", "vid"), str(tmp_path / "out"),
                how=Options(since="20220426"))


@pytest.mark.parametrize("others", [[], [float("inf")]])
def test_a_number_that_is_none_counts_as_missing(tmp_path, others):
    """pandas writes NaN for what a column of numbers lacks."""
    nan = float("nan")
    table = pa.table({
        "ts": [START + i for i in range(4)], "uid": [1, 2, 3, 4], "vid": [1, 1, 2, 2], "click": [0, 1, 1, 0],
        "buy": pa.array([nan, 1.0, 0.0, nan]), "age": pa.array([nan, 30.0, 40.0, None]),
        "unread": pa.array([*others, 1.0, 2.0, 3.0, 4.0][:4]),
    })
    pq.write_table(table, tmp_path / "log.parquet")
    buy = Schema("s", (Feature("age", "int", "user", "content", size=99, width=2),),
                 (Task("click"), Task("buy", mask="click")))
    convert(str(tmp_path / "log.parquet"), buy, Roles("ts", "uid", "vid"), str(tmp_path / "out"))
    assert [(row["age"], row["buy"]) for row in read_all(tmp_path / "out")] == [(-1, 0), (30, 1), (40, 0), (-1, 0)]
