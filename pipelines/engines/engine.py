"""The interface of an engine, and the quoting of names and texts in its SQL."""

import abc
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from dlen_cam2.utils.errors import UserError

BATCH = 16384  # rows
_TYPES = {
    "int": pa.types.is_integer, "float": pa.types.is_floating,
    "string": lambda dtype: pa.types.is_string(dtype) or pa.types.is_large_string(dtype),
}


class Engine(abc.ABC):
    """Tables by name, in a working directory that is removed at the end.

    Attributes:
        directory: the working directory.
    """

    directory: pathlib.Path

    @abc.abstractmethod
    def execute(self, statement: str, what: str = "") -> None:
        """Run one statement that returns nothing; `what` is put before any error message of the engine."""

    @abc.abstractmethod
    def query(self, text: str) -> list[tuple[Any, ...]]:
        """Run a query and return all rows of its small result."""

    @abc.abstractmethod
    def stream(self, text: str) -> pa.RecordBatchReader:
        """Run a query and yield its result in order, batch by batch, without holding all of it."""

    @abc.abstractmethod
    def load_text(self, table: str, files: Sequence[pathlib.Path], columns: Sequence[str], delimiter: str) -> None:
        """Create a table of strings from these columns of CSV files with a header; an empty field becomes null."""

    @abc.abstractmethod
    def load_parquet(self, table: str, file: pathlib.Path) -> None:
        """Create a table from a Parquet file."""

    @abc.abstractmethod
    def append(self, table: str, rows: pa.Table) -> None:
        """Add rows to a table; the first rows create it."""

    @abc.abstractmethod
    def put(self, table: str, rows: pa.Table) -> None:
        """Create a table from rows in memory."""

    @abc.abstractmethod
    def number(self, table: str, name: str, column: str) -> None:
        """Create the view or table `name`: the rows of `table` and, in `column`, a number that each keeps."""

    def types(self, table: str) -> dict[str, str]:
        """The columns of a table that hold an "int", "float" or "string" each."""
        found = {}
        for field in self.stream(f"SELECT * FROM {table} LIMIT 0").schema:
            for dtype, holds in _TYPES.items():
                if holds(field.type):
                    found[field.name] = dtype
        return found

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
        """Run a query and return the only value of its result."""
        ((value,),) = self.query(text)
        return value


def quoted(name: str) -> str:
    """Quote a column's name for SQL. Raises `UserError` if it has a character that could end the quotation."""
    if '"' in name or "`" in name or not name.isprintable():
        raise UserError(f"a column's name must be printable, without quotation marks. Received: {name!r}.")
    return f'"{name}"'


def literal(text: str) -> str:
    """Quote a string for SQL. Raises `UserError` unless it consists of letters, digits and signs without a meaning."""
    if not re.fullmatch(r"[\w.:+ -]*", text):
        raise UserError(f"the name must consist of letters, digits, spaces and . : + - _ only. Received: {text!r}.")
    return f"'{text}'"


def quantity(memory: str) -> str:
    """Return `memory` if it is an amount of memory; raises `UserError` otherwise."""
    if not re.fullmatch(r"[1-9][0-9]*(GB|MB)", memory):
        raise UserError(f"memory must be an amount such as 2GB or 500MB. Received: {memory!r}.")
    return memory
