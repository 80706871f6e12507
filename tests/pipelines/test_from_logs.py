"""Any log -> a data set: formats, types, times, days, counters, appending, and the schema that is proposed."""

import csv
import dataclasses
import datetime
import gzip
import io
import json
import random
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dlen_cam2.data import manifest
from dlen_cam2.schema import Feature, Schema, Task, pbtxt
from dlen_cam2.utils.errors import UserError
from pipelines import from_logs
from pipelines.engines import connect
from pipelines.features.point_in_time import COUNTERS, histories
from pipelines.from_logs import Roles, convert
from pipelines.logs.log_files import open_log
from pipelines.options import Options
from pipelines.suggestion.suggest import suggest
from pipelines.writer import stored_rows
from pipelines.writer.shards import Form
from tests.pipelines.test_point_in_time import reference
from tests.support.builders import command

DAY = 86_400_000
START = 19107 * DAY  # 2022-04-25
ROLES = Roles("ts", "uid", "vid")
SCHEMA = Schema(
    "log",
    (
        Feature("uid", "int", "user", "content", size=64, hashed=True, width=4),
        Feature("vid", "int", "item", "content", min_count=1, oov_buckets=2, width=4),
        Feature("age", "int", "user", "content", size=100, width=2),
        Feature("city", "string", "user", "content", min_count=1, width=2),
        Feature("tags", "string", "item", "content", size=32, hashed=True, width=2, max_length=4),
        Feature("seen", "int", "user", "content", size=1000, width=4, max_length=3),
        Feature("price", "float", "item", "content", transform="log1p"),
        Feature("ctr", "float", "item", "statistical", transform="logit"),
        Feature("heat", "float", "context", "context"),
    ),
    (Task("click", label="is_click"), Task("like", label="is_like", mask="shown")),
    ("play_s",),
)
TYPES = {
    "city": pa.string(), "note": pa.string(), "tags": pa.list_(pa.string()), "seen": pa.list_(pa.int64()),
    "is_click": pa.bool_(),
    **dict.fromkeys(("price", "ctr", "heat", "play_s"), pa.float64()),
}
CITIES = ["Bonn", 'the "old" town', "two\nlines", "a, b; c|d", "Zürich 東京 🙂", "it's", " padded ", "back\\slash",
          "NULL", "null", "true", "007", "[x", "#1", "tab\there", None]


def log_rows(count=32, days=2, seed=0):
    """Rows of every type in time order, some with values that are missing where they may be."""
    rng = random.Random(seed)
    return [
        {
            "ts": START + i * days * DAY // count + i, "uid": 10**15 + i % 5, "vid": rng.randrange(9),
            "age": rng.choice([18, 99, -5, None]), "city": CITIES[i % len(CITIES)],
            "tags": rng.choice([None, [], ["a"], ["b", "a", "ü"], ['q"', "c,d"]]),
            "seen": rng.choice([None, [], [7], [1, 2, 999]]), "price": rng.choice([0.0, 1.5, 1e6]),
            "ctr": rng.choice([0.0, 0.25, 1.0]), "heat": rng.choice([-3.25, 0.0, 1e-9]), "is_click": rng.random() < 0.5,
            "is_like": rng.randrange(2), "shown": rng.randrange(2), "play_s": rng.random() * 60, "note": "not read",
        }
        for i in range(count)
    ]


def write(path, rows, types=TYPES, lists=json.dumps):
    """A log in the format that the ending says; in CSV a list is what `lists` makes of it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".parquet":
        columns = {n: pa.array([row.get(n) for row in rows], types.get(n)) for n in names}
        pq.write_table(pa.table(columns), path)
        return path
    if "json" in path.name:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        def cell(value):
            if isinstance(value, list):
                return lists(value)
            return str(value).lower() if isinstance(value, bool) else value

        file = io.StringIO()
        writer = csv.writer(file, delimiter="\t" if ".tsv" in path.name else ",", lineterminator="\n")
        writer.writerows([names, *([cell(row.get(n)) for n in names] for row in rows)])
        text = file.getvalue()
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def kept(rows, schema=SCHEMA):
    """What a data set of these rows holds: the schema's columns, in its types, in the log's order."""
    absent = {"int": -1, "string": "", "float": None}
    lists = {f.name for f in schema.features if f.is_list}

    def value(name, dtype, found):
        if name in lists:
            return found or []
        if found is None:
            return absent[dtype]
        return float(np.float32(found)) if dtype == "float" else int(found) if dtype == "int" else found

    return [{name: value(name, dtype, row[name]) for name, dtype in schema.columns.items()} for row in rows]


def read(output, split):
    """The rows of a split, in their order."""
    def text(value):
        return [text(v) for v in value] if isinstance(value, list) else \
            value.decode() if isinstance(value, bytes) else value

    schema = pbtxt.load(output)
    return [{name: text(value) for name, value in row.items()}
            for table in stored_rows.tables(output, schema, split) for row in table.select(list(schema.columns)).to_pylist()]


def read_all(output):
    return [row for split in manifest.statistics(output)["days"] for row in read(output, split)]


def keyed(schema=SCHEMA, roles=ROLES):
    return from_logs._with_keys(schema, roles)


def spaced(values):
    return " ".join(map(str, values))


ENDINGS = [".parquet", ".csv", ".tsv", ".csv.gz", ".tsv.gz", ".jsonl", ".ndjson", ".jsonl.gz"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_gives_the_same_rows(tmp_path, ending):
    rows = log_rows()
    write(tmp_path / "in" / f"log{ending}", rows)
    output = tmp_path / "out"
    statistics = convert(str(tmp_path / "in" / "*"), SCHEMA, ROLES, str(output))
    assert list(statistics["days"]) == ["20220425", "20220426"]
    assert statistics["source"] == {"pipeline": "from_logs", "rows_read": 32, "rows_skipped": {}, "rows_repeated": 0,
                                    "time_unit": "ms", "utc_offset": 0, "random": ""}
    assert read_all(output) == kept(rows, keyed())
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_every_bit_of_an_id_is_kept(tmp_path, ending):
    ids = [-(2**63), -(2**53) - 1, 2**53 + 1, 2**62 + 1, 2**63 - 1]
    rows = [{"t": START + i, "uid": v, "vid": v, "click": 1, "list": [v, 1]} for i, v in enumerate(ids)]
    listed = Feature("list", "int", "item", "content", size=9, hashed=True, width=2, max_length=2)
    schema = Schema("small", (*SMALL.features, listed), SMALL.tasks)
    write(tmp_path / f"log{ending}", rows, {})
    convert(str(tmp_path / f"log{ending}"), schema, Roles("t", "uid", "vid"), str(tmp_path / "out"))
    found = read_all(tmp_path / "out")
    assert [(row["uid"], row["vid"], row["list"]) for row in found] == [(v, v, [v, 1]) for v in ids]


def test_a_list_in_text_is_json_or_separated_by_spaces(tmp_path):
    rows = log_rows()
    for row in rows:
        row["tags"] = [t for t in row["tags"] or [] if "," not in t]
    write(tmp_path / "log.csv", rows, lists=spaced)
    convert(str(tmp_path / "log.csv"), SCHEMA, ROLES, str(tmp_path / "out"))
    assert read_all(tmp_path / "out") == kept(rows, keyed())


def test_several_files_are_one_log_and_a_path_may_have_any_signs(tmp_path):
    rows = log_rows()
    for part in range(3):
        write(tmp_path / "o'brien [1] ?" / f"part {part}.csv", rows[part::3])
    files = ",".join(["o'brien [[]1[]] [?]/part [01].csv", "o'brien*/*2.csv"])
    convert(",".join(str(tmp_path / part) for part in files.split(",")), SCHEMA, ROLES, str(tmp_path / "out"))
    assert read_all(tmp_path / "out") == kept(rows, keyed())


@pytest.mark.parametrize("change", ["CRLF", "BOM", "no newline at the end", "semicolons"])
def test_csv_as_other_programs_write_it(tmp_path, change):
    rows = [row | {"city": (row["city"] or "").replace("\n", " "), "tags": None} for row in log_rows()]
    text = write(tmp_path / "log.csv", rows).read_text()
    if change == "CRLF":
        text = text.replace("\n", "\r\n")
    if change == "BOM":
        text = "\ufeff" + text
    if change == "no newline at the end":
        text = text.rstrip("\n")
    if change == "semicolons":
        file = io.StringIO()
        csv.writer(file, delimiter=";", lineterminator="\n").writerows(csv.reader(io.StringIO(text)))
        text = file.getvalue()
    (tmp_path / "log.csv").write_bytes(text.encode())
    convert(str(tmp_path / "log.csv"), SCHEMA, ROLES, str(tmp_path / "out"))
    assert read_all(tmp_path / "out") == kept(rows, keyed())


@pytest.mark.parametrize("first", ["city", "ts"])
def test_no_line_of_a_csv_is_taken_for_a_comment_or_a_title(tmp_path, first):
    rows = [{"city": "#" + str(i), **{n: v for n, v in row.items() if n != "city"}} for i, row in enumerate(log_rows())]
    rows = [{first: row[first], **row} for row in rows]
    write(tmp_path / "log.csv", rows)
    statistics = convert(str(tmp_path / "log.csv"), SCHEMA, ROLES, str(tmp_path / "out"))
    assert statistics["source"]["rows_read"] == 32
    assert read_all(tmp_path / "out") == kept(rows, keyed())


SMALL = Schema("small", (Feature("vid", "int", "item", "content", min_count=1, width=2),), (Task("click"),))
MOMENT = 1_650_848_523_004  # 2022-04-25 01:02:03.004 UTC
WHEN = datetime.datetime(2022, 4, 25, 1, 2, 3, 4000)


def at(tmp_path, times, dtype=None, ending=".parquet", unit="ms", offset=0):
    """{split: times} of a log with these times."""
    rows = [{"t": time, "uid": i, "vid": 1, "click": 0} for i, time in enumerate(times)]
    write(tmp_path / f"log{ending}", rows, {"t": dtype})
    output = tmp_path / "out"
    statistics = convert(str(tmp_path / f"log{ending}"), SMALL, Roles("t", "uid", "vid", "", unit, offset), str(output))
    return {day: [row["t"] for row in read(output, day)] for day in statistics["days"]}


SECOND = MOMENT // 1000 * 1000
TIMES = {
    "ms": (MOMENT, pa.int64(), ".parquet", "ms", MOMENT),
    "s": (MOMENT // 1000, pa.int32(), ".parquet", "s", SECOND),
    "us": (MOMENT * 1000 + 999, pa.int64(), ".parquet", "us", MOMENT),
    "ms in doubles, as a column with nulls has": (float(MOMENT), pa.float64(), ".parquet", "ms", MOMENT),
    "ms in CSV": (MOMENT, None, ".csv", "ms", MOMENT),
    "s in JSON": (MOMENT // 1000, None, ".jsonl", "s", SECOND),
    "us in CSV": (MOMENT * 1000, None, ".csv", "us", MOMENT),
    **{f"timestamp[{unit}]": (WHEN, pa.timestamp(unit), ".parquet", "s", MOMENT) for unit in ("ms", "us", "ns")},
    "timestamp[s]": (WHEN.replace(microsecond=0), pa.timestamp("s"), ".parquet", "ms", SECOND),
    "timestamp in UTC": (WHEN, pa.timestamp("us", "UTC"), ".parquet", "s", MOMENT),
    "timestamp in a zone": (
        WHEN.replace(tzinfo=datetime.UTC), pa.timestamp("ms", "Asia/Shanghai"), ".parquet", "ms", MOMENT),
    "date": (WHEN.date(), pa.date32(), ".parquet", "ms", START),
    "date in CSV": ("2022-04-25", None, ".csv", "ms", START),
    "ISO in CSV": ("2022-04-25T01:02:03.004", None, ".csv", "ms", MOMENT),
    "ISO with a space in JSON": ("2022-04-25 01:02:03", None, ".jsonl", "us", SECOND),
    "ISO with Z": ("2022-04-25T01:02:03.004Z", None, ".jsonl", "s", MOMENT),
    "ISO with an offset": ("2022-04-25T09:02:03.004+08:00", None, ".csv", "ms", MOMENT),
    "ISO in Parquet": ("2022-04-25 01:02:03.004", pa.string(), ".parquet", "ms", MOMENT),
}


@pytest.mark.parametrize("case", TIMES)
def test_time_in_every_form_becomes_milliseconds(tmp_path, case):
    given, dtype, ending, unit, wanted = TIMES[case]
    assert at(tmp_path, [given], dtype, ending, unit) == {"20220425": [wanted]}


def test_microseconds_are_cut_exactly(tmp_path):
    times = sorted(random.Random(0).sample(range(1_650_000_000_000_000, 1_650_086_399_000_000), 500))
    found = at(tmp_path, times, pa.int64(), unit="us")
    assert [t for day in found.values() for t in day] == [t // 1000 for t in times]


@pytest.mark.parametrize("offset", [0, 8, -10])
def test_days_begin_where_the_offset_says_and_times_stay_in_utc(tmp_path, offset):
    times = [START - 1, START, START + 15 * 3_600_000, START + 16 * 3_600_000 - 1, START + 16 * 3_600_000]
    wanted = {}
    for time in times:
        day = datetime.datetime.fromtimestamp((time + offset * 3_600_000) / 1000, datetime.UTC).strftime("%Y%m%d")
        wanted.setdefault(day, []).append(time)
    assert at(tmp_path, times, pa.int64(), offset=offset) == wanted


def test_random_exposures_are_splits_of_their_own(tmp_path):
    rows = [row | {"rnd": i % 4 == 0} for i, row in enumerate(log_rows())]
    write(tmp_path / "log.csv", rows)
    statistics = convert(str(tmp_path / "log.csv"), SCHEMA, Roles("ts", "uid", "vid", "rnd"), str(tmp_path / "out"))
    assert {day: found["rows"] for day, found in statistics["days"].items()} == {
        "20220425": 12, "20220425_random": 4, "20220426": 12, "20220426_random": 4}
    assert read(tmp_path / "out", "20220425_random") == kept(rows[0:16:4], keyed())
    assert statistics["vocabularies_of"] == ["20220425"]


def test_rows_come_in_time_order_and_exact_duplicates_once(tmp_path):
    rows = log_rows(60)
    given = rows + rows[:7] + rows[:2]
    random.Random(1).shuffle(given)
    write(tmp_path / "log.jsonl", given)
    statistics = convert(str(tmp_path / "log.jsonl"), SCHEMA, ROLES, str(tmp_path / "out"))
    assert (statistics["source"]["rows_read"], statistics["source"]["rows_repeated"]) == (69, 9)
    assert read_all(tmp_path / "out") == kept(rows, keyed())


def test_the_order_of_the_files_rows_changes_no_byte(tmp_path):
    rows = [row | {"ts": row["ts"] // 7_000_000 * 7_000_000} for row in log_rows(60)]  # many at one time
    sums = []
    for seed in range(2):
        random.Random(seed).shuffle(rows)
        write(tmp_path / "log.parquet", rows)
        convert(str(tmp_path / "log.parquet"), SCHEMA, ROLES, str(tmp_path / "out"))
        sums.append([manifest.read_manifest(tmp_path / "out", day).shards for day in ("20220425", "20220426")])
    assert sums[0] == sums[1]


def test_keys_are_the_columns_of_the_flags(tmp_path):
    write(tmp_path / "log.csv", log_rows())
    convert(str(tmp_path / "log.csv"), SCHEMA, ROLES, str(tmp_path / "out"))
    assert pbtxt.load(tmp_path / "out").keys == {"user": "uid", "item": "vid", "time": "ts"}
    other = Schema("log", SCHEMA.features, SCHEMA.tasks, keys={"user": "vid"})
    with pytest.raises(UserError, match="keys must be the columns of --user.*Received: {'user': 'vid'}"):
        convert(str(tmp_path / "log.csv"), other, ROLES, str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


WORDS = Schema("words", (
    Feature("who", "string", "user", "content", size=32, hashed=True, width=2),
    Feature("what", "string", "item", "content", min_count=1, width=2)), (Task("click"),))


def test_users_and_items_may_be_text(tmp_path):
    rows = [{"t": START + i, "who": f"u{i % 3}", "what": f"ü{i}", "click": i % 2} for i in range(6)]
    write(tmp_path / "log.csv", rows)
    roles = Roles("t", "who", "what")
    convert(str(tmp_path / "log.csv"), WORDS, roles, str(tmp_path / "out"))
    assert read_all(tmp_path / "out") == kept(rows, keyed(WORDS, roles))


def fed(count=60, days=3, seed=0):
    """A log with what counters are made of, by other names where tasks and roles give them."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        video = rng.randrange(6)
        rows.append({
            "ts": START + i * days * DAY // count // 60_000 * 60_000, "uid": rng.randrange(4), "vid": video,
            "author_id": video % 3, "topic": "ab"[video % 2], "tab": rng.randrange(2), "duration_s": 10.0 + video,
            "play_s": rng.random() * 20, "is_click": rng.randrange(2), "long_view": rng.randrange(2),
            "is_like": rng.randrange(2), "note": i,
        })
    for i in range(3, count, 7):
        rows[i]["ts"] = rows[i - 1]["ts"]
    return rows


COUNTED = Schema(
    "counted",
    (
        Feature("uid", "int", "user", "content", size=8, hashed=True, width=2),
        Feature("video_id", "int", "item", "content", size=9, width=16),
        Feature("note", "int", "item", "content", size=99, width=2),
        *COUNTERS, *histories(9),
    ),
    (Task("click", label="is_click"), Task("like", label="is_like")),
)
AT = Roles("ts", "uid", "video_id")


def named(rows):
    return [{"video_id" if name == "vid" else name: value for name, value in row.items()} for row in rows]


@pytest.mark.parametrize("without", [(), ("author_id", "topic", "tab", "duration_s", "play_s", "long_view")])
@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_counters_that_the_log_lacks_equal_a_count_by_hand(tmp_path, without, ending):
    rows = [{n: v for n, v in row.items() if n not in without} for row in named(fed())]
    write(tmp_path / f"log{ending}", rows, {})
    convert(str(tmp_path / f"log{ending}"), COUNTED, AT, str(tmp_path / "out"))
    absent = {"author_id": -1, "topic": "", "tab": -1, "duration_s": 0.0, "play_s": None, "long_view": 0,
              "profile_enter": 0}
    log = [{**absent, **row, "split": f"d{(row['ts'] - START) // DAY}", "time_ms": row["ts"], "user_id": row["uid"],
            "click": row["is_click"], "like": row["is_like"]} for row in rows]
    found = {row["note"]: row for row in read_all(tmp_path / "out")}
    assert len(found) == len(log) == 60
    computed = {f.name for f in (*COUNTERS, *histories(1))}
    for e in log:
        wanted = reference(log, e)
        assert computed <= set(wanted)
        for name in computed:
            value = wanted[name] if isinstance(wanted[name], list) else pytest.approx(wanted[name], rel=1e-6)
            assert found[e["note"]][name] == value, (name, e)


def test_a_counter_that_the_log_has_is_read_and_does_not_change_those_that_are_computed(tmp_path):
    write(tmp_path / "log.csv", named(fed()))
    write(tmp_path / "with.csv", [row | {"user_clicks": 0.0} for row in named(fed())])
    for name in ("log", "with"):
        convert(str(tmp_path / f"{name}.csv"), COUNTED, AT, str(tmp_path / name))
    counted, given = read_all(tmp_path / "log"), read_all(tmp_path / "with")
    assert {row["user_clicks"] for row in given} == {0.0} != {row["user_clicks"] for row in counted}
    assert given == [row | {"user_clicks": 0.0} for row in counted]


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize("form", [Form(), Form("block", "GZIP")])
def test_a_day_that_is_added_has_the_bytes_of_a_full_run(tmp_path, computed, form):
    rows = [row | {"rnd": i % 5 == 0} for i, row in enumerate(named(fed(90)))]
    schema = COUNTED if computed else COUNTED.select(features=["uid", "video_id", "note"])
    roles = Roles("ts", "uid", "video_id", "rnd")
    for day in range(3):
        write(tmp_path / "in" / f"{day}.csv", [row for row in rows if (row["ts"] - START) // DAY == day])
    convert(str(tmp_path / "in" / "*.csv"), schema, roles, str(tmp_path / "full"), how=Options(form=form))
    convert(str(tmp_path / "in" / "[01].csv"), schema, roles, str(tmp_path / "out"), how=Options(form=form))
    assert len(manifest.statistics(tmp_path / "out")["days"]) == 4
    convert(str(tmp_path / "in" / "*.csv"), schema, roles, str(tmp_path / "out"),
            how=Options(since="20220427", form=form))
    full, added = (manifest.statistics(tmp_path / name)["days"] for name in ("full", "out"))
    assert list(full) == list(added) and len(full) == 6 and full == added
    for split in full:
        names = {p.name: p.read_bytes() for p in (tmp_path / "full" / split).iterdir()}
        assert names == {p.name: p.read_bytes() for p in (tmp_path / "out" / split).iterdir()}, split
    assert not [p for p in (tmp_path / "out").rglob(".*")] and not [p for p in tmp_path.glob(".*")]


def test_a_day_is_added_only_to_a_data_set_and_only_if_the_log_has_it(tmp_path):
    write(tmp_path / "log.csv", log_rows())
    with pytest.raises(UserError, match="Received"):
        convert(str(tmp_path / "log.csv"), SCHEMA, ROLES, str(tmp_path / "out"), how=Options(since="20220426"))
    assert [p.name for p in tmp_path.iterdir()] == ["log.csv"]
    convert(str(tmp_path / "log.csv"), SCHEMA, ROLES, str(tmp_path / "out"))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match="--since must be a day of the log. Received: '20220430'"):
        convert(str(tmp_path / "log.csv"), SCHEMA, ROLES, str(tmp_path / "out"), how=Options(since="20220430"))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(("train_days", "wanted"), [("", {1, 2}), ("20220426", {2}), ("20220425..20220427", {1, 2, 3})])
def test_vocabularies_are_of_the_training_days_only(tmp_path, train_days, wanted):
    rows = [{"t": START + day * DAY + i, "uid": i, "vid": day + 1, "click": 0} for day in range(3) for i in range(4)]
    write(tmp_path / "log.csv", rows)
    convert(str(tmp_path / "log.csv"), SMALL, Roles("t", "uid", "vid"), str(tmp_path / "out"),
            how=Options(train_days=train_days))
    assert set(pbtxt.load(tmp_path / "out").features[0].vocabulary) == wanted


def varied(count=1500):
    """A log with one column for each rule of `suggest`."""
    rng = random.Random(0)
    return [
        {
            "ts": START + i * 60_000, "uid": (u := rng.randrange(40)), "vid": (v := rng.randrange(60)),
            "is_click": rng.randrange(2), "skip": int(rng.random() < 0.2), "flag": rng.randrange(2),
            "watch_time": rng.randrange(60_000), "city": f"city {u % 7}", "age": 20 + u, "fans_count": 10 ** (u % 7),
            "category": "abc"[v % 3], "item_ctr": round(v / 60, 3), "price": 2.0 ** (v % 17), "balance": u - 20.5,
            "tags": [f"t{v}", "common"][: 1 + v % 2], "session": f"s{i}", "hour": i // 60 % 24, "empty": None,
        }
        for i in range(count)
    ]


def proposed(path, *others):
    with connect("duckdb", path.parent / "out") as engine:
        paths = [path, *(path.with_name(name) for name in others)]
        return suggest(engine, open_log(engine, paths), "ts", "uid", "vid")


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_the_schema_that_is_proposed(tmp_path, ending):
    rows = varied()
    path = write(tmp_path / f"log{ending}", rows, {"tags": pa.list_(pa.string()), "empty": pa.string()})
    schema, why = proposed(path)
    assert {t.name: (t.label, t.negative) for t in schema.tasks} == {
        "click": ("is_click", False), "skip": ("skip", True)}
    assert schema.targets == ("watch_time",)
    assert schema.keys == {"user": "uid", "item": "vid", "time": "ts"}
    found = {f.name: f for f in schema.features}
    assert {n: (found[n].dtype, found[n].side, found[n].cause) for n in found if n not in {c.name for c in COUNTERS}} \
        == {
            "uid": ("int", "user", "content"), "vid": ("int", "item", "content"), "city": ("string", "user", "content"),
            "age": ("int", "user", "content"), "fans_count": ("float", "user", "statistical"),
            "category": ("string", "item", "content"), "item_ctr": ("float", "item", "statistical"),
            "price": ("float", "item", "content"), "balance": ("float", "user", "content"),
            "tags": ("string", "item", "content"),
            "hour": ("int", "context", "context"), "flag": ("int", "context", "context"),
        }
    assert {n: f.transform for n, f in found.items() if n in ("fans_count", "item_ctr", "price", "balance")} == {
        "fans_count": "log1p", "item_ctr": "logit", "price": "log1p", "balance": ""}
    assert "left out: the id of a request or a session" in why["session"]
    assert not found["city"].hashed and found["city"].min_count == 1
    assert (found["tags"].max_length, found["city"].max_length) == (2, 1)
    assert {"user_clicks", "user_click_rate", "video_impressions"} <= set(found) and "user_likes" not in found
    assert set(why) == set(rows[0]) - {"ts"} | (set(found) - set(rows[0])) and "left out" in why["empty"]
    assert pbtxt.loads(pbtxt.dumps(schema)) == schema
    statistics = convert(str(path), schema, ROLES, str(tmp_path / "out"))
    assert sum(day["rows"] for day in statistics["days"].values()) == 1500


@pytest.mark.parametrize("name", ["play_time", "play_time_ms", "play_s", "watch_ms", "dwell_time_s", "stay_seconds"])
def test_time_that_was_spent_is_proposed_as_a_target(tmp_path, name):
    rows = [{n: row[n] for n in ("ts", "uid", "vid", "is_click")} | {name: row["watch_time"]} for row in varied(50)]
    schema, why = proposed(write(tmp_path / "log.csv", rows))
    assert schema.targets == (name,) and "a target" in why[name]


@pytest.mark.parametrize(("names", "message"), [
    (["ts", "uid", "vid", "city"], "must have feedback.*Received columns: .*'city'"),
    (["ts", "uid", "is_click"], "has no column 'vid'. Received columns"),
    (["ts", "uid", "vid", "is_click"], "must have rows. Received: none"),
])
def test_no_schema_is_proposed_without_feedback_keys_or_rows(tmp_path, names, message):
    types = {n: pa.int64() for n in names} | {"city": pa.string()}
    rows = [{n: row[n] for n in names} for row in varied(5)]
    path = write(tmp_path / "log.parquet", rows, types)
    if "rows" in message:
        pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(UserError, match=message):
        proposed(path)


# Columns that counters calculate with.

@pytest.mark.parametrize(("name", "dtype", "rule"), [
    *((name, dtype, "must be FLOAT in the schema.*as seconds") for name in ("duration_s", "play_s")
      for dtype in ("string", "int")),
    *((name, dtype, "must be a label or a mask in the schema.*as 0 or 1")
      for name in ("click", "like", "long_view", "profile_enter") for dtype in ("string", "float")),
])
def test_what_counters_calculate_with_has_its_type(tmp_path, name, dtype, rule):
    write(tmp_path / "log.csv", [row | {name: "NA"} for row in named(fed())])
    how = {} if dtype == "float" else {"width": 2, "min_count": 1}
    schema = Schema("c", (*COUNTED.features, Feature(name, dtype, "item", "content", **how)),
                    (Task("clicked", label="is_click"),))
    with pytest.raises(UserError, match=f"column '{name}' {rule}.*Received: .*'{dtype}'"):
        convert(str(tmp_path / "log.csv"), schema, AT, str(tmp_path / "out"))
    assert [p.name for p in tmp_path.iterdir()] == ["log.csv"]


# Lists.

@pytest.mark.parametrize("text", ["t3|t3", "a,b", "a; b", "[a, b]", "['a', 'b']"])
def test_a_list_in_text_that_is_none_says_how_lists_are_written(tmp_path, text):
    rows = log_rows()
    rows[3] |= {"tags": text}
    write(tmp_path / "log.csv", rows)
    with pytest.raises(UserError, match=r"'tags' must be a list of texts as JSON, such as \["
                                        r"\"a\", \"b\"\], or separated by spaces. Received") as error:
        convert(str(tmp_path / "log.csv"), SCHEMA, ROLES, str(tmp_path / "out"))
    assert f"Received: {text}. 1 of 32 rows" in str(error.value)


def test_rows_with_longer_lists_than_the_reader_keeps_are_counted(tmp_path, capsys):
    rows = log_rows()
    for row, count in zip(rows, (5, 4, 9, 0), strict=False):
        row["tags"] = ["a"] * count
    write(tmp_path / "log.parquet", rows)
    convert(str(tmp_path / "log.parquet"), SCHEMA, ROLES, str(tmp_path / "out"))
    said = capsys.readouterr().out
    assert "'tags': 2 rows have more than 4 values (value_count max), of which the reader keeps the first 4" in said
    assert "column 'seen'" not in said
    assert read_all(tmp_path / "out") == kept(rows, keyed())  # the data set has all of them


# Days that are added.

@pytest.mark.parametrize("change", ["utc_offset", "unit", "random", "schema"])
@pytest.mark.parametrize("computed", [False, True])
def test_days_are_added_by_the_clock_and_the_schema_of_the_data_set(tmp_path, computed, change):
    rows = [row | {"rnd": 0} for row in named(fed())]
    write(tmp_path / "log.parquet", rows, {})
    schema = COUNTED if computed else COUNTED.select(features=["uid", "video_id", "note"])
    roles = dataclasses.replace(AT, random="rnd")
    convert(str(tmp_path / "log.parquet"), schema, roles, str(tmp_path / "out"))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    if change == "schema":
        note = dataclasses.replace(next(f for f in schema.features if f.name == "note"), width=9)
        schema = dataclasses.replace(schema, features=(*schema.select(without=["note"]).features, note))
        message = r"out was written with another schema.*run without --since.*Received: different \['note'\]"
    else:
        roles = dataclasses.replace(roles, **{change: {"utc_offset": 8, "unit": "s", "random": ""}[change]})
        message = r"out was written with --(utc_offset=0|time_unit=ms|random=rnd),.*Received: --\w+=(8|s|)\."
    with pytest.raises(UserError, match=message):
        convert(str(tmp_path / "log.parquet"), schema, roles, str(tmp_path / "out"), how=Options(since="20220427"))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("schema", [COUNTED, COUNTED.select(features=["uid", "video_id", "note"])])
def test_to_add_a_day_to_nothing_is_refused_with_advice(tmp_path, schema):
    write(tmp_path / "log.csv", named(fed()))
    with pytest.raises(UserError, match="--since adds days to a data set: run without --since first. Received: .*out"):
        convert(str(tmp_path / "log.csv"), schema, AT, str(tmp_path / "out"), how=Options(since="20220427"))
    assert [p.name for p in tmp_path.iterdir()] == ["log.csv"]


@pytest.mark.parametrize("computed", [False, True])
def test_rows_of_days_before_since_are_counted(tmp_path, capsys, computed):
    rows = named(fed())
    schema = COUNTED if computed else COUNTED.select(features=["uid", "video_id", "note"])
    write(tmp_path / "log.csv", rows)
    convert(str(tmp_path / "log.csv"), schema, AT, str(tmp_path / "out"))
    assert "not written" not in capsys.readouterr().out
    write(tmp_path / "log.csv", [*rows[40:], rows[0] | {"note": 98}])
    convert(str(tmp_path / "log.csv"), schema, AT, str(tmp_path / "out"), how=Options(since="20220427"))
    said = capsys.readouterr().out
    assert "21 rows read" in said and "1 rows of days before --since=20220427 are not written" in said
    assert "replaces the data set" not in said


# Before the work.

@pytest.mark.parametrize("schema", [COUNTED, COUNTED.select(features=["uid", "video_id", "note"])])
@pytest.mark.parametrize("days", ["2024", "20220425..20220431"])
def test_training_days_that_are_none_are_refused_before_any_day_is_written(tmp_path, capsys, schema, days):
    write(tmp_path / "log.csv", named(fed()))
    with pytest.raises(UserError, match=f"days '{days}' must name days.*Known: .*20220427"):
        convert(str(tmp_path / "log.csv"), schema, AT, str(tmp_path / "out"), how=Options(train_days=days))
    assert "shards" not in capsys.readouterr().out


def test_a_data_set_that_is_replaced_is_named(tmp_path, capsys):
    write(tmp_path / "log.csv", log_rows())
    for said in (False, True):
        convert(str(tmp_path / "log.csv"), SCHEMA, ROLES, str(tmp_path / "out"))
        assert (f"replaces the data set of 2 splits at {tmp_path / 'out'}" in capsys.readouterr().out) == said


@pytest.mark.parametrize(("text", "known"), [
    ("20220425..20220430", False), ("20220401..20220427", False), ("2022..2023", False), ("20220427..20220425", False),
    ("20220425..20220427_random", False), ("20220425..20220427", True), ("20220427..20220427", True),
])
def test_both_ends_of_a_range_are_days(text, known):
    days = ["20220425", "20220426", "20220427", "20220427_random"]
    if known:
        assert manifest.parse_days(text, days) == [d for d in days[:3] if text[:8] <= d <= text[-8:]]
    else:
        with pytest.raises(UserError, match=f"days '{text}' must name days of the data set, a range two.*Known"):
            manifest.parse_days(text, days)


# Messages.

@pytest.mark.parametrize("role", ["time", "user", "item", "random"])
def test_a_role_of_a_column_that_the_log_lacks_names_it(tmp_path, role):
    write(tmp_path / "log.csv", log_rows())
    schema = dataclasses.replace(SCHEMA, keys={"time": "ts", "user": "uid", "item": "vid"})
    with pytest.raises(UserError, match=r"log\.csv has no column 'tss'\. Received columns"):
        convert(str(tmp_path / "log.csv"), schema, dataclasses.replace(ROLES, **{role: "tss"}), str(tmp_path / "out"))


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_a_bad_value_and_a_broken_line_name_their_file(tmp_path, ending):
    rows = log_rows()
    for part in range(5):
        write(tmp_path / f"{part}{ending}", [row | ({"age": 2.0**70} if part == 3 else {}) for row in rows[part::5]],
              TYPES | {"age": pa.float64()})
    with pytest.raises(UserError, match=rf"^{tmp_path}/3{ending}: column 'age' must be .*Received: .* 6 of 32 rows"):
        convert(str(tmp_path / f"*{ending}"), SCHEMA, ROLES, str(tmp_path / "out"))
    if ending == ".csv":
        path = tmp_path / "2.csv"
        path.write_text(path.read_text() + "1,2,3\n")
        for run in (lambda: convert(str(tmp_path / "*.csv"), SCHEMA, ROLES, str(tmp_path / "out")),
                    lambda: proposed(path, "1.csv")):
            with pytest.raises(UserError, match=r"line \d+ of .*/2\.csv, '1,2,3': .*Columns: 15 Found: 3$"):
                run()


def test_what_is_wrong_is_said_once(tmp_path):
    write(tmp_path / "log.csv", log_rows())
    with pytest.raises(UserError) as error:
        pbtxt.load(tmp_path / "nothing")
    assert str(error.value).count("cannot be read") == str(error.value).count("Received") == 1
    done = command(
        "pipelines.from_logs", f"--logs={tmp_path / 'log.csv'}", "--time=ts", "--user=uid", "--item=vid",
        f"--schema={tmp_path / 'my.pbtxt'}", f"--out={tmp_path / 'out'}",
    )
    assert done.returncode == 1 and f"error: {tmp_path / 'my.pbtxt'} cannot be read. Received" in done.stderr
    (tmp_path / "log.jsonl.gz").write_bytes(gzip.compress(b'{"ts": 1}\n' * 999)[:-12])
    with pytest.raises(UserError) as error:
        convert(str(tmp_path / "log.jsonl.gz"), SCHEMA, ROLES, str(tmp_path / "out"))
    assert str(error.value).count("Received") == 1


def test_what_is_no_feature_is_left_out_of_the_proposal_with_the_reason(tmp_path):
    rows = [
        {n: row[n] for n in ("ts", "uid", "vid", "is_click")}
        | {"is_rand": row["flag"], "floats": [0.5, 1.0], "object": {"a": i}, "split": "x", "duration_s": float(i % 9),
           "empty": None}
        for i, row in enumerate(varied(50))
    ]
    reasons = {"is_rand": "--random=is_rand", "floats": "a list of decimals", "object": "object|STRUCT",
               "split": "one of ours", "empty": "no values"}
    for ending in (".parquet", ".jsonl"):
        path = write(tmp_path / f"log{ending}", rows, {"empty": pa.string()})
        schema, why = proposed(path)
        names = {f.name: f for f in schema.features}
        assert not names.keys() & reasons.keys() and names["duration_s"].is_numeric
        for name, reason in reasons.items():
            assert re.search(f"left out: .*({reason})", why[name]), why[name]
        convert(str(path), schema, ROLES, str(tmp_path / "out"))
    for lists in (lambda v: f"[{', '.join(v)}]", str):
        names = ("ts", "uid", "vid", "is_click", "tags")
        given = [{n: row[n] for n in names} | {"duration_s": "NA"} for row in varied(50)]
        schema, why = proposed(write(tmp_path / "log.csv", given, lists=lists))
        assert re.search(r'left out: lists that are not JSON such as \["a", "b"\]. Received: \[.?t\d', why["tags"])
        assert "left out: counters read it as seconds" in why["duration_s"]


def test_commands(tmp_path):
    """Propose a schema, convert with it; a flag's other name; one message for what is wrong."""
    write(tmp_path / "s" / "log.csv", [row | {"ts": row["ts"] // 1000} for row in varied(200)])

    def from_logs(*flags):
        roles = ["--time=ts", "--user=uid", "--item=vid", "--time_unit=s", f"--schema={tmp_path / 'my.pbtxt'}"]
        return command("pipelines.from_logs", f"--logs={tmp_path / 's' / '*.csv'}", *roles, *flags)

    done = from_logs("--suggest_schema")
    assert done.returncode == 0, done.stderr
    assert "is_click: a task" in done.stdout and "my.pbtxt: read it, correct it" in done.stdout
    again = from_logs("--suggest_schema")
    assert again.returncode == 1 and again.stderr.count("error: ") == 1 and "Traceback" not in again.stderr
    done = from_logs(f"--out={tmp_path / 'out'}", "--layout=block", "--compression=GZIP", "--workers=1")
    assert done.returncode == 0, done.stderr
    assert "200 rows read, 0 skipped, 0 exact duplicates dropped" in done.stdout
    assert "200 rows of 1 splits are in" in done.stdout
    found = manifest.read_manifest(tmp_path / "out", "20220425")
    assert (found.layout, found.compression, found.rows) == ("block", "GZIP", 200)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my.pbtxt", "out", "s"]
