"""Damaged logs, full disks and killed processes: one message, exact counts, and never a part of a data set."""

import errno
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dlen_cam2.data import manifest
from dlen_cam2.schema import Feature, Schema
from dlen_cam2.utils import files
from dlen_cam2.utils.errors import UserError
from pipelines import check
from pipelines.features import point_in_time
from pipelines.from_logs import Roles, convert
from pipelines.options import Options
from pipelines.writer import dataset
from tests.support.builders import ROOT
from tests.support.damaged_logs import ROLES, SCHEMA, forked
from tests.support.logs import DAY, START, kept, keyed, read_all, write

IDS = tuple(f for f in SCHEMA.features if f.name in ("uid", "vid"))
TYPES = {"seen": pa.list_(pa.int64()), "city": pa.string(),
         **dict.fromkeys(("duration_s", "ctr", "play_s"), pa.float64())}
ROWS = 20


def log_rows():
    return [
        {"ts": START + i * DAY // 10, "uid": i % 4, "vid": 10 + i, "age": 20 + i, "city": f"city {i % 3}",
         "seen": [1, 2], "duration_s": 10.5, "ctr": 0.25, "is_click": i % 2, "play_s": float(i)}
        for i in range(ROWS)
    ]


# What is done to a log.

Damage = Callable[[pathlib.Path, str], list[int]]  # (directory, ending) -> the rows that are bad


def cell(column, value, rows=(3, 12), dtype=None) -> Damage:
    """Put `value` into some rows."""
    def damage(directory, ending):
        log = log_rows()
        for row in rows:
            log[row][column] = value
        write(directory / f"log{ending}", log, TYPES | ({column: dtype} if dtype else {}))
        return list(rows)
    return damage


def column(name, change, dtype=None) -> Damage:
    """Change a column in every row; all rows are bad."""
    def damage(directory, ending):
        log = [row | {name: change(row[name])} for row in log_rows()]
        write(directory / f"log{ending}", log, TYPES | {name: dtype})
        return list(range(ROWS))
    return damage


def content(change, bad=()) -> Damage:
    """Change the file's bytes."""
    def damage(directory, ending):
        path = write(directory / f"log{ending}", log_rows(), TYPES)
        path.write_bytes(change(path.read_bytes()))
        return list(bad)
    return damage


def line(number, change, bad=()) -> Damage:
    """Change one line; the first is number 0."""
    def lines(data):
        found = data.decode().split("\n")
        found[number] = change(found[number])
        return "\n".join(found).encode()
    return content(lines, bad)


def rows(change, bad=()) -> Damage:
    def damage(directory, ending):
        write(directory / f"log{ending}", change(log_rows()), TYPES)
        return list(bad)
    return damage


def beside(name, make) -> Damage:
    """Another file beside a good one."""
    def damage(directory, ending):
        write(directory / f"log{ending}", log_rows(), TYPES)
        make(directory / name)
        return []
    return damage


def other(change):
    return lambda path: write(path, [change(row) for row in log_rows()], TYPES)


def without(name):
    return lambda row: {n: v for n, v in row.items() if n != name}


def parquet_of(change) -> Damage:
    def damage(directory, ending):
        path = write(directory / f"log{ending}", log_rows(), TYPES)
        pq.write_table(change(pq.read_table(path)), path)
        return []
    return damage


def renamed(old, new) -> Damage:
    return rows(lambda log: [{new if n == old else n: v for n, v in row.items()} for row in log])


def nothing(directory, ending):
    return []


def doubled_names(table):
    return pa.Table.from_arrays([*table.columns, table.column("is_click")], [*table.column_names, "is_click"])


def garbage_footer(data):
    length = int.from_bytes(data[-8:-4], "little")
    return data[: -8 - length] + b"\x07" * length + data[-8:]


def one_more(data, name, value):
    """A CSV with another column at the end."""
    lines = data.decode().splitlines()
    return "\n".join([f"{lines[0]},{name}", *[f"{text},{value}" for text in lines[1:]], ""]).encode()


class Case(NamedTuple):
    """One damaged log.

    Attributes:
        ending: the format.
        damage: makes the log, and says which rows are bad.
        message: what the error says.
        rule: how the rule begins by which bad rows are counted when they are skipped; "": the whole log cannot be used.
    """

    ending: str
    damage: Damage
    message: str
    rule: str = ""


def bad_cell(ending, name, value, text, received, **how):
    rule = f"column '{name}' must be {text}"
    message = re.escape(f"log{ending}: {rule}") + r"[^.]*\. " + re.escape(f"Received: {received}")
    return Case(ending, cell(name, value, **how), message, rule)


INTEGER, NUMBER, LIST = "an integer within 64 bits", "a finite number", "a list of "
TIME = "a time from 2000-01-01 to now (unit ms; see --time_unit)"
POSITIVE, RATE = "a finite number in [0, inf]", "a finite number in [0, 1]"
HEADER = "ts,uid,vid,age,city,seen,duration_s,ctr,is_click,play_s"
P, C, J = ".parquet", ".csv", ".jsonl"


def unreadable(ending):
    return rf"log{re.escape(ending)} cannot be read\. Received: "


CASES = {
    # Files.
    "truncated Parquet": Case(P, content(lambda b: b[: len(b) // 2]), unreadable(P)),
    "Parquet that lost its first half": Case(P, content(lambda b: b[len(b) // 2 :]), unreadable(P)),
    "empty Parquet file": Case(P, content(lambda b: b""), unreadable(P)),
    "empty CSV file": Case(C, content(lambda b: b""), r"log\.csv .*Received"),
    "empty JSON file": Case(J, content(lambda b: b""), r"log\.jsonl .*Received"),
    "Parquet with a footer of garbage": Case(P, content(garbage_footer), unreadable(P)),
    "Parquet with a page of garbage": Case(P, content(lambda b: b[:8] + b"\xff" * 400 + b[408:]), unreadable(P)),
    "CSV that is called Parquet": Case(P, content(lambda b: b"ts,uid,vid\n1,2,3\n"), unreadable(P)),
    "Parquet that is called CSV": Case(C, beside("log.csv", lambda p: pq.write_table(
        pa.table({"ts": [1]}), p)), r"log\.csv .*Received"),
    "text that is called .csv.gz": Case(".csv.gz", content(lambda b: b"ts,uid,vid\n1,2,3\n"), unreadable(".csv.gz")),
    "truncated gzip": Case(".csv.gz", content(lambda b: b[:-40]), unreadable(".csv.gz")),
    "Latin-1": Case(C, content(lambda b: b.replace(b"city 2", b"K\xf6ln")), unreadable(C)),
    "UTF-16": Case(C, content(lambda b: b.decode().encode("utf-16")), r"log\.csv .*Received"),
    "one file UTF-8, one not": Case(C, beside("more.csv", lambda p: p.write_bytes(
        write(p, log_rows(), TYPES).read_bytes().replace(b"city 2", b"K\xf6ln"))),
        r"more\.csv cannot be read.*Received"),
    "Latin-1 in JSON": Case(J, content(lambda b: b.replace(b"city 2", b"K\xf6ln")), unreadable(J)),
    "zero bytes at the end, as a crash leaves them": Case(C, content(lambda b: b + b"\0" * 512), r"log\.csv.*Received"),
    "unclosed quote": Case(C, line(5, lambda s: s.replace("city", '"city')), unreadable(C)),
    "unclosed quote in the last line": Case(C, line(20, lambda s: s.replace("city", '"city')), unreadable(C)),
    **{f"line {n} has too few fields": Case(C, line(n, lambda s: s.rsplit(",", 2)[0]),
                                              unreadable(C) + rf"line {n + 1} of .*log\.csv, .*Found: 8$")
       for n in (1, 2, 10, 20)},
    **{f"line {n} has too many fields": Case(C, line(n, lambda s: s + ",1"), unreadable(C)) for n in (1, 2, 10, 20)},
    "cut off in a line": Case(C, content(lambda b: b[:-25]), unreadable(C)),
    "no header": Case(C, content(lambda b: b.split(b"\n", 1)[1]),
                      r"log\.csv .*; the first line of a CSV file must name its columns\. Received"),
    "a header with a name too few": Case(C, line(0, lambda s: s.rsplit(",", 1)[0]), r"log\.csv .*Received"),
    "header twice": Case(C, line(9, lambda s: f"{HEADER}\n{s}"), r"log\.csv: column 'ts' .*Received: ts",
                         f"column 'ts' must be {TIME}"),
    "a column's name twice": Case(C, content(lambda b: one_more(b, "is_click", 1)), "log.csv.*is_click.*Received"),
    "a column's name twice in Parquet": Case(P, parquet_of(doubled_names), "log.parquet.*is_click.*Received"),
    "names that differ in case": Case(C, line(0, lambda s: s.replace("age", "CITY")), "(log.csv|'age').*Received"),
    "missing column": Case(C, rows(lambda log: [without("ctr")(row) for row in log]),
                           r"log\.csv has no column 'ctr'\. Received columns: \['age'"),
    "missing time": Case(P, rows(lambda log: [without("ts")(row) for row in log]),
                         r"log\.parquet has no column 'ts'\. Received columns"),
    "a column that no JSON object has": Case(J, rows(lambda log: [without("ctr")(row) for row in log]),
                                             r"log\.jsonl has no column 'ctr'\. Received columns"),
    "files with different columns": Case(C, beside("more.csv", other(without("city"))),
                                         r"more\.csv must have the columns of .*log\.csv\. Received: .*'city'"),
    "files with different types": Case(P, beside("more.parquet", other(lambda row: row | {"age": str(row["age"])})),
                                       r"more\.parquet must have the columns' types of .*log\.parquet\. Received: "
                                       r"'age' is VARCHAR in more\.parquet, and BIGINT in log\.parquet"),
    "formats mixed": Case(C, beside("more.jsonl", other(dict)), "in one format. Received: .*'more.jsonl'"),
    "unknown ending": Case(".txt", content(lambda b: b), r"must all end in one of .*Received: \['log\.txt'\]"),
    "a directory only": Case(C, lambda directory, ending: (directory / "log.csv").mkdir(parents=True) or [],
                             "--logs must match at least one file. Received"),
    "no file": Case(C, nothing, "--logs must match at least one file. Received: .*log"),
    "no rows": Case(P, parquet_of(lambda table: table.slice(0, 0)), "must be rows.*Received: none"),
    "no rows but a header": Case(C, content(lambda b: b.split(b"\n")[0] + b"\n"), "Received"),
    # JSON lines.
    "broken JSON": Case(J, line(7, lambda s: s[:-9]), unreadable(J)),
    "broken JSON in the last line": Case(J, content(lambda b: b[:-9]), unreadable(J)),
    "JSON that is no object": Case(J, line(7, lambda s: "[1, 2]"), unreadable(J) + "line 8, .* an object: '.1, 2.'"),
    "JSON in one list": Case(J, content(lambda b: b"[" + b",".join(b.split(b"\n")[:-1]) + b"]\n"),
                             unreadable(J) + "line 1, where each must be an object: '.{"),
    "a name twice in an object": Case(J, line(7, lambda s: s.replace('"age"', '"vid"')), r"log\.jsonl.*Received"),
    "an empty object": Case(J, line(7, lambda s: "{}", [7]),
                            re.escape(f"column 'ts' must be {TIME}. Received: nothing"), f"column 'ts' must be {TIME}"),
    "a list for a number": bad_cell(J, "uid", [5], INTEGER, "[5]"),
    "an object for a number": bad_cell(J, "age", {"years": 5}, INTEGER, '{"years":'),
    "an object in a list": bad_cell(J, "seen", [1, {"a": 2}], LIST, '[1,'),
    "a number for a list": bad_cell(J, "seen", {"a": [1]}, LIST, '{"a":'),
    "text for a number": bad_cell(J, "duration_s", "long", POSITIVE, "long"),
    # Types of Parquet that are not those of the schema.
    "a list column for a number": Case(P, column("age", lambda v: [v], pa.list_(pa.int64())), "'age'.*Received"),
    "a number column for a list": Case(P, column("seen", lambda v: 7, pa.int64()), "'seen'.*Received"),
    "a timestamp column for a number": Case(P, column("duration_s", lambda v: 7, pa.timestamp("ms")),
                                            "'duration_s'.*Received"),
    "a timestamp column for an integer": Case(P, column("age", lambda v: 7, pa.timestamp("ms")), "'age'.*Received"),
    "a date column for text": Case(P, column("city", lambda v: 7, pa.date32()), "'city'.*Received"),
    "a struct column for text": Case(P, column("city", lambda v: {"a": 1}, pa.struct([("a", pa.int64())])),
                                     "'city'.*Received"),
    "a struct column for a number": Case(P, column("ctr", lambda v: {"a": 1}, pa.struct([("a", pa.int64())])),
                                         "'ctr'.*Received"),
    "bytes for text": Case(P, column("city", lambda v: b"\xff\xfe", pa.binary()), "'city'.*Received"),
    "lists of numbers with decimals": Case(P, column("seen", lambda v: [1.5], pa.list_(pa.float64())),
                                           "'seen'.*Received"),
    "a struct column for time": Case(P, column("ts", lambda v: {"a": 1}, pa.struct([("a", pa.int64())])),
                                     "'ts'.*Received"),
    "true for time": Case(P, column("ts", lambda v: True, pa.bool_()), "'ts'.*Received"),
    # Values.
    "an id beyond 64 bits as text": bad_cell(C, "uid", 2**63, INTEGER, "9223372036854775808"),
    "an id beyond 64 bits below": bad_cell(C, "vid", -(2**63) - 1, INTEGER, "-9223372036854775809"),
    "an id beyond 64 bits in JSON": bad_cell(J, "uid", 10**20, INTEGER, "1"),
    "an id beyond 64 bits as uint64": bad_cell(P, "uid", 2**63, INTEGER, "9223372036854775808", dtype=pa.uint64()),
    "1e20 for an id": bad_cell(P, "vid", 1e20, INTEGER, "1e+20", dtype=pa.float64()),
    "a list with an id beyond 64 bits": bad_cell(C, "seen", [1, 2**64], LIST, "[1, 184467"),
    "1.5 for an integer": bad_cell(C, "age", "1.5", INTEGER, "1.5"),
    "1e3 for an integer": bad_cell(C, "age", "1e3", INTEGER, "1e3"),
    "1.5 for an integer in JSON": bad_cell(J, "age", 1.5, INTEGER, "1.5"),
    "3.7 for an integer": bad_cell(P, "age", 3.7, INTEGER, "3.7", dtype=pa.float64()),
    "NaN for a key": bad_cell(P, "uid", float("nan"), INTEGER, "nan", dtype=pa.float64()),
    "text for an integer": bad_cell(C, "age", "old", INTEGER, "old"),
    "a key that is null": bad_cell(P, "uid", None, INTEGER, "nothing"),
    "a key that is empty": bad_cell(C, "vid", None, INTEGER, "nothing"),
    "a key that JSON has as null": bad_cell(J, "vid", None, INTEGER, "nothing"),
    "a negative duration": bad_cell(P, "duration_s", -1.0, POSITIVE, "-1.0"),
    "a rate above 1": bad_cell(C, "ctr", 1.2, RATE, "1.2"),
    "NaN for a number": bad_cell(P, "play_s", float("nan"), NUMBER, "nan"),
    "NaN for a rate": bad_cell(C, "ctr", "nan", RATE, "nan"),
    "infinity": bad_cell(P, "duration_s", float("inf"), POSITIVE, "inf"),
    "infinity as text": bad_cell(C, "play_s", "-Infinity", NUMBER, "-Infinity"),
    "a number beyond what is stored": bad_cell(P, "play_s", 1e39, NUMBER, "1e+39"),
    "a number beyond what is stored, as text": bad_cell(C, "duration_s", "1e300", POSITIVE, "1e300"),
    "a number that is null": bad_cell(P, "duration_s", None, POSITIVE, "nothing"),
    "a number that is empty": bad_cell(C, "play_s", None, NUMBER, "nothing"),
    "label 2": bad_cell(P, "is_click", 2, "0 or 1", "2"),
    "label -1 in CSV": bad_cell(C, "is_click", -1, "0 or 1", "-1"),
    "label 0.5": bad_cell(P, "is_click", 0.5, "0 or 1", "0.5", dtype=pa.float64()),
    "label yes": bad_cell(C, "is_click", "yes", "0 or 1", "yes"),
    "label null": bad_cell(P, "is_click", None, "0 or 1", "nothing"),
    "label null in JSON": bad_cell(J, "is_click", None, "0 or 1", "nothing"),
    "time null": bad_cell(P, "ts", None, TIME, "nothing"),
    "time negative": bad_cell(P, "ts", -5, TIME, "-5"),
    "time beyond 64 bits": bad_cell(C, "ts", 10**30, TIME, "1000000"),
    "time far in the future": bad_cell(C, "ts", START + 1000 * DAY, TIME, str(START + 1000 * DAY)),
    "time at the end of 64 bits": bad_cell(P, "ts", 2**63 - 1, TIME, str(2**63 - 1)),
    "time before 2000": bad_cell(C, "ts", "1999-12-31 23:59:59", TIME, "1999-12-31"),
    "time that is no time": bad_cell(C, "ts", "2022-02-30", TIME, "2022-02-30"),
    "time of the day only": bad_cell(C, "ts", "12:30:00", TIME, "12:30:00"),
    "some times in seconds": bad_cell(P, "ts", START // 1000, TIME, str(START // 1000)),
    "times in seconds": Case(P, column("ts", lambda t: t // 1000, pa.int64()),
                             r"column 'ts' must be .*unit ms.*Received: \d+\. 20 of 20 rows"),
    "a list with null": bad_cell(P, "seen", [1, None], LIST, "[1, NULL]"),
    "a list with null in JSON": bad_cell(J, "seen", [None, 1], LIST, "[null,"),
    "a list with text": bad_cell(C, "seen", '[1, "x"]', LIST, '[1, "x"]'),
    "a list with text between spaces": bad_cell(C, "seen", "1 x", LIST, "1 x"),
    "a list with other signs between": bad_cell(J, "seen", "1|2", LIST, "1|2"),
    "a list with decimals": bad_cell(C, "seen", "1 2.5", LIST, "1 2.5"),
    "a list that is not closed": bad_cell(C, "seen", "[1, 2", LIST, "[1, 2"),
}


def attempt(tmp_path, case, policy):
    source = tmp_path / "in"
    source.mkdir()
    bad = CASES[case].damage(source, CASES[case].ending)
    return bad, lambda: convert(str(source / "*"), SCHEMA, ROLES, str(tmp_path / "out"), policy)


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_log_is_one_message_and_leaves_nothing(tmp_path, case):
    _, run = attempt(tmp_path, case, "fail")
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    with pytest.raises(UserError, match=f"(?s){CASES[case].message}") as error:
        run()
    assert "Received" in str(error.value) and len(str(error.value)) < 1500
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if case.rule])
def test_bad_rows_are_skipped_and_counted_and_the_good_ones_kept(tmp_path, case):
    bad, run = attempt(tmp_path, case, "skip")
    source = run()["source"]
    count = len(bad) or 1
    ((rule, skipped),) = source["rows_skipped"].items()
    assert rule.startswith(CASES[case].rule) and skipped == count
    assert source["rows_read"] == ROWS + (not bad) and source["rows_repeated"] == 0
    wanted = [row for i, row in enumerate(log_rows()) if i not in bad]
    assert read_all(tmp_path / "out") == kept(wanted, keyed(SCHEMA))


WHOLE = ["truncated Parquet", "Latin-1", "unclosed quote", "line 10 has too few fields", "broken JSON",
         "times in seconds", "missing column"]


@pytest.mark.parametrize("case", WHOLE)
def test_what_cannot_be_read_is_not_skipped(tmp_path, case):
    _, run = attempt(tmp_path, case, "skip")
    with pytest.raises(UserError, match="Received"):
        run()
    assert not (tmp_path / "out").exists()


def test_each_rule_has_its_count_and_a_row_counts_once(tmp_path):
    log = log_rows()
    log[2] |= {"ts": None, "is_click": 5}
    log[5] |= {"uid": None}
    log[6] |= {"uid": None, "ctr": 7.0}
    log[19] |= {"ctr": -1.0}
    write(tmp_path / "log.parquet", log, TYPES)
    with pytest.raises(UserError, match="column 'uid' .* 2 of 20 rows break this rule, and 2 more rules are broken"):
        convert(str(tmp_path / "log.parquet"), SCHEMA, ROLES, str(tmp_path / "out"))
    found = convert(str(tmp_path / "log.parquet"), SCHEMA, ROLES, str(tmp_path / "out"), "skip")
    assert found["source"]["rows_skipped"] == {
        f"column 'uid' must be {INTEGER}": 2, f"column 'ts' must be {TIME}": 1, f"column 'ctr' must be {RATE}": 1}
    assert read_all(tmp_path / "out") == kept([r for i, r in enumerate(log) if i not in (2, 5, 6, 19)], keyed(SCHEMA))


@pytest.mark.parametrize("value", ["a. Received: b", "it's", "50%", "x" * 5000])
def test_a_message_quotes_any_value_and_counts_stay_right(tmp_path, value):
    cell("age", value)(tmp_path, ".csv")
    with pytest.raises(UserError, match="'age' must be an integer within 64 bits. Received: .*2 of 20 rows") as error:
        convert(str(tmp_path / "log.csv"), SCHEMA, ROLES, str(tmp_path / "out"))
    assert value[:50] in str(error.value) and len(str(error.value)) < 600
    found = convert(str(tmp_path / "log.csv"), SCHEMA, ROLES, str(tmp_path / "out"), "skip")
    assert found["source"]["rows_skipped"] == {f"column 'age' must be {INTEGER}": 2}


@pytest.mark.parametrize("value", [START / 1000 + 0.75, "1650844800.75"])
def test_decimals_of_a_time_are_refused_or_kept(tmp_path, value):
    """An event's milliseconds are not rounded away."""
    rows = [row | {"ts": value} for row in log_rows()[:1]]
    path = write(tmp_path / ("log.csv" if isinstance(value, str) else "log.parquet"), rows, TYPES)
    try:
        convert(str(path), SCHEMA, Roles("ts", "uid", "vid", unit="s"), str(tmp_path / "out"))
    except UserError as error:
        assert "'ts'" in str(error) and "Received" in str(error)
    else:
        assert [row["ts"] for row in read_all(tmp_path / "out")] == [START + 750]


# Names.

@pytest.mark.parametrize(("ending", "name"), [
    (P, "a;b"), (C, "a;b"), (J, "a;b"), (P, "it's"), (C, "it's"), (P, "größe (m²)"), (J, "a.b"), (P, "select"),
    (P, "rows"), (C, "time_ms"),
])
def test_any_printable_name_without_quotation_marks_is_a_columns(tmp_path, ending, name):
    features = tuple(f if f.name != "city" else Feature(name, "string", "user", "content", min_count=1, width=2)
                     for f in SCHEMA.features)
    schema = Schema("log", features, SCHEMA.tasks, SCHEMA.targets)
    log = [{name if n == "city" else n: v for n, v in row.items()} for row in log_rows()]
    write(tmp_path / f"log{ending}", log, TYPES)
    convert(str(tmp_path / f"log{ending}"), schema, ROLES, str(tmp_path / "out"))
    assert read_all(tmp_path / "out") == kept(log, keyed(schema))


@pytest.mark.parametrize("name", ["split", "broken", "time_ms", "new", "watched_number", "hour_ms", "user_logged"])
def test_a_name_that_is_also_ours_is_kept_or_refused_where_counters_are_computed(tmp_path, name):
    feature = Feature(name, "float", "context", "context")
    schema = Schema("log", (*IDS, feature, *point_in_time.COUNTERS), SCHEMA.tasks)
    log = [row | {name: i + 0.5} for i, row in enumerate(log_rows())]
    write(tmp_path / "log.csv", log, TYPES)
    try:
        convert(str(tmp_path / "log.csv"), schema, ROLES, str(tmp_path / "out"))
    except UserError as error:
        assert f"'{name}'" in str(error) and "Received" in str(error)
    else:
        found = read_all(tmp_path / "out")
        assert [row[name] for row in found] == [i + 0.5 for i in range(ROWS)]
        assert [row["user_impressions"] for row in found] == [float(i // 4) for i in range(ROWS)]


@pytest.mark.parametrize("ending", [P, C, J])
def test_a_name_with_a_quotation_mark_is_refused_where_it_is_read_and_ignored_where_not(tmp_path, ending):
    log = [row | {'say "hi"': "x"} for row in log_rows()]
    write(tmp_path / f"log{ending}", log, TYPES)
    convert(str(tmp_path / f"log{ending}"), SCHEMA, ROLES, str(tmp_path / "out"))
    assert read_all(tmp_path / "out") == kept(log, keyed(SCHEMA))
    feature = Feature('say "hi"', "string", "user", "content", min_count=1, width=2)
    schema = Schema("log", (*SCHEMA.features, feature), SCHEMA.tasks, SCHEMA.targets)
    with pytest.raises(UserError, match="name must be printable, without quotation marks. Received: 'say"):
        convert(str(tmp_path / f"log{ending}"), schema, ROLES, str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_a_directory_that_the_pattern_matches_is_passed_over(tmp_path):
    write(tmp_path / "in" / "log.csv", log_rows(), TYPES)
    (tmp_path / "in" / "other.csv").mkdir()
    convert(str(tmp_path / "in" / "*.csv"), SCHEMA, ROLES, str(tmp_path / "out"))
    assert read_all(tmp_path / "out") == kept(log_rows(), keyed(SCHEMA))


def test_duplicates_of_bad_rows_are_bad_rows(tmp_path):
    log = log_rows()
    log[4] |= {"is_click": 2}
    write(tmp_path / "log.csv", log + log[3:6] + log[4:5], TYPES)
    source = convert(str(tmp_path / "log.csv"), SCHEMA, ROLES, str(tmp_path / "out"), "skip")["source"]
    assert (source["rows_read"], source["rows_skipped"], source["rows_repeated"]) == (
        24, {"column 'is_click' must be 0 or 1": 3}, 2)


# What counters are made of is held to rules too.

@pytest.mark.parametrize(("name", "value"), [
    ("duration_s", "long"), ("play_s", "nan"), ("long_view", "2"), ("profile_enter", "yes"),
])
def test_a_column_that_counters_are_made_of_is_never_read_as_nothing(tmp_path, name, value):
    schema = Schema("log", (*IDS, *point_in_time.COUNTERS), SCHEMA.tasks)
    log = [without("play_s")(without("duration_s")(row)) | {name: value} for row in log_rows()]
    write(tmp_path / "log.csv", log, TYPES)
    with pytest.raises(UserError, match=f"'{name}'.*Received"):
        convert(str(tmp_path / "log.csv"), schema, ROLES, str(tmp_path / "out"))


def test_what_counters_go_by_may_be_text_where_only_equality_matters(tmp_path):
    given = {}
    for dtype, names in (("int", [0, 1]), ("string", ["home", "search"])):
        tab = Feature("tab", dtype, "context", "context", min_count=1, width=2)
        schema = Schema("log", (*IDS, tab, *point_in_time.COUNTERS), SCHEMA.tasks)
        write(tmp_path / "log.csv", [row | {"tab": names[i // 3 % 2]} for i, row in enumerate(log_rows())], TYPES)
        convert(str(tmp_path / "log.csv"), schema, ROLES, str(tmp_path / "out"))
        given[dtype] = [without("tab")(row) for row in read_all(tmp_path / "out")]
    assert given["int"] == given["string"]
    assert {row["user_tab_logged"] for row in given["int"]} == {0.0, 1.0, 2.0, 3.0}


@pytest.mark.parametrize("lost", [True, False])
def test_a_day_whose_snapshot_is_lost_is_not_passed_over(tmp_path, lost):
    """Else the counters of the added day would lack all of it; a process killed before it copied snapshots does so."""
    schema = Schema("log", (*IDS, *point_in_time.COUNTERS), SCHEMA.tasks)
    log = [without("play_s")(without("duration_s")(row)) for row in log_rows()]
    write(tmp_path / "old.csv", log, TYPES)
    write(tmp_path / "new.csv", [row | {"ts": row["ts"] + 2 * DAY} for row in log[:10]], TYPES)
    convert(str(tmp_path / "old.csv"), schema, ROLES, str(tmp_path / "out"))
    how = Options(since="20220427")
    if lost:
        shutil.rmtree(tmp_path / "out" / "snapshots" / "20220426")
        with pytest.raises(UserError, match="20220426"):
            convert(str(tmp_path / "new.csv"), schema, ROLES, str(tmp_path / "out"), how=how)
    else:
        convert(str(tmp_path / "new.csv"), schema, ROLES, str(tmp_path / "out"), how=how)
        assert read_all(tmp_path / "out")[-1]["user_impressions"] == 7.0  # of user 1: 5 of the old days and 2


def test_a_play_that_is_not_known_is_none_though_the_duration_is(tmp_path):
    schema = Schema("log", (*IDS, *(f for f in point_in_time.COUNTERS if f.name == "user_play_ratio")), SCHEMA.tasks)
    write(tmp_path / "log.csv", [without("play_s")(row) for row in log_rows()], TYPES)
    convert(str(tmp_path / "log.csv"), schema, ROLES, str(tmp_path / "out"))
    assert [row["user_play_ratio"] for row in read_all(tmp_path / "out")] == pytest.approx([0.3] * 20)


def test_a_title_above_the_header_is_refused_or_left_out(tmp_path):
    path = write(tmp_path / "log.csv", log_rows(), TYPES)
    path.write_bytes(b"Exported on Monday\n" + path.read_bytes())
    try:
        convert(str(path), SCHEMA, ROLES, str(tmp_path / "out"))
    except UserError as error:
        assert "log.csv" in str(error) and "Received" in str(error)
    else:
        assert read_all(tmp_path / "out") == kept(log_rows(), keyed(SCHEMA))


# Where the data set goes.

@pytest.mark.parametrize(("make", "message"), [
    (lambda p: p.write_text("mine"), "out must be a directory. Received: a file"),
    (lambda p: (p.mkdir(), (p / "mine.txt").write_text("mine")), r"out is not empty.*Received.*mine\.txt"),
    (lambda p: (p.parent / "real").symlink_to(p.parent / "log.csv") or p.symlink_to("log.csv"), "must be a directory"),
])
def test_what_is_not_a_data_set_is_not_replaced(tmp_path, make, message):
    write(tmp_path / "log.csv", log_rows(), TYPES)
    make(tmp_path / "out")
    before = {str(p): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=message):
        convert(str(tmp_path / "log.csv"), SCHEMA, ROLES, str(tmp_path / "out"))
    assert {str(p): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert not list(tmp_path.glob(".*"))


def content_of(directory):
    """Every file, hidden ones too."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def half(path, text, **_):
    """Write a part, as a full disk does."""
    with open(path, "w" if isinstance(text, str) else "wb") as file:
        file.write(text[: len(text) // 2])
    full()


_WRITE_TEXT = pathlib.Path.write_text


def half_of_statistics(path, text, **how):
    if manifest.STATISTICS in path.name:
        half(path, text)
    return _WRITE_TEXT(path, text, **how)


FULL = {
    "a shard": (pathlib.Path, "write_bytes", half),
    "counts": (dataset.pq, "write_table", full),
    "a split's manifest": (pathlib.Path, "write_text", half),
    "statistics": (pathlib.Path, "write_text", half_of_statistics),
    "what is flushed": (files, "_fsync", full),
    "metadata for TFDS": (dataset, "_write_tfds", full),
}


@pytest.mark.parametrize("since", ["", "20220426"])
@pytest.mark.parametrize("where", FULL)
def test_a_full_disk_is_one_message_and_changes_nothing(tmp_path, monkeypatch, where, since):
    write(tmp_path / "in" / "0.csv", log_rows()[:10], TYPES)
    convert(str(tmp_path / "in" / "0.csv"), SCHEMA, ROLES, str(tmp_path / "out"))
    write(tmp_path / "in" / "1.csv", log_rows()[10:], TYPES)
    before = content_of(tmp_path)
    with monkeypatch.context() as patch, pytest.raises((UserError, OSError), match="No space left on device"):
        patch.setattr(*FULL[where])  # an OSError too is one message of the command, see dlen_cam2.utils.commands
        convert(str(tmp_path / "in" / "*.csv"), SCHEMA, ROLES, str(tmp_path / "out"), how=Options(since=since))
    assert content_of(tmp_path) == before
    assert not check.check(tmp_path / "out").failed
    convert(str(tmp_path / "in" / "*.csv"), SCHEMA, ROLES, str(tmp_path / "out"), how=Options(since=since))
    assert len(manifest.statistics(tmp_path / "out")["days"]) == 2 and not check.check(tmp_path / "out").failed


# A process that dies: each in a fork of one that has imported everything and run nothing.
FORKS = '''
import json, os, pathlib, re, resource, signal, sys, traceback
import tensorflow as tf, tensorflow_datasets
from dlen_cam2.utils import files
from dlen_cam2.utils.errors import UserError
from pipelines import check, options
from pipelines.engines import duckdb_engine
from pipelines.writer import dataset, shards
from tests.support.damaged_logs import forked

def when(module, name, number, half=False, of=""):
    """Die at the call `number` of a function, of those whose argument is like `of`, perhaps after it wrote a part."""
    real, calls = getattr(module, name), []
    def dies(*given, **named):
        calls.extend([1] if re.search(of, str(given[0])) else [])
        if len(calls) == number and re.search(of, str(given[0])):
            if half:
                pathlib.Path(given[0]).write_bytes(b"a part")
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **named)
    setattr(module, name, dies)

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

result = {}
for case, (setup, directory, since) in json.loads(sys.argv[1]).items():
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(theirs, 1)
        os.dup2(theirs, 2)
        status = 0
        try:
            eval(setup)
            forked(directory, since)
        except (UserError, OSError) as error:
            status = 1
            print("error:", error)
        except BaseException:
            status = 3
            print(traceback.format_exc())
        sys.stdout.flush()
        os._exit(status)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        said = pipe.read()
    result[case] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said
print(json.dumps(result))
'''
KILLS = {
    "in SQL": "when(duckdb_engine.Duckdb, 'run', 2)",
    "in the first shard": "when(shards, '_write', 1, True)",
    "in a later split's shard": "when(shards, '_write', 2, True)",
    "at the first manifest": "when(dataset, 'write_json', 1, True)",
    "before a split's rename": r"when(pathlib.Path, 'rename', 1, of=r'/\.2022\d+\.incomplete-\w+$')",
    "after a split's rename": "when(files.shutil, 'rmtree', 2, of='incomplete')",
    "before the statistics": "when(dataset, 'write_json', 1, of='statistics.json')",
    "before the metadata for TFDS": "when(dataset, '_write_tfds', 1)",
    "before the last rename": r"when(pathlib.Path, 'rename', 1, of=r'/\.out\.incomplete-\w+$')",
}
LIMITS = {f"{kilobytes} kB": f"limit({kilobytes} * 1024)" for kilobytes in (1, 60)}


MODES = ["new", "replace", "since", "since a day that is there"]


def big_rows():
    """Two days more, of 400 rows each."""
    rows = log_rows()
    return rows + [rows[0] | {"ts": START + 2 * DAY + i * DAY // 400, "uid": i, "city": "a city with a long name" * 5}
                   for i in range(800)]


@pytest.fixture(scope="module")
def died(tmp_path_factory):
    """{(kill, mode): (exit status, what was printed, directory, what was in it before)}."""
    home = tmp_path_factory.mktemp("died")
    write(home / "rows.parquet", big_rows(), TYPES)
    write(home / "old.parquet", log_rows()[:15], TYPES)
    convert(str(home / "old.parquet"), SCHEMA, ROLES, str(home / "old"))
    jobs, found = {}, {}
    for name, setup in (KILLS | LIMITS).items():
        for mode in MODES if name in KILLS else MODES[1:3]:
            directory = home / f"{len(jobs)}"
            (directory / "in").mkdir(parents=True)
            os.link(home / "rows.parquet", directory / "in" / "rows.parquet")
            if mode != "new":
                for path in (home / "old").rglob("*"):
                    if path.is_file():
                        target = directory / "out" / path.relative_to(home / "old")
                        target.parent.mkdir(parents=True, exist_ok=True)
                        target.write_bytes(path.read_bytes())
            since = {"since": "20220427", "since a day that is there": "20220426"}.get(mode, "")
            jobs[f"{name}/{mode}"] = (setup, str(directory), since)
            found[name, mode] = (directory, content_of(directory))
    done = subprocess.run([sys.executable, "-c", FORKS, json.dumps(jobs)], cwd=ROOT, capture_output=True, text=True,
                          timeout=180, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout.splitlines()[-1])
    return {key: (*status["/".join(key)], directory, before) for key, (directory, before) in found.items()}


def seen(directory):
    """All but what is hidden."""
    return {name: data for name, data in content_of(directory).items() if not name.startswith(".")}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kill", KILLS)
def test_a_killed_process_leaves_the_old_data_set_or_nothing(died, kill, mode):
    status, said, directory, before = died[kill, mode]
    if kill == "before the last rename" and mode.startswith("since"):
        return  # there is none
    assert status == -9, said
    output = directory / "out"
    if mode == "new":
        assert not output.exists()
    elif output.exists():
        report = check.check(output)
        assert not report.failed, [f.line for f in report.findings if f.status == check.FAIL]
        days = manifest.statistics(output)["days"]
        assert {"20220425", "20220426"} <= set(days)
        assert len(read_all(output)) == sum(day["rows"] for day in days.values())
        if mode == "replace":
            assert seen(directory) == before
    else:
        assert mode == "replace"  # between two renames nothing is there
    forked(directory, {"since": "20220427", "since a day that is there": "20220426"}.get(mode, ""))
    assert {d: f["rows"] for d, f in manifest.statistics(output)["days"].items()} == {
        "20220425": 10, "20220426": 5 if mode == "since" else 10, "20220427": 400, "20220428": 400}


@pytest.mark.parametrize("mode", MODES[1:3])
@pytest.mark.parametrize("size", LIMITS)
def test_a_disk_without_room_is_one_message_and_changes_nothing(died, size, mode):
    """Files may not grow beyond some size, wherever in the work that is met."""
    status, said, directory, before = died[size, mode]
    assert status == 1, said[-2000:]
    assert said.count("error: ") == 1 and "Traceback" not in said
    assert content_of(directory) == before
    assert not check.check(directory / "out").failed
