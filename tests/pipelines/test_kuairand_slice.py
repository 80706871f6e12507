"""The real slice of KuaiRand-Pure, against a count by hand."""

import csv

import pytest

from pipelines import kuairand
from pipelines.features import point_in_time
from pipelines.writer import dataset
from tests.support.kuairand_slice import REAL


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
    # `later`: pairs of a row and an older one that is reported on a later day only; `playing`: clicks on videos that
    # still play, so they are not known yet.
    compared = older = later = playing = 0
    for who, ids in chosen.items():
        for mine in ids:
            events = [r for r in (*log, *past) if r[f"{who}_id"] == mine]
            older += sum(r[f"{who}_id"] == mine for r in past)
            for row in (r for r in rows if r[f"{who}_id"] == mine):
                before = [r for r in events if r["time_ms"] < row["time_ms"] and str(r.get("date", "")) <= row["split"]]
                later += sum(r["time_ms"] < row["time_ms"] and str(r.get("date", "")) > row["split"] for r in events)
                known = [r for r in before if r["time_ms"] + r.get("play_time_ms", 0) < row["time_ms"]]
                playing += sum(r["is_click"] for r in before) - sum(r["is_click"] for r in known)
                wanted = [len(before), *(sum(r[f"is_{n}"] for r in known) for n in ("click", "profile_enter"))]
                assert [row[f"{who}_{n}"] for n in ("impressions", "clicks", "profile_enters")] == wanted
                compared += 1
    assert compared >= len(rows) and older > 50 and later > 0 and playing > 0
