"""Columns of any name, and those that features are computed from, are read as what they are or refused."""

import shutil

import pytest

from dlen_cam2.schema import Feature, Schema
from dlen_cam2.utils.errors import UserError
from pipelines.from_logs import convert
from pipelines.options import Options
from tests.support.damaged_logs import C, J, P, without
from tests.support.logs import DAY, counters, kept, keyed, read_all, write
from tests.support.whole_logs import ROLES, ROWS, SCHEMA, TYPES, log_rows

IDS = tuple(f for f in SCHEMA.features if f.name in ("uid", "vid"))


def counted(*columns):
    """The features of a feed that can be computed from these columns."""
    return counters(("uid", "vid", "click", *columns), user_id="uid", video_id="vid")


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


@pytest.mark.parametrize("name", [
    "split", "broken", "time_ms", "new", "today", "number", "hour_ms", "n_exposures", "computed", "value_vid", "__ts",
    "__row", "__known_0"])
def test_a_name_that_is_also_ours_is_kept_or_refused_where_features_are_computed(tmp_path, name):
    feature = Feature(name, "float", "context", "context")
    schema = Schema("log", (*IDS, feature, *counted("duration_s", "play_s")), SCHEMA.tasks)
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


# What features are computed from is held to rules too.
@pytest.mark.parametrize(("name", "value"), [
    ("duration_s", "long"), ("play_s", "nan"), ("long_view", "2"), ("profile_enter", "yes"), ("play_s", "inf"),
    ("long_view", "0.5"), ("profile_enter", "-1"),
])
def test_a_column_that_features_are_computed_from_is_never_read_as_nothing(tmp_path, name, value):
    schema = Schema("log", (*IDS, *counted("duration_s", "play_s", "long_view", "profile_enter")), SCHEMA.tasks)
    log = [row | {"long_view": 1, "profile_enter": 0} | {name: value} for row in log_rows()]
    write(tmp_path / "log.csv", log, TYPES)
    with pytest.raises(UserError, match=f"column '{name}' must be (0 or 1|a finite number). Received: {value}"):
        convert(str(tmp_path / "log.csv"), schema, ROLES, str(tmp_path / "out"))


@pytest.mark.parametrize("name", ["duration_s", "play_s", "long_view", "profile_enter", "tab", "author_id", "topic"])
def test_a_column_that_features_are_computed_from_must_be_there(tmp_path, name):
    """In silence the features would be those of a log in which it is always 0."""
    others = ("duration_s", "play_s", "long_view", "profile_enter", "tab", "author_id", "topic")
    schema = Schema("log", (*IDS, *counted(*others)), SCHEMA.tasks)
    log = [row | dict.fromkeys(others, 1) for row in log_rows()]
    write(tmp_path / "log.csv", [without(name)(row) for row in log], TYPES)
    with pytest.raises(UserError, match=f"feature '.*': the log must have the column '{name}'. Known: .*vid"):
        convert(str(tmp_path / "log.csv"), schema, ROLES, str(tmp_path / "out"))
    assert [p.name for p in tmp_path.iterdir()] == ["log.csv"]


def test_what_is_missing_is_no_event_and_a_key_of_its_own(tmp_path):
    """A column that only features read may lack values."""
    schema = Schema("log", (*IDS, *counted("duration_s", "play_s", "long_view", "tab", "topic")), SCHEMA.tasks)
    none = {"play_s": None, "long_view": None, "tab": None, "topic": None}
    log = [row | ({"long_view": 1, "tab": 5, "topic": "a"} if i % 8 < 4 else none) for i, row in enumerate(log_rows())]
    write(tmp_path / "log.csv", log, TYPES)
    convert(str(tmp_path / "log.csv"), schema, ROLES, str(tmp_path / "out"))
    found = [row for row in read_all(tmp_path / "out") if row["uid"] == 0]  # rows 0, 4, … 16, of which 4, 12 lack all
    assert [row["user_long_views"] if "user_long_views" in row else row["user_hour_long_views"] for row in found] == [
        0, 1, 1, 2, 2]
    assert [row["user_tab_logged"] for row in found] == [row["user_topic_impressions"] for row in found] == [
        0, 0, 1, 1, 2]
    offered, played = [0, 10.5, 10.5, 21, 21], [0, 0, 0, 8, 8]  # row 8 was played for 8 s
    assert [row["user_play_ratio"] for row in found] == pytest.approx(
        [(p + 30) / (o + 100) for p, o in zip(played, offered, strict=True)])


def test_what_features_are_counted_by_may_be_text_where_only_equality_matters(tmp_path):
    given = {}
    for dtype, names in (("int", [0, 1]), ("string", ["home", "search"])):
        tab = Feature("tab", dtype, "context", "context", min_count=1, width=2)
        schema = Schema("log", (*IDS, tab, *counted("tab")), SCHEMA.tasks)
        write(tmp_path / "log.csv", [row | {"tab": names[i // 3 % 2]} for i, row in enumerate(log_rows())], TYPES)
        convert(str(tmp_path / "log.csv"), schema, ROLES, str(tmp_path / "out"))
        given[dtype] = [without("tab")(row) for row in read_all(tmp_path / "out")]
    assert given["int"] == given["string"]
    assert {row["user_tab_logged"] for row in given["int"]} == {0.0, 1.0, 2.0, 3.0}


@pytest.mark.parametrize("lost", [True, False])
def test_a_day_whose_snapshot_is_lost_is_not_passed_over(tmp_path, lost):
    """Else the counters of the added day would lack all of it; a process killed before it copied snapshots does so."""
    schema = Schema("log", (*IDS, *counted()), SCHEMA.tasks)
    log = log_rows()
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
    ratio = tuple(f for f in counted("duration_s", "play_s") if f.name == "user_play_ratio")
    schema = Schema("log", (*IDS, *ratio), SCHEMA.tasks)
    write(tmp_path / "log.csv", [row | {"play_s": None} for row in log_rows()], TYPES)
    convert(str(tmp_path / "log.csv"), schema, ROLES, str(tmp_path / "out"))
    assert [row["user_play_ratio"] for row in read_all(tmp_path / "out")] == pytest.approx([0.3] * 20)
