"""Times in every form, and the days that they fall on."""

import datetime
import random

import pyarrow as pa
import pytest

from pipelines.from_logs import Roles, convert
from tests.support.logs import SCHEMA, SMALL, START, kept, keyed, log_rows, read, write

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
