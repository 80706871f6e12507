"""What runs the pipelines' SQL: DuckDB in this process, or Spark (the extra `spark`, needs Java).

Both run the same text. It stays within what they share: tables made by `CREATE TABLE name AS`, functions by Spark's
names (`duckdb_functions.sql` defines those that DuckDB lacks), integers that are divided only as doubles ("1000e0"),
sums of integers only, so that no order of summation can change a result.
"""

import abc
import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet

from dlen_cam2.utils.errors import UserError

ENGINES = ("duckdb", "spark")
_BATCH = 16384


class Engine(abc.ABC):
    """Tables by name, in a working directory that is given up at the end.

    Attributes:
        directory: the working directory.
    """

    directory: pathlib.Path

    @abc.abstractmethod
    def execute(self, statement: str, what: str = "") -> None:
        """Run one statement that returns nothing; `what` to say before any error of the engine."""

    @abc.abstractmethod
    def query(self, text: str) -> list[tuple[Any, ...]]:
        """All rows of a small result."""

    @abc.abstractmethod
    def stream(self, text: str) -> pa.RecordBatchReader:
        """A result in its order, batch by batch, without holding all of it."""

    @abc.abstractmethod
    def load_text(self, table: str, files: Sequence[pathlib.Path], columns: Sequence[str], delimiter: str) -> None:
        """Make a table of strings of these columns of CSV files with a header; an empty field is null."""

    @abc.abstractmethod
    def load_parquet(self, table: str, file: pathlib.Path) -> None:
        """Make a table of a Parquet file."""

    @abc.abstractmethod
    def append(self, table: str, rows: pa.Table) -> None:
        """Add rows to a table; the first rows make it."""

    @abc.abstractmethod
    def put(self, table: str, rows: pa.Table) -> None:
        """Make a table of rows in memory."""

    def save(self, table: str, file: pathlib.Path) -> None:
        """Write a table as a Parquet file."""
        rows = self.stream(f"SELECT * FROM {table}")
        with pyarrow.parquet.ParquetWriter(file, rows.schema, compression="zstd") as writer:
            for batch in rows:
                writer.write_batch(batch)

    def run(self, file: pathlib.Path) -> None:
        """Run the statements of a file, which end with a semicolon at the end of a line."""
        text = re.sub(r"(?m)^\s*--.*$", "", file.read_text(encoding="utf-8"))
        for statement in re.split(r";[ \t]*$", text, flags=re.MULTILINE):
            if statement.strip():
                self.execute(statement)

    def drop(self, *tables: str) -> None:
        for table in tables:
            self.execute(f"DROP TABLE IF EXISTS {table}")

    def one(self, text: str) -> Any:
        """The only value of a result."""
        ((value,),) = self.query(text)
        return value


class Duckdb(Engine):
    """DuckDB in this process; what does not fit into `memory` (such as "2GB") goes to the working directory."""

    def __init__(self, directory: str, memory: str):
        self.directory = pathlib.Path(directory)
        with explained(duckdb.Error, f"{self.directory} cannot hold tables"):
            self._connection = duckdb.connect(str(self.directory / "work.duckdb"))
        if self.one("SELECT current_setting('enable_progress_bar')"):
            # In Jupyter without ipywidgets it is off, and DuckDB refuses to change it.
            self.execute("SET enable_progress_bar = false")
        self.execute("SET TimeZone = 'UTC'")
        try:
            self._connection.execute(f"SET memory_limit = '{_quantity(memory)}'")
        except duckdb.Error as error:
            raise UserError(f"memory must be an amount such as 2GB. Received: {memory!r}.") from error
        self.run(pathlib.Path(__file__).with_name("duckdb_functions.sql"))

    def execute(self, statement: str, what: str = "") -> None:
        with explained(duckdb.Error, what):
            self._connection.execute(statement)

    def query(self, text: str) -> list[tuple[Any, ...]]:
        with explained(duckdb.Error):
            return self._connection.sql(text).fetchall()

    def stream(self, text: str) -> pa.RecordBatchReader:
        with explained(duckdb.Error):
            found = self._connection.cursor().sql(text).to_arrow_reader(_BATCH)

        def batches() -> Iterator[pa.RecordBatch]:
            with explained((duckdb.Error, OSError)):  # Arrow passes on as OSError what fails on the way
                yield from found

        return pa.RecordBatchReader.from_batches(found.schema, batches())

    def load_text(self, table: str, files: Sequence[pathlib.Path], columns: Sequence[str], delimiter: str) -> None:
        names = ", ".join(map(quoted, columns))
        with explained(duckdb.Error, f"{', '.join(map(str, files))} cannot be read as CSV"):
            self._connection.execute(
                f"CREATE TABLE {table} AS SELECT {names} FROM read_csv($1, header = true, all_varchar = true, "
                "delim = $2, quote = '\"', escape = '\"', union_by_name = true, strict_mode = true)",
                [list(map(str, files)), delimiter],
            )

    def load_parquet(self, table: str, file: pathlib.Path) -> None:
        with explained(duckdb.Error, f"{file} cannot be read as Parquet"):
            self._connection.execute(f"CREATE TABLE {table} AS SELECT * FROM read_parquet($1)", [str(file)])

    def put(self, table: str, rows: pa.Table) -> None:
        self._connection.register("given", rows)
        self.execute(f"CREATE TABLE {table} AS SELECT * FROM given")
        self._connection.unregister("given")

    def save(self, table: str, file: pathlib.Path) -> None:
        target = str(file).replace("'", "''")
        self.execute(f"COPY {table} TO '{target}' (FORMAT parquet, COMPRESSION zstd)")  # on all cores

    def append(self, table: str, rows: pa.Table) -> None:
        self._connection.register("given", rows)
        self.execute(f"CREATE TABLE IF NOT EXISTS {table} AS SELECT * FROM given WHERE false")
        self.execute(f"INSERT INTO {table} BY NAME SELECT * FROM given")
        self._connection.unregister("given")

    def close(self) -> None:
        self._connection.close()


class Spark(Engine):
    """Spark, in this process or on the cluster of `master`; tables lie as Parquet in the working directory.

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
            "spark.driver.memory": _quantity(memory).replace("GB", "g").replace("MB", "m"),
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
            yield from found.to_batches(batch_size=_BATCH)
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

    def close(self) -> None:
        self._session.stop()


@contextlib.contextmanager
def connect(name: str, beside: str | os.PathLike, memory: str = "2GB", master: str = "local[*]") -> Iterator[Engine]:
    """The engine `name` with a working directory beside `beside`, which is removed at the end.

    Args:
        name: one of `ENGINES`.
        beside: the data set to write; where it goes, there is room, and every machine of a cluster must see it.
        memory: what the engine may use, such as "2GB", before it goes to disk (of Spark: the driver).
        master: of Spark, such as "local[*]", "yarn" or "spark://host:7077".

    Raises:
        UserError: there is no such engine, or it cannot be started.
    """
    if name not in ENGINES:
        raise UserError(f"engine must be one of {ENGINES}. Received: {name!r}.")
    target = pathlib.Path(beside).resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        directory = tempfile.mkdtemp(prefix=f".{target.name}.work-", dir=target.parent)
    except OSError as error:
        raise UserError(f"{target} cannot be created: {error}.") from error
    try:
        engine = Duckdb(directory, memory) if name == "duckdb" else Spark(directory, memory, master)
        try:
            yield engine
        finally:
            engine.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


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
            "--engine=spark needs Java 17 or later: install it, or set JAVA_HOME. --engine=duckdb needs none. "
            f"Received: no java on PATH, JAVA_HOME={home!r}."
        )


def quoted(name: str) -> str:
    """A column's name in SQL. Raises `UserError` if it has a character that could end it."""
    if '"' in name or "`" in name or not name.isprintable():
        raise UserError(f"a column's name must be printable, without quotation marks. Received: {name!r}.")
    return f'"{name}"'


def literal(text: str) -> str:
    """A string in SQL, by letters, digits and signs that mean nothing there; raises `UserError` for others."""
    if not re.fullmatch(r"[\w.:+ -]*", text):
        raise UserError(f"{text!r} must hold letters, digits, and . : + - _ only.")
    return f"'{text}'"


def _quantity(memory: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]*(GB|MB)", memory):
        raise UserError(f"memory must be an amount such as 2GB or 500MB. Received: {memory!r}.")
    return memory


def brief(error: Exception) -> str:
    """The error in one line, without DuckDB's advice, which names options that nobody can set here."""
    text = re.split(r"\n\s*(?:Possible |LINE \d+:|file = )|Try setting ", str(error))[0]
    if found := re.match(r"(?s).*CSV Error on Line: (\d+)\s+Original Line: (.*)\n(.*)", text):
        file = re.search(r"\n\s*file = (.*)", str(error))
        where = f"line {found[1]}" + (f" of {file[1]}" if file else "")
        text = f"{where}, {found[2][:100]!r}: {found[3]}"
    return textwrap.shorten(text, 400, placeholder=" …")


@contextlib.contextmanager
def explained(errors: type[Exception] | tuple[type[Exception], ...], what: str = "") -> Iterator[None]:
    """Turn the engine's errors about what it was given into a `UserError`; others are defects of ours."""
    try:
        yield
    except errors as error:
        about_values = isinstance(error, (duckdb.ConversionException, duckdb.OutOfRangeException))
        about_values |= "CAST" in str(error)
        # The disk is full, a file or quota has reached its limit, or the memory's.
        about_room = isinstance(error, (duckdb.OutOfMemoryException, duckdb.IOException, OSError))
        about_room |= "No space left" in str(error)
        if not (what or about_values or about_room):
            raise
        what = what or ("a value cannot be used" if about_values else "there is too little room")
        raise UserError(f"{what}. Received: {brief(error)}") from error
