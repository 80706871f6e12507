"""Spark, in this process or on a cluster."""

import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset

from dlen_cam2.utils.errors import UserError
from pipelines.engines.engine import BATCH, Engine, quantity
from pipelines.engines.errors import brief, explained


class Spark(Engine):
    """Spark, in this process or on the cluster of `master`; tables are Parquet files in the working directory.

    Raises:
        UserError: pyspark is not installed, there is no Java, or the cluster cannot be reached.
    """

    def __init__(self, directory: str, memory: str, master: str):
        try:
            from pyspark.errors import PySparkException
            from pyspark.sql import SparkSession
        except ImportError as error:
            raise UserError(
                "--engine=spark needs pyspark: pip install -e '.[spark]'. Received: no such package."
            ) from error
        check_java()
        self._error: type[Exception] = PySparkException
        self.directory = pathlib.Path(directory)
        # Parquet through Arrow, UTC everywhere, double-quoted names as in the standard.
        settings = {
            "spark.sql.warehouse.dir": str(self.directory / "tables"),
            "spark.sql.ansi.enabled": "true",
            "spark.sql.ansi.doubleQuotedIdentifiers": "true",
            "spark.sql.session.timeZone": "UTC",
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.driver.memory": quantity(memory).replace("GB", "g").replace("MB", "m"),
            "spark.log.level": "ERROR",
        }
        if master.startswith("local"):
            settings |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1",
                         "spark.sql.shuffle.partitions": "4"}
        builder = SparkSession.builder.master(master).appName("dlen_cam2.pipelines")
        for key, value in settings.items():
            builder = builder.config(key, value)
        try:
            self._session = builder.getOrCreate()
        except Exception as error:  # py4j's errors, and plain RuntimeErrors where Java ends
            raise UserError(f"Spark cannot be started with the master {master!r}. Received: {brief(error)}") from error

    def execute(self, statement: str, what: str = "") -> None:
        with explained(self._error, what):
            self._session.sql(statement)

    def query(self, text: str) -> list[tuple[Any, ...]]:
        with explained(self._error):
            return [tuple(row) for row in self._session.sql(text).collect()]

    def stream(self, text: str) -> pa.RecordBatchReader:
        target = tempfile.mkdtemp(prefix="result-", dir=self.directory)
        with explained(self._error):
            self._session.sql(text).write.mode("overwrite").parquet(target)
        # The parts of a sorted result are named in its order.
        parts = sorted(str(p) for p in pathlib.Path(target).glob("part-*.parquet"))
        found = pyarrow.dataset.dataset(parts, format="parquet")

        def batches() -> Iterator[pa.RecordBatch]:
            yield from found.to_batches(batch_size=BATCH)
            shutil.rmtree(target, ignore_errors=True)

        return pa.RecordBatchReader.from_batches(found.schema, batches())

    def load_text(self, table: str, files: Sequence[pathlib.Path], columns: Sequence[str], delimiter: str) -> None:
        with explained(self._error, f"{', '.join(map(str, files))} cannot be read as CSV"):
            reader = self._session.read.options(
                header=True, sep=delimiter, quote='"', escape='"', multiLine=True, mode="FAILFAST", encoding="UTF-8")
            whole = None
            for path in files:  # one by one: columns may stand in another order
                part = reader.csv(str(path)).select(*[f"`{c}`" for c in columns])
                whole = part if whole is None else whole.unionByName(part)
            whole.write.saveAsTable(table)  # type: ignore[union-attr]

    def load_parquet(self, table: str, file: pathlib.Path) -> None:
        with explained(self._error, f"{file} cannot be read as Parquet"):
            self._session.read.parquet(str(file)).write.saveAsTable(table)

    def put(self, table: str, rows: pa.Table) -> None:
        with explained(self._error):
            self._session.createDataFrame(rows).write.saveAsTable(table)

    def append(self, table: str, rows: pa.Table) -> None:
        with explained(self._error):
            self._session.createDataFrame(rows).write.mode("append").saveAsTable(table)

    def number(self, table: str, name: str, column: str) -> None:
        # Written, since the numbers of two scans may differ.
        self.execute(f"CREATE TABLE {name} AS SELECT *, monotonically_increasing_id() AS {column} FROM {table}")

    def close(self) -> None:
        self._session.stop()


def check_java() -> None:
    """Raise `UserError` if there is no Java that Spark could run in."""
    home = os.environ.get("JAVA_HOME")
    java = os.path.join(home, "bin", "java") if home else shutil.which("java")
    try:
        works = java is not None and not subprocess.run([java, "-version"], capture_output=True, check=False).returncode
    except OSError:
        works = False
    if not works:
        raise UserError(
            "--engine=spark needs Java 17 or later: install it, or set JAVA_HOME. --engine=duckdb does not need it. "
            f"Received: no java on PATH, JAVA_HOME={home!r}."
        )
