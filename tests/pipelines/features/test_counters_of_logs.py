"""Counters that a log lacks are computed from it."""

import pytest

from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.utils.errors import UserError
from pipelines.features.point_in_time import COUNTERS, histories
from pipelines.from_logs import convert
from tests.support.exposures import reference
from tests.support.logs import AT, COUNTED, DAY, START, fed, named, read_all, write


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


@pytest.mark.slow
def test_a_counter_that_the_log_has_is_read_and_does_not_change_those_that_are_computed(tmp_path):
    write(tmp_path / "log.csv", named(fed()))
    write(tmp_path / "with.csv", [row | {"user_clicks": 0.0} for row in named(fed())])
    for name in ("log", "with"):
        convert(str(tmp_path / f"{name}.csv"), COUNTED, AT, str(tmp_path / name))
    counted, given = read_all(tmp_path / "log"), read_all(tmp_path / "with")
    assert {row["user_clicks"] for row in given} == {0.0} != {row["user_clicks"] for row in counted}
    assert given == [row | {"user_clicks": 0.0} for row in counted]


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
