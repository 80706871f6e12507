"""Ways to damage a log, and what is said of each."""

import pathlib
import re
from collections.abc import Callable
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.logs import DAY, START, write
from tests.support.whole_logs import ROWS, TYPES, log_rows

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
                                       r"more\.parquet must have the column types of .*log\.parquet\. Received: "
                                       r"'age' is VARCHAR in more\.parquet, and BIGINT in log\.parquet"),
    "formats mixed": Case(C, beside("more.jsonl", other(dict)), "the same extension.*Received: .*'more.jsonl'"),
    "unknown ending": Case(".txt", content(lambda b: b), r"the same extension, one of .*Received: \['log\.txt'\]"),
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
