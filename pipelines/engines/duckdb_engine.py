"""DuckDB in this process."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from dlen_cam2.utils.errors import UserError
from pipelines.engines.engine import BATCH, Engine, quantity, quoted
from pipelines.engines.errors import explained


class Duckdb(Engine):
    """DuckDB in this process; data that does not fit into `memory` (such as "2GB") goes to the working directory."""

    def __init__(self, directory: str, memory: str):
        self.directory = pathlib.Path(directory)
        with explained(duckdb.Error, f"{self.directory} cannot hold tables"):
            self._connection = duckdb.connect(str(self.directory / "work.duckdb"))
        if self.one("SELECT current_setting('enable_progress_bar')"):
            # In Jupyter without ipywidgets it is off, and DuckDB refuses to change it.
            self.execute("SET enable_progress_bar = false")
        self.execute("SET TimeZone = 'UTC'")
        # The features of a day join a dozen tables of the same rows. DuckDB would spend seconds on their best order.
        self.execute("SET disabled_optimizers = 'join_order'")
        try:
            self._connection.execute(f"SET memory_limit = '{quantity(memory)}'")
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
            found = self._connection.cursor().sql(text).to_arrow_reader(BATCH)

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

    def number(self, table: str, name: str, column: str) -> None:
        self.execute(f"CREATE VIEW {name} AS SELECT *, rowid AS {column} FROM {table}")

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
