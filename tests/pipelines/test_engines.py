"""DuckDB and Spark run one text to the same rows; a day that is appended is the day of a full run."""

import csv
import hashlib
import pathlib
import shutil

import pyarrow as pa
import pytest

from dlen_cam2.data import manifest
from dlen_cam2.schema import pbtxt
from dlen_cam2.utils.errors import UserError
from pipelines import engines, kuairand
from pipelines.engines import literal, quoted
from pipelines.engines.spark_engine import check_java
from pipelines.options import Options
from pipelines.writer.shards import Form
from pipelines.writer.stored_rows import tables
from tests.support import kuairand_files as kf

REAL = pathlib.Path(__file__).resolve().parents[3] / "shared/data/kuairand_pure"
LOG = "log_standard_4_22_to_5_08_pure.csv"


def spark_missing() -> str:
    try:
        import pyspark  # noqa: F401

        check_java()
    except (ImportError, UserError) as error:
        return str(error)
    return ""


needs_spark = pytest.mark.skipif(bool(spark_missing()), reason=f"no Spark: {spark_missing()}")


def everything(directory):
    """All rows by split, sorted, as Python values; floats keep every bit."""
    schema = pbtxt.load(directory)
    found = {}
    for split in manifest.statistics(directory)["days"]:
        table = pa.concat_tables(tables(directory, schema, split))
        found[split] = sorted(repr(row) for row in table.to_pylist())
    return found


def hashes(directory, splits):
    """What the manifests say of the shards, checked against the files, and the files of counts."""
    found = {}
    for split in splits:
        for name, shard in manifest.read_manifest(directory, split).shards.items():
            content = (pathlib.Path(directory) / split / name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == shard["sha256"]
            found[split, name] = shard["sha256"]
        counts = (pathlib.Path(directory) / split / manifest.COUNTS).read_bytes()
        found[split, manifest.COUNTS] = hashlib.sha256(counts).hexdigest()
    return found


def some_users(target, days, one_in):
    """The real files with the exposures of one user in `one_in` on the given days."""
    target.mkdir()
    for path in REAL.glob("*_pure.csv"):
        if path.name != LOG:
            shutil.copy(path, target)
    for name in (LOG, "user_history_before_4_25.csv"):
        with (REAL / name).open(newline="") as source, (target / name).open("w", newline="") as file:
            rows = csv.DictReader(source)
            writer = csv.DictWriter(file, rows.fieldnames)
            writer.writeheader()
            writer.writerows(r for r in rows if int(r["user_id"]) % one_in == 0 and r.get("date", days[0]) in days)
    return target


@needs_spark
@pytest.mark.skipif(not REAL.is_dir(), reason="the real logs of ../shared/data/kuairand_pure are not there")
def test_both_engines_make_the_same_rows_of_real_logs(tmp_path):
    # Two days, so that counters and histories come from a snapshot, from the older exposures and from the day itself.
    source = some_users(tmp_path / "in", ("20220430", "20220501"), 20)
    for engine in engines.ENGINES:
        kuairand.convert(source, str(tmp_path / engine), Options(engine=engine))
    duckdb, spark = (everything(tmp_path / engine) for engine in engines.ENGINES)
    assert sum(map(len, duckdb.values())) > 1500
    assert spark == duckdb
    # And they write them in one order, so the files are the same, too.
    days = list(duckdb)
    assert hashes(tmp_path / "spark", days) == hashes(tmp_path / "duckdb", days)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Generated logs of four days, two of them with random exposures, and their data set."""
    directory = tmp_path_factory.mktemp("full")
    source = kf.write(directory / "in", kf.generate(rows=150, seed=3))
    kuairand.convert(source, str(directory / "out"))
    return source, directory / "out"


@pytest.mark.parametrize("since", ["20220421", "20220425", "20220426"])
def test_an_appended_day_is_that_of_a_full_run(full, tmp_path, since):
    source, whole = full
    days = list(manifest.statistics(whole)["days"])
    early = [d for d in days if d < since]
    # A log that ends the day before, and then the whole log.
    before = kf.generate(rows=150, seed=3)
    for name in kf.LOGS:
        before[name] = [row for row in before[name] if row["date"] < since]
    before = {name: rows for name, rows in before.items() if rows}
    kuairand.convert(kf.write(tmp_path / "in", before), str(tmp_path / "out"))
    kept = hashes(tmp_path / "out", early)
    statistics = kuairand.convert(source, str(tmp_path / "out"), Options(since=since))
    assert list(statistics["days"]) == days == list(manifest.statistics(tmp_path / "out")["days"])
    found = hashes(tmp_path / "out", days)
    assert {key: value for key, value in found.items() if key[0] < since} == kept  # the past is not written again
    # The history of a user ends before the first exposure that is known: later logs cannot change what is written.
    assert {key: value for key, value in found.items() if key[0] >= since} == hashes(
        whole, [day for day in days if day >= since])


def test_days_can_be_written_again_from_any_snapshot(full, tmp_path):
    source, whole = full
    shutil.copytree(whole, tmp_path / "out")
    days = list(manifest.statistics(whole)["days"])
    kuairand.convert(source, str(tmp_path / "out"), Options(since="20220425"))
    assert hashes(tmp_path / "out", days) == hashes(whole, days)


@pytest.mark.parametrize(("since", "message"), [
    ("20220424", r"--since must be a day of the log. Received: '20220424'"),
    ("20220420", r"has no snapshot of a day before 20220420"),
])
def test_since_that_cannot_be(full, tmp_path, since, message):
    source, whole = full
    shutil.copytree(whole, tmp_path / "out")
    with pytest.raises(UserError, match=message):
        kuairand.convert(source, str(tmp_path / "out"), Options(since=since))
    days = list(manifest.statistics(whole)["days"])
    assert hashes(tmp_path / "out", days) == hashes(whole, days)


def test_since_does_not_leave_days_out(full, tmp_path):
    source, whole = full
    shutil.copytree(whole, tmp_path / "out")
    for day in ("20220425", "20220426"):
        shutil.rmtree(tmp_path / "out/snapshots" / day)
    with pytest.raises(UserError, match=r"days that have no snapshot. Received: \['20220425'\] after 20220421"):
        kuairand.convert(source, str(tmp_path / "out"), Options(since="20220426"))


def test_since_does_not_leave_later_days_as_they_were(full, tmp_path):
    source, whole = full
    shutil.copytree(whole, tmp_path / "out")
    some = kf.generate(rows=150, seed=3)
    for name in kf.LOGS:
        some[name] = [row for row in some[name] if row["date"] == "20220425"]
    some = {name: rows for name, rows in some.items() if rows}
    with pytest.raises(UserError, match=r"needs a log of the days after it.*Received: a data set with \['20220426'\]"):
        kuairand.convert(kf.write(tmp_path / "in", some), str(tmp_path / "out"), Options(since="20220425"))


def test_what_is_added_has_the_form_of_what_is_there(full, tmp_path):
    source, whole = full
    shutil.copytree(whole, tmp_path / "out")
    with pytest.raises(UserError, match="has the layout 'example'.*Received: 'block', ''"):
        kuairand.convert(source, str(tmp_path / "out"), Options(since="20220426", form=Form("block")))


def test_processes_write_what_one_writes(full, tmp_path):
    source, whole = full
    kuairand.convert(source, str(tmp_path / "out"), Options(form=Form(workers=2)))
    days = list(manifest.statistics(whole)["days"])
    assert hashes(tmp_path / "out", days) == hashes(whole, days)


def test_without_java_spark_says_so(monkeypatch, tmp_path):
    pytest.importorskip("pyspark")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(UserError, match="--engine=spark needs Java.*--engine=duckdb needs none.*Received: no java"):
        with engines.connect("spark", tmp_path / "out"):
            pass
    assert not list(tmp_path.iterdir())


def test_a_master_that_is_none_is_one_message(tmp_path):
    if spark_missing():
        pytest.skip(spark_missing())
    with pytest.raises(UserError, match="Spark cannot be started with the master 'nowhere'. Received: .+"):
        with engines.connect("spark", tmp_path / "out", master="nowhere"):
            pass


@pytest.mark.parametrize("engine", ["oracle", ""])
def test_an_engine_that_is_none(tmp_path, engine):
    with pytest.raises(UserError, match="engine must be one of"):
        with engines.connect(engine, tmp_path / "out"):
            pass


@pytest.mark.parametrize("memory", ["2", "lots", "2GB'; DROP TABLE x; --"])
def test_memory_is_an_amount(tmp_path, memory):
    with pytest.raises(UserError, match="memory must be an amount such as 2GB"):
        with engines.connect("duckdb", tmp_path / "out", memory=memory):
            pass
    assert not list(tmp_path.iterdir())


def test_names_and_texts_cannot_end_their_quotes():
    assert quoted("like") == '"like"'
    assert literal("20220425_random") == "'20220425_random'"
    for bad in ('a"b', "a`b", "a\nb"):
        with pytest.raises(UserError, match="a column's name"):
            quoted(bad)
    with pytest.raises(UserError, match="must hold letters"):
        literal("x' OR '1'='1")


def test_a_result_comes_in_its_order_and_a_working_directory_goes(tmp_path):
    with engines.connect("duckdb", tmp_path / "out") as engine:
        assert list(tmp_path.iterdir()) == [engine.directory]
        engine.execute("CREATE TABLE t AS SELECT hash(range) AS h FROM range(200000)")
        found = engine.stream("SELECT h FROM t ORDER BY h").read_all().column("h").to_pylist()
    assert found == sorted(found) and len(found) == 200_000
    assert not list(tmp_path.iterdir())
