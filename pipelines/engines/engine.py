"""What an engine does, and how names and texts stand in its SQL."""

import abc
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from dlen_cam2.utils.errors import UserError

BATCH = 16384  # rows


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


def quoted(name: str) -> str:
    """A column's name in SQL. Raises `UserError` if it has a character that could end it."""
    if '"' in name or "`" in name or not name.isprintable():
        raise UserError(f"a column's name must be printable, without quotation marks. Received: {name!r}.")
    return f'"{name}"'


def literal(text: str) -> str:
    """A string in SQL, by letters, digits and signs that mean nothing there; raises `UserError` for others."""
    if not re.fullmatch(r"[\w.:+ -]*", text):
        raise UserError(f"the name must consist of letters, digits, spaces and . : + - _ only. Received: {text!r}.")
    return f"'{text}'"


def quantity(memory: str) -> str:
    """`memory` if it is an amount; raises `UserError` otherwise."""
    if not re.fullmatch(r"[1-9][0-9]*(GB|MB)", memory):
        raise UserError(f"memory must be an amount such as 2GB or 500MB. Received: {memory!r}.")
    return memory
