"""KuaiRand's official files -> a data set; generated files, and the real slice where it is at hand."""

import collections
import csv
import hashlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from dlen_cam2 import data
from dlen_cam2.schema import pbtxt
from dlen_cam2.utils.errors import UserError
from pipelines import kuairand
from pipelines.features import point_in_time
from pipelines.writer import dataset
from tests.support import kuairand_files as kf
from tests.support.builders import command

ROOT = pathlib.Path(__file__).parents[2]
REAL = ROOT.parent / "shared/data/kuairand_pure"
LABELS = {
    "click": "is_click",
    "like": "is_like",
    "follow": "is_follow",
    "comment": "is_comment",
    "forward": "is_forward",
    "hate": "is_hate",
    "long_view": "long_view",
    "profile_enter": "is_profile_enter",
}


def split_of(row):
    return row["date"] + "_random" * row["is_rand"]


def exposures(files, logs=kf.LOGS):
    """The distinct rows of the logs by split."""
    rows = {json.dumps(row): row for name in logs for row in files[name]}
    found = collections.defaultdict(list)
    for row in rows.values():
        found[split_of(row)].append(row)
    return dict(found)


def read(output, split):
    """The rows of a split as TFDS reads them."""
    return list(tfds.builder_from_directory(str(output)).as_dataset(split=split).as_numpy_iterator())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    files = kf.generate()
    directory = tmp_path_factory.mktemp("kuairand")
    output = directory / "out"
    statistics = kuairand.convert(kf.write(directory / "in", files), str(output))
    return files, output, statistics


def test_duplicates_are_dropped_and_counted_and_random_exposures_are_splits_of_their_own(made):
    files, output, statistics = made
    wanted = exposures(files)
    assert {day: s["rows"] for day, s in statistics["days"].items()} == {day: len(rows) for day, rows in wanted.items()}
    assert list(statistics["days"]) == sorted(wanted) and len(wanted) == 6
    assert sum(day.endswith("_random") for day in wanted) == 2
    read_rows = sum(len(files[name]) for name in kf.LOGS)
    kept = sum(map(len, wanted.values()))
    assert read_rows - kept == 9
    assert statistics["source"] | {"rows_read": read_rows, "duplicates_dropped": 9} == statistics["source"]
    assert json.loads((output / "statistics.json").read_text()) == statistics == data.statistics(output)


def test_statistics_say_what_the_files_hold(made):
    files, output, statistics = made
    for split, rows in exposures(files).items():
        day = statistics["days"][split]
        assert {t: (s["rows"], s["positives"]) for t, s in day["tasks"].items()} == {
            task: (len(rows), sum(r[column] for r in rows)) for task, column in LABELS.items()}
        play = np.float32([r["play_time_ms"] / 1000 for r in rows]).astype(float)
        assert day["targets"]["play_s"] == {
            "min": play.min(), "max": play.max(), "mean": pytest.approx(play.mean(), rel=1e-12)}
        seconds = np.float32([r["duration_ms"] / 1000 for r in rows]).astype(float)
        found = day["features"]["duration_s"]
        assert (found["min"], found["max"]) == (seconds.min(), seconds.max())
        assert found["mean"] == pytest.approx(seconds.mean(), rel=1e-9)
        assert found["model_mean"] == pytest.approx(np.log1p(seconds).mean(), rel=1e-9)
        assert found["model_std"] == pytest.approx(np.log1p(seconds).std(), rel=1e-9)
        videos, users = [r["video_id"] for r in rows], [r["user_id"] for r in rows]
        assert day["features"]["author"]["coverage"] == pytest.approx(np.mean([v != 7 for v in videos]))
        assert day["features"]["user_active_degree"]["coverage"] == pytest.approx(np.mean([u != 4 for u in users]))
        assert day["features"]["video_id"]["distinct"] == len(set(videos))
        assert (day["features"]["user_id"]["min"], day["features"]["user_id"]["max"]) == (min(users), max(users))
    for split, rows in exposures(files).items():
        manifest = data.read_manifest(output, split)
        assert manifest.rows == sum(s["rows"] for s in manifest.shards.values()) == len(rows)
        for name, shard in manifest.shards.items():
            content = (output / split / name).read_bytes()
            assert (shard["bytes"], shard["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_vocabularies_are_learned_of_all_days_but_the_last(made):
    files, output, statistics = made
    days = ["20220420", "20220421", "20220425"]
    assert statistics["vocabularies_of"] == days
    videos = {v["video_id"]: v for v in files[kf.VIDEOS]}
    users = {u["user_id"]: u for u in files[kf.USERS]}
    rows = [r for day in days for r in exposures(files)[day]]
    of = {
        "author": [str(videos[r["video_id"]]["author_id"]) for r in rows if r["video_id"] in videos],
        "tags": [t for r in rows for t in videos.get(r["video_id"], {}).get("tag", "").split(",") if t],
        "user_active_degree": [users[r["user_id"]]["user_active_degree"] for r in rows if r["user_id"] in users],
    }
    found = {f.name: f for f in pbtxt.load(output).features}
    for name, values in of.items():
        counts = collections.Counter(values)
        assert len(counts) > 1 and found[name].min_count == 1
        assert found[name].vocabulary == tuple(sorted(counts, key=lambda v: (-counts[v], v)))
    assert {f.min_count for f in found.values() if f.dtype == "string"} == {1}


def test_tfds_reads_every_row_and_value(made):
    files, output, statistics = made
    builder = tfds.builder_from_directory(str(output))
    assert {name: info.num_examples for name, info in builder.info.splits.items()} == {
        day: s["rows"] for day, s in statistics["days"].items()}
    columns = pbtxt.load(output).columns
    videos = {v["video_id"]: v for v in files[kf.VIDEOS]}
    for split, rows in exposures(files).items():
        found = read(output, split)
        assert all(set(f) == set(columns) for f in found)
        assert [f["time_ms"] for f in found] == sorted(r["time_ms"] for r in rows)

        def key(values):
            return tuple(int(v) for v in values)

        given = {
            key([r["time_ms"], r["user_id"], r["video_id"], r["tab"], *(r[c] for c in LABELS.values())]): r
            for r in rows
        }
        kept = {key([f["time_ms"], f["user_id"], f["video_id"], f["tab"], *(f[t] for t in LABELS)]): f for f in found}
        assert kept.keys() == given.keys() and len(found) == len(rows)
        for k, f in kept.items():
            row, video = given[k], videos.get(given[k]["video_id"], {})
            assert f["hour"] == (row["time_ms"] // 3_600_000 + 8) % 24
            assert f["play_s"] == np.float32(row["play_time_ms"] / 1000)
            assert f["duration_s"] == np.float32(row["duration_ms"] / 1000)
            assert f["author"].decode() == str(video.get("author_id", ""))
            assert [t.decode() for t in f["tags"]] == [t for t in video.get("tag", "").split(",") if t]
            assert f["aspect_ratio"] == np.float32(1280 / 720 if video else 0)
            assert f["music_type"] == (video.get("music_type") or -1)
            age = (row["time_ms"] - kf.midnight("20220410")) / 86_400_000 if video else 0
            assert f["video_age_days"] == pytest.approx(age, rel=1e-6)
            assert f["is_live_streamer"] == (-1 if row["user_id"] == 4 else (-124, 1)[row["user_id"] % 2])


@pytest.mark.parametrize("history", [True, False])
def test_history_counts_once_and_only_where_it_does_not_overlap_the_log(made, tmp_path, history):
    files, output, _ = made
    if not history:
        files = {name: rows for name, rows in files.items() if name != kf.HISTORY}
        output = tmp_path / "out"
        kuairand.convert(kf.write(tmp_path / "in", files), str(output))
    rows = [r for split in exposures(files).values() for r in split]
    older = {h["user_id"]: h for h in files.get(kf.HISTORY, []) if h["user_id"] % 2 == 0}  # odd users' overlaps the log
    watched = {u: list(map(int, h["watch_seq"].split())) for u, h in older.items()}
    for split in exposures(files):
        for f in read(output, split):
            user, before = int(f["user_id"]), [r for r in rows if r["time_ms"] < f["time_ms"]]
            mine = [r for r in before if r["user_id"] == user]
            past = watched.get(user, [])
            assert f["user_impressions"] == len(mine) + len(past)
            newest = sorted(mine, key=lambda r: (-r["time_ms"], -r["video_id"]))
            assert f["watched"].tolist() == ([r["video_id"] for r in newest] + past[::-1])[:20]
            long = list(map(int, older[user]["long_watch_seq"].split())) if past else []
            assert f["user_long_views"] == sum(r["long_view"] for r in mine) + sum(v in long for v in past)
            assert f["user_clicks"] == sum(r["is_click"] for r in mine)
            assert f["video_impressions"] == sum(r["video_id"] == f["video_id"] for r in before) + sum(
                p.count(f["video_id"]) for p in watched.values())


@pytest.mark.parametrize("size", ["1k", "27k"])
def test_the_layouts_of_the_larger_sets(made, tmp_path, size):
    files, _, statistics = made
    named = {}
    for name, rows in files.items():
        name = name.replace("_pure", f"_{size}")
        if size == "27k" and name.startswith("log_standard"):  # in parts, whose columns need not stand in one order
            named[name.replace(".csv", "_part1.csv")] = rows[:20]
            named[name.replace(".csv", "_part2.csv")] = [dict(reversed(row.items())) for row in rows[20:]]
        else:
            named[name] = rows
    assert kuairand.convert(kf.write(tmp_path / "in", named), str(tmp_path / "out")) == statistics


@pytest.mark.parametrize("logs", [(kf.LATE,), (kf.RANDOM,), (kf.EARLY, kf.RANDOM)])
def test_any_of_the_log_files_will_do(tmp_path, logs):
    files = {name: rows for name, rows in kf.generate().items() if name not in kf.LOGS or name in logs}
    statistics = kuairand.convert(kf.write(tmp_path / "in", files), str(tmp_path / "out"))
    wanted = exposures(files, logs)
    assert {day: s["rows"] for day, s in statistics["days"].items()} == {day: len(rows) for day, rows in wanted.items()}


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
        assert "9 exact duplicates dropped" in done.stdout and "120 rows of 6 splits" in done.stdout
        assert len(read(tmp_path / "out", "20220425_random")) > 0


def test_features_do_not_depend_on_whether_a_user_comes_back_later(tmp_path):
    files = kf.generate()
    files[kf.EARLY] = [r for r in files[kf.EARLY] if r["user_id"] != 0]
    files[kf.HISTORY] = [h for h in files[kf.HISTORY] if h["user_id"] % 2 == 0]
    kuairand.convert(kf.write(tmp_path / "all", files), str(tmp_path / "out_all"))
    early = {name: rows for name, rows in files.items() if name not in (kf.LATE, kf.RANDOM)}
    kuairand.convert(kf.write(tmp_path / "early", early), str(tmp_path / "out_early"))
    for split in kf.DAYS[kf.EARLY]:
        for a, b in zip(read(tmp_path / "out_all", split), read(tmp_path / "out_early", split), strict=True):
            assert [n for n in a if not np.array_equal(a[n], b[n])] == []


def test_commands_can_be_imported_together():
    code = (
        "import pipelines.kuairand, pipelines.simulate\n"
        "from dlen_cam2 import evaluate, export, recovery, score, train"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_byte_order_mark_is_no_part_of_the_first_column(made, tmp_path):
    files, output, statistics = made
    source = kf.write(tmp_path / "in", files)
    for path in source.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert kuairand.convert(source, str(tmp_path / "out")) == statistics
    paths = list(output.rglob("*.tfrecord*"))
    assert len(paths) == len(statistics["days"])
    for path in paths:
        assert (tmp_path / "out" / path.relative_to(output)).read_bytes() == path.read_bytes()


def distinct_log():
    """The rows of the real logs as dictionaries, each distinct line once."""
    lines = {}
    for path in sorted(REAL.glob("log_*.csv")):
        header, *rows = path.read_text(encoding="utf-8").splitlines()
        lines |= dict.fromkeys(rows, header.split(","))
    return [dict(zip(header, map(int, line.split(",")), strict=True)) for line, header in lines.items()]


def older_exposures(log):
    """The videos of the histories that end before the user's first exposure, or whose user has none, as rows."""
    first = {}
    for row in log:
        first[row["user_id"]] = min(row["time_ms"], first.get(row["user_id"], row["time_ms"]))
    for path in sorted(REAL.glob("user_history_before_*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                user, last = int(row["user_id"]), int(row["last_time_ms"])
                if last < first.get(user, last + 1):
                    for back, video in enumerate(reversed(row["watch_seq"].split())):
                        yield {"user_id": user, "video_id": int(video), "time_ms": last - back,
                               "is_click": 0, "is_profile_enter": 0}


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the KuaiRand-Pure slice is not at {REAL}")
def test_real_slice(monkeypatch, tmp_path):
    days, some, rows = {}, [], []

    compute = point_in_time.splits

    def few(engine, schema, *more, **named):
        """Point-in-time features only of all rows of four users and of four videos, which takes no half minute."""
        days.update(engine.query(
            "SELECT split, count(*) FROM exposures WHERE split IS NOT NULL GROUP BY split ORDER BY split"))
        shown = engine.query(
            "SELECT user_id, video_id FROM exposures WHERE split = '20220503' ORDER BY time_ms, user_id, video_id")
        some.extend(shown[i] for i in (0, 77, 5000, 17_999))
        users, videos = (", ".join(str(pair[side]) for pair in some) for side in (0, 1))
        engine.execute(f"DELETE FROM exposures WHERE user_id NOT IN ({users}) AND video_id NOT IN ({videos})")
        return compute(engine, schema, *more, **named)

    def collect(output, schema, splits, source, *more):
        for split, found in splits:
            table = dataset._checked(schema, split, found.read_all())
            rows.extend(row | {"split": split} for row in table.to_pylist())
        return source

    monkeypatch.setattr(point_in_time, "splits", few)
    monkeypatch.setattr(dataset, "write_dataset", collect)
    source = kuairand.convert(REAL, str(tmp_path / "out"))
    assert list(days) == [f"202204{d}" for d in range(25, 31)] + [f"2022050{d}" for d in range(1, 6)]
    assert (sum(days.values()), source["rows_read"], source["duplicates_dropped"]) == (180_384, 185_061, 4_677)
    log = distinct_log()
    assert len(log) == 180_384
    past = list(older_exposures(log))
    assert len({r["user_id"] for r in past} - {r["user_id"] for r in log}) > 1000  # users without any exposure
    chosen = {"user": {user for user, _ in some}, "video": {video for _, video in some}}
    assert len(rows) == sum(r["user_id"] in chosen["user"] or r["video_id"] in chosen["video"] for r in log) > 200
    compared = older = later = 0  # `later`: pairs of a row and an older one that is reported on a later day only
    for who, ids in chosen.items():
        for mine in ids:
            events = [r for r in (*log, *past) if r[f"{who}_id"] == mine]
            older += sum(r[f"{who}_id"] == mine for r in past)
            for row in (r for r in rows if r[f"{who}_id"] == mine):
                before = [r for r in events if r["time_ms"] < row["time_ms"] and str(r.get("date", "")) <= row["split"]]
                later += sum(r["time_ms"] < row["time_ms"] and str(r.get("date", "")) > row["split"] for r in events)
                wanted = [len(before), *(sum(r[f"is_{n}"] for r in before) for n in ("click", "profile_enter"))]
                assert [row[f"{who}_{n}"] for n in ("impressions", "clicks", "profile_enters")] == wanted
                compared += 1
    assert compared >= len(rows) and older > 50 and later > 0
