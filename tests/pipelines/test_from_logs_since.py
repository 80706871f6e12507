"""Days that are added to a data set of a log."""

import dataclasses

import pytest

from dlen_cam2.data import manifest
from dlen_cam2.utils.errors import UserError
from pipelines.from_logs import Roles, convert
from pipelines.options import Options
from pipelines.writer.shards import Form
from tests.support.logs import AT, COUNTED, DAY, ROLES, SCHEMA, START, fed, log_rows, named, write


@pytest.mark.slow
@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize("form", [Form(), Form("block", "GZIP")])
def test_a_day_that_is_added_has_the_bytes_of_a_full_run(tmp_path, computed, form):
    rows = [row | {"rnd": i % 5 == 0} for i, row in enumerate(named(fed(90)))]
    schema = COUNTED if computed else COUNTED.select(features=["uid", "video_id", "note"])
    roles = Roles("ts", "uid", "video_id", "rnd")
    for day in range(3):
        write(tmp_path / "in" / f"{day}.csv", [row for row in rows if (row["ts"] - START) // DAY == day])
    convert(str(tmp_path / "in" / "*.csv"), schema, roles, str(tmp_path / "full"), how=Options(form=form))
    convert(str(tmp_path / "in" / "[01].csv"), schema, roles, str(tmp_path / "out"), how=Options(form=form))
    assert len(manifest.statistics(tmp_path / "out")["days"]) == 4
    convert(str(tmp_path / "in" / "*.csv"), schema, roles, str(tmp_path / "out"),
            how=Options(since="20220427", form=form))
    full, added = (manifest.statistics(tmp_path / name)["days"] for name in ("full", "out"))
    assert list(full) == list(added) and len(full) == 6 and full == added
    for split in full:
        names = {p.name: p.read_bytes() for p in (tmp_path / "full" / split).iterdir()}
        assert names == {p.name: p.read_bytes() for p in (tmp_path / "out" / split).iterdir()}, split
    assert not [p for p in (tmp_path / "out").rglob(".*")] and not [p for p in tmp_path.glob(".*")]


def test_a_day_is_added_only_to_a_data_set_and_only_if_the_log_has_it(tmp_path):
    write(tmp_path / "log.csv", log_rows())
    with pytest.raises(UserError, match="Received"):
        convert(str(tmp_path / "log.csv"), SCHEMA, ROLES, str(tmp_path / "out"), how=Options(since="20220426"))
    assert [p.name for p in tmp_path.iterdir()] == ["log.csv"]
    convert(str(tmp_path / "log.csv"), SCHEMA, ROLES, str(tmp_path / "out"))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match="--since must be a day of the log. Received: '20220430'"):
        convert(str(tmp_path / "log.csv"), SCHEMA, ROLES, str(tmp_path / "out"), how=Options(since="20220430"))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("change", ["utc_offset", "unit", "random", "schema"])
@pytest.mark.parametrize("computed", [False, True])
def test_days_are_added_by_the_clock_and_the_schema_of_the_data_set(tmp_path, computed, change):
    rows = [row | {"rnd": 0} for row in named(fed())]
    write(tmp_path / "log.parquet", rows, {})
    schema = COUNTED if computed else COUNTED.select(features=["uid", "video_id", "note"])
    roles = dataclasses.replace(AT, random="rnd")
    convert(str(tmp_path / "log.parquet"), schema, roles, str(tmp_path / "out"))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    if change == "schema":
        note = dataclasses.replace(next(f for f in schema.features if f.name == "note"), width=9)
        schema = dataclasses.replace(schema, features=(*schema.select(without=["note"]).features, note))
        message = r"with the schema that .*out was written with: run without --since.*Received: different \['note'\]"
    else:
        roles = dataclasses.replace(roles, **{change: {"utc_offset": 8, "unit": "s", "random": ""}[change]})
        message = r"must be added with --(utc_offset=0|time_unit=ms|random=rnd), as .*Received: --\w+=(8|s|)\."
    with pytest.raises(UserError, match=message):
        convert(str(tmp_path / "log.parquet"), schema, roles, str(tmp_path / "out"), how=Options(since="20220427"))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("schema", [COUNTED, COUNTED.select(features=["uid", "video_id", "note"])])
def test_to_add_a_day_to_nothing_is_refused_with_advice(tmp_path, schema):
    write(tmp_path / "log.csv", named(fed()))
    with pytest.raises(UserError, match="needs a data set to add days to: run without --since first. Received: .*out"):
        convert(str(tmp_path / "log.csv"), schema, AT, str(tmp_path / "out"), how=Options(since="20220427"))
    assert [p.name for p in tmp_path.iterdir()] == ["log.csv"]


@pytest.mark.parametrize("computed", [False, True])
def test_rows_of_days_before_since_are_counted(tmp_path, capsys, computed):
    rows = named(fed())
    schema = COUNTED if computed else COUNTED.select(features=["uid", "video_id", "note"])
    write(tmp_path / "log.csv", rows)
    convert(str(tmp_path / "log.csv"), schema, AT, str(tmp_path / "out"))
    assert "are left out" not in capsys.readouterr().out
    write(tmp_path / "log.csv", [*rows[40:], rows[0] | {"note": 98}])
    convert(str(tmp_path / "log.csv"), schema, AT, str(tmp_path / "out"), how=Options(since="20220427"))
    said = capsys.readouterr().out
    assert "21 rows were read" in said and "1 rows of days before --since=20220427 are left out" in said
    assert "is replaced" not in said
