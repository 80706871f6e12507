"""Files of KuaiRand that cannot be used: one message, and nothing is left."""

import pytest

from dlen_cam2.utils.errors import UserError
from pipelines import kuairand
from tests.support import kuairand_files as kf
from tests.support.builders import command


def cell(name, column, value, row=1):
    def edit(directory, files):
        files[name][row][column] = value
        kf.write(directory, {name: files[name]})
    return edit


def without(name, column):
    return lambda directory, files: kf.write(
        directory, {name: [{c: v for c, v in r.items() if c != column} for r in files[name]]}
    )


def raw(name, change):
    return lambda directory, files: (directory / name).write_bytes(change((directory / name).read_bytes()))


BAD = {
    "no logs": (lambda d, f: [p.unlink() for p in d.glob("log_*")], r"in must hold at least one file log_\*\.csv"),
    "no users": (lambda d, f: (d / kf.USERS).unlink(), r"must hold at least one file user_features_\*\.csv"),
    "no videos": (lambda d, f: (d / kf.VIDEOS).unlink(), r"must hold at least one file video_features_basic_\*\.csv"),
    "missing column": (
        without(kf.LATE, "is_like"),
        rf"{kf.LATE} has no column \['is_like'\]. Received columns: \['user_id'",
    ),
    "missing user column": (without(kf.USERS, "register_days"), rf"{kf.USERS} has no column \['register_days'\]"),
    "text for a number": (
        cell(kf.LATE, "is_click", "yes"),
        rf"{kf.LATE}: column 'is_click' must hold integers. Received: 'yes'",
    ),
    "text for a time": (
        cell(kf.RANDOM, "time_ms", "noon"),
        rf"{kf.RANDOM}.*: column 'time_ms' must hold integers. Received: 'noon'",
    ),
    "bad date": (
        cell(kf.VIDEOS, "upload_dt", "spring"),
        rf"{kf.VIDEOS}: column 'upload_dt' must hold dates.* Received: 'spring'",
    ),
    "NaN for an integer": (
        cell(kf.LATE, "play_time_ms", "nan"),
        rf"{kf.LATE}: column 'play_time_ms' must hold integers. Received: 'nan'",
    ),
    "decimal label": (
        cell(kf.LATE, "is_click", "0.4"),
        rf"{kf.LATE}: column 'is_click' must hold integers. Received: '0.4'",
    ),
    "integer beyond 64 bits": (
        cell(kf.USERS, "user_id", 2**63),
        rf"{kf.USERS}: column 'user_id' must hold integers. Received: '{2**63}'",
    ),
    "NaN for a category": (cell(kf.VIDEOS, "music_type", "nan"), r"Received: .*nan .*column music_type"),
    "no date": (cell(kf.LATE, "date", ""), "log: column 'date' must be YYYYMMDD. Received: None"),
    "date that is no day": (cell(kf.LATE, "date", "a/b"), "log: column 'date' must be YYYYMMDD. Received: 'a/b'"),
    "date that no calendar has": (cell(kf.LATE, "date", "20220431"), "column 'date' must be YYYYMMDD.*'20220431'"),
    "is_rand outside 0 and 1": (cell(kf.LATE, "is_rand", 2), "log: column 'is_rand' must be 0 or 1. Received: 2"),
    "user described twice": (
        lambda d, f: kf.write(d, {kf.USERS: f[kf.USERS] + f[kf.USERS][:1]}),
        rf"{kf.USERS}: each user_id may have one row. Received twice: 0",
    ),
    "video described twice": (
        lambda d, f: kf.write(d, {kf.VIDEOS: f[kf.VIDEOS] + f[kf.VIDEOS][:1]}),
        rf"{kf.VIDEOS}: each video_id may have one row. Received twice: 0",
    ),
    "two histories of a user": (
        lambda d, f: kf.write(d, {"user_history_before_5_01.csv": f[kf.HISTORY]}),
        r"user_history_before_5_01.csv: each user_id may have one row. Received twice: \d",
    ),
    "history that is no list of ids": (
        cell(kf.HISTORY, "watch_seq", "1 x 2", 0),
        rf"{kf.HISTORY}.*watch_seq.*Received: .*x",
    ),
    "directory called log": (
        lambda d, f: (d / "log_x.csv").mkdir(),
        r"log_x\.csv must be a UTF-8 text file. Received: .*directory",
    ),
    "NaN": (
        cell(kf.VIDEOS, "server_height", "nan"),
        r"column 'aspect_ratio' of split '2022.*must be finite. Received: \d+ values",
    ),
    "label": (
        cell(kf.LATE, "is_click", 2),
        r"column 'click' of split '2022042\d' is a label.* 0 or 1. Received: .*2\]",
    ),
    "no label": (cell(kf.LATE, "is_hate", ""), r"column 'hate' of split '2022042\d' must have no nulls. Received: 1"),
    "no time": (cell(kf.LATE, "time_ms", ""), rf"{kf.LATE}.*: each row must have a time_ms. Received: a row without"),
    "time in seconds": (
        cell(kf.LATE, "time_ms", 1_650_800_000),
        r"log: column 'time_ms' must be milliseconds since 1970, of the years 2000 to 2099. Received: 1650800000",
    ),
    "time in microseconds": (cell(kf.LATE, "time_ms", 1_650_800_000_000_000), r"column 'time_ms' must be milliseconds"),
    "negative duration": (
        cell(kf.LATE, "duration_ms", -5000),
        r"log: column 'duration_ms' must be at least 0. Received: -5000",
    ),
    "negative play time": (
        cell(kf.LATE, "play_time_ms", -1),
        r"log: column 'play_time_ms' must be at least 0. Received: -1",
    ),
    "not UTF-8": (
        raw(kf.USERS, lambda b: b.replace(b"full_active", b"full\xe9active")),
        rf"{kf.USERS} must be a UTF-8 text file. Received",
    ),
    "UTF-16": (raw(kf.LATE, lambda b: b.decode().encode("utf-16")), rf"{kf.LATE} must be a UTF-8 text file. Received"),
    "late bad byte": (raw(kf.LATE, lambda b: b + b[-70:] * 4000 + b"\xff\n"), rf"{kf.LATE} "),
    "cut off": (raw(kf.LATE, lambda b: b[:-30]), rf"{kf.LATE} cannot be read as CSV. Received"),
    "tabs": (raw(kf.LATE, lambda b: b.replace(b",", b"\t")), rf"{kf.LATE} has no column \['user_id'"),
    "empty file": (raw(kf.LATE, lambda b: b""), rf"{kf.LATE} has no column \['user_id'.*Received columns: \[\]"),
    "foreign output": (
        lambda d, f: kf.write(d.parent / "out", {"mine.csv": [{"a": 1}]}),
        r"out is not empty.*Received.*mine\.csv",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message_and_leaves_nothing(tmp_path, case):
    edit, message = BAD[case]
    files = kf.generate()
    source = kf.write(tmp_path / "in", files)
    edit(source, files)
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    with pytest.raises(UserError, match=f"(?s){message}") as error:
        kuairand.convert(source, str(tmp_path / "out"))
    assert len(str(error.value)) < 1500 and "Received" in str(error.value)
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize(("bad", "status"), [(False, 0), (True, 1)])
def test_command_line(tmp_path, bad, status):
    source = kf.write(tmp_path / "in", kf.generate())
    if bad:
        raw(kf.LATE, lambda b: b.replace(b"is_like", b"likes"))(source, None)
    done = command("pipelines.kuairand", f"--input={source}", f"--output={tmp_path / 'out'}")
    assert done.returncode == status, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr and len(errors) == bad
    if bad:
        assert f"{kf.LATE} has no column ['is_like']" in errors[0]
        assert [p.name for p in tmp_path.iterdir()] == ["in"]
    else:
        assert "9 exact duplicates were dropped" in done.stdout and "120 rows in 6 splits" in done.stdout
        assert len(kf.read(tmp_path / "out", "20220425_random")) > 0
