"""Counters that a log lacks are computed from it."""

import dataclasses

import pytest

from dlen_cam2.schema import Computed, Feature
from dlen_cam2.utils.errors import UserError
from pipelines.from_logs import convert
from tests.support.exposures import reference
from tests.support.logs import AT, COUNTED, DAY, START, fed, named, read_all, write


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_what_is_computed_from_a_log_equals_a_count_by_hand(tmp_path, ending):
    rows = named(fed())
    write(tmp_path / f"log{ending}", rows, {})
    convert(str(tmp_path / f"log{ending}"), COUNTED, AT, str(tmp_path / "out"))
    log = [{**row, "split": f"d{(row['ts'] - START) // DAY}", "time_ms": row["ts"], "user_id": row["uid"],
            "click": row["is_click"], "like": row["is_like"], "profile_enter": 0} for row in rows]
    found = {row["note"]: row for row in read_all(tmp_path / "out")}
    assert len(found) == len(log) == 60
    computed = [f.name for f in COUNTED.features if f.computed]
    assert len(computed) == 40
    for e in log:
        wanted = reference(log, e)
        for name in computed:
            value = wanted[name] if isinstance(wanted[name], list) else pytest.approx(wanted[name], rel=1e-6)
            assert found[e["note"]][name] == value, (name, e)


def test_a_computed_feature_does_not_hide_a_column_of_its_name(tmp_path):
    write(tmp_path / "with.csv", [row | {"user_clicks": 7.0} for row in named(fed())])
    with pytest.raises(UserError, match="must not have the name of a column of the log.*Received: .'user_clicks'."):
        convert(str(tmp_path / "with.csv"), COUNTED, AT, str(tmp_path / "out"))
    plain = [dataclasses.replace(f, computed=None) if f.name == "user_clicks" else f for f in COUNTED.features]
    convert(str(tmp_path / "with.csv"), dataclasses.replace(COUNTED, features=tuple(plain)), AT, str(tmp_path / "out"))
    assert {row["user_clicks"] for row in read_all(tmp_path / "out")} == {7.0}


@pytest.mark.parametrize(("computed", "message"), [
    (Computed("count", ("brand",)), "the log must have the column 'brand'. Known: author_id, "),
    (Computed("count", ("uid",), of="buy"), "the log must have the column 'buy'"),
    (Computed("mean", ("uid",), value="price"), "the log must have the column 'price'"),
    (Computed("sum", ("uid",), value="topic"), "column 'topic' must be a finite number. Received: [ab]"),
    (Computed("count", ("uid",), of="note"), "of must be a column of 0 and 1. Received: 'note'"),
    (Computed("count", ("play_s",)), "column 'play_s' must be an integer within 64 bits. Received: "),
    (Computed("last", ("uid",), value="topic"), "column 'topic' must be a finite number. Received: "),
    (Computed("rate", ("uid",), of="click", prior="user_like"),
     "prior must be a number or the name of a computed rate"),
])
def test_what_cannot_be_computed_is_named(tmp_path, computed, message):
    write(tmp_path / "log.parquet", named(fed()), {})
    schema = dataclasses.replace(COUNTED, features=(
        *COUNTED.features[:3], Feature("own", "float", "user", "statistical", computed=computed)))
    with pytest.raises(UserError, match=message):
        convert(str(tmp_path / "log.parquet"), schema, AT, str(tmp_path / "out"))
    assert [p.name for p in tmp_path.iterdir()] == ["log.parquet"]
