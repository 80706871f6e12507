"""Loads CSV files into typed tables of an engine; every value is checked before it is cast."""

import csv
import pathlib
from collections.abc import Mapping, Sequence

from dlen_cam2.utils.errors import UserError
from pipelines.engines import Engine, quoted

# When a text is a value of the type; a null is one of any type. A cast back and forth also refuses what an engine
# would round or trim: "1.5" and " 1" are no integers.
_VALID = {
    "BIGINT": "coalesce(CAST(TRY_CAST({0} AS BIGINT) AS STRING) = {0}, false)",
    "DOUBLE": "TRY_CAST({0} AS DOUBLE) IS NOT NULL",
    "DATE": "TRY_CAST({0} AS DATE) IS NOT NULL",
    "STRING": "true",
}
_KIND = {"BIGINT": "integers", "DOUBLE": "numbers", "DATE": "dates such as 2022-04-25"}


def load(
    engine: Engine, table: str, files: Sequence[pathlib.Path], types: Mapping[str, str], key: str = "",
    required: Sequence[str] = (), delimiter: str = ",",
) -> None:
    """Create `table` with the columns of `types` from CSV files with a header, which may have further columns.

    Args:
        engine: the engine that gets the table.
        files: the files, in UTF-8; each must have all columns, in any order.
        types: "BIGINT", "DOUBLE", "DATE" or "STRING" by column.
        key: a column whose values must be unique and not empty.
        required: columns that must have a value in every row.
        delimiter: the delimiter between fields.

    Raises:
        UserError: a file or column is missing, a file is not UTF-8 text or not CSV, or a value has the wrong type.
    """
    if not files:
        columns = ", ".join(f"CAST(NULL AS {t}) AS {quoted(c)}" for c, t in types.items())
        engine.execute(f"CREATE TABLE {table} AS SELECT * FROM (SELECT {columns}) AS none WHERE false")
        return
    for path in files:
        header = _header(path, delimiter)
        if missing := [c for c in types if c not in header]:
            raise UserError(f"{path} has no column {missing}. Received columns: {header}.")
        if twice := sorted({c for c in types if header.count(c) > 1}):
            raise UserError(f"{path} must name each column once. Received twice: {twice}.")
    names = ", ".join(map(str, files))
    engine.load_text(f"{table}_text", files, list(types), delimiter)
    if (wrong := _wrong(engine, f"{table}_text", types)) is not None:
        guilty = names
        for path in files if len(files) > 1 else ():  # which of them it is
            engine.load_text(f"{table}_one", [path], list(types), delimiter)
            if _wrong(engine, f"{table}_one", types) == wrong:
                guilty = str(path)
            engine.drop(f"{table}_one")
        column, found = wrong
        raise UserError(f"{guilty}: column {column!r} must hold {_KIND[types[column]]}. Received: {found!r}.")
    casts = ", ".join(f"CAST({quoted(c)} AS {t}) AS {quoted(c)}" for c, t in types.items())
    engine.execute(f"CREATE TABLE {table} AS SELECT {casts} FROM {table}_text")
    engine.drop(f"{table}_text")
    for column in [key, *required] if key else required:
        if engine.one(f"SELECT count(*) FROM {table} WHERE {quoted(column)} IS NULL"):
            raise UserError(f"{names}: each row must have a {column}. Received: a row without one.")
    if key:
        repeated = engine.query(f"SELECT {quoted(key)} FROM {table} GROUP BY {quoted(key)} HAVING count(*) > 1 LIMIT 1")
        if repeated:
            raise UserError(f"{names}: each {key} may have one row. Received twice: {repeated[0][0]}.")


def _wrong(engine: Engine, table: str, types: Mapping[str, str]) -> tuple[str, str] | None:
    """The first column that holds a text that is not a value of its type, and that text."""
    tests = ", ".join(
        f"min(CASE WHEN {quoted(c)} IS NOT NULL AND NOT {_VALID[t].format(quoted(c))} THEN {quoted(c)} END)"
        for c, t in types.items()
    )
    found = zip(types, engine.query(f"SELECT {tests} FROM {table}")[0], strict=True)
    return next(((column, text) for column, text in found if text is not None), None)


def check(engine: Engine, table: str, column: str, rule: str, holds: str) -> None:
    """Raise `UserError` if the condition `holds` is false or unknown for a row of `table`."""
    bad = engine.query(f"SELECT {quoted(column)} FROM {table} WHERE NOT coalesce({holds}, false) LIMIT 1")
    if bad:
        raise UserError(f"{table}: column {column!r} must be {rule}. Received: {bad[0][0]!r}.")


def files(source: pathlib.Path, pattern: str) -> list[pathlib.Path]:
    """The files of `source` that match `pattern`. Raises `UserError` if there are none."""
    found = sorted(source.glob(pattern))
    if not found:
        raise UserError(f"{source} must hold at least one file {pattern}. Received: no such file.")
    return found


def _header(path: pathlib.Path, delimiter: str) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file, delimiter=delimiter), [])
    except (UnicodeDecodeError, OSError, csv.Error) as error:
        raise UserError(f"{path} must be a UTF-8 text file. Received: {error}.") from error
