"""Damaged logs: one message, exact counts, and never a part of a data set."""

import pytest

from dlen_cam2.utils.errors import UserError
from pipelines.from_logs import Roles, convert
from tests.support.damaged_logs import CASES, INTEGER, RATE, TIME, cell
from tests.support.logs import START, kept, keyed, read_all, write
from tests.support.whole_logs import ROLES, ROWS, SCHEMA, TYPES, log_rows


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


@pytest.mark.slow
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


def test_a_title_above_the_header_is_refused_or_left_out(tmp_path):
    path = write(tmp_path / "log.csv", log_rows(), TYPES)
    path.write_bytes(b"Exported on Monday\n" + path.read_bytes())
    try:
        convert(str(path), SCHEMA, ROLES, str(tmp_path / "out"))
    except UserError as error:
        assert "log.csv" in str(error) and "Received" in str(error)
    else:
        assert read_all(tmp_path / "out") == kept(log_rows(), keyed(SCHEMA))
