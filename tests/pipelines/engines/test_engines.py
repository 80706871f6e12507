"""DuckDB and Spark run one text to the same rows."""

import pytest

from dlen_cam2.utils.errors import UserError
from pipelines import engines, kuairand
from pipelines.engines import literal, quoted
from pipelines.engines.spark_engine import check_java
from pipelines.options import Options
from tests.support.kuairand_slice import REAL, everything, hashes, some_users


@pytest.fixture(autouse=True)
def quick_java(monkeypatch):
    """Few queries: Java's second compiler costs more than it saves."""
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")


def spark_missing() -> str:
    try:
        import pyspark  # noqa: F401

        check_java()
    except (ImportError, UserError) as error:
        return str(error)
    return ""


needs_spark = pytest.mark.skipif(bool(spark_missing()), reason=f"no Spark: {spark_missing()}")


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


def test_without_java_spark_says_so(monkeypatch, tmp_path):
    pytest.importorskip("pyspark")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(UserError, match="--engine=spark needs Java.*--engine=duckdb does not.*Received: no java"):
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
    with pytest.raises(UserError, match="must consist of letters"):
        literal("x' OR '1'='1")


def test_a_result_comes_in_its_order_and_a_working_directory_goes(tmp_path):
    with engines.connect("duckdb", tmp_path / "out") as engine:
        assert list(tmp_path.iterdir()) == [engine.directory]
        engine.execute("CREATE TABLE t AS SELECT hash(range) AS h FROM range(200000)")
        found = engine.stream("SELECT h FROM t ORDER BY h").read_all().column("h").to_pylist()
    assert found == sorted(found) and len(found) == 200_000
    assert not list(tmp_path.iterdir())
