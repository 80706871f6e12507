"""Formats, lists in text, and files that cannot be read."""

import csv
import io

import pyarrow as pa
import pytest

from dlen_cam2.schema import Feature, Schema
from dlen_cam2.utils.errors import UserError
from pipelines.from_logs import Roles, convert
from tests.support.logs import (
    ROLES,
    SCHEMA,
    SMALL,
    START,
    TYPES,
    kept,
    keyed,
    log_rows,
    proposed,
    read_all,
    spaced,
    write,
)

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
    assert "'tags': 2 rows have more than 4 values (value_count.max); the reader keeps the first of them" in said
    assert "column 'seen'" not in said
    assert read_all(tmp_path / "out") == kept(rows, keyed())  # the data set has all of them


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
