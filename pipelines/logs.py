"""A log of any format as the view `log` of DuckDB, and how its columns become typed ones."""

import dataclasses
import pathlib
from collections.abc import Sequence

import duckdb

from dlen_cam2.cli import UserError
from pipelines.engines import Engine, quoted

_PARQUET = (".parquet",)
_CSV = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_JSON = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
             "UHUGEINT", "BOOLEAN")


@dataclasses.dataclass(frozen=True)
class Log:
    """What the view `log` has.

    Attributes:
        name: the files, for messages.
        types: DuckDB's type of each column. Of CSV and JSON all are VARCHAR: text that `cast` reads.
    """

    name: str
    types: dict[str, str]

    def column(self, name: str) -> str:
        """SQL of a column. Raises `UserError` if there is none."""
        if name not in self.types:
            raise UserError(f"{self.name} has no column {name!r}. Received columns: {sorted(self.types)}.")
        return quoted(name)

    def cast(self, name: str, wanted: str, is_list: bool = False) -> str:
        """SQL of the column as `wanted` ("BIGINT", "DOUBLE", "VARCHAR") or a list of it; null where it cannot be."""
        column, found = self.column(name), self.types[name]
        if is_list and found == "VARCHAR":
            # A JSON list, or values separated by spaces.
            items = (f"CASE WHEN {column} LIKE '[%' THEN TRY_CAST(json_extract_string({column}, '$[*]') AS VARCHAR[]) "
                     f"WHEN trim({column}) = '' THEN [] ELSE string_split_regex(trim({column}), ' +') END")
            return items if wanted == "VARCHAR" else f"TRY_CAST({items} AS {wanted}[])"
        if is_list:
            return f"TRY_CAST({column} AS {wanted}[])"
        if wanted == "BIGINT" and found == "VARCHAR":
            # true and false are what JSON and many CSVs have for labels.
            return f"CASE lower({column}) WHEN 'true' THEN 1 WHEN 'false' THEN 0 ELSE TRY_CAST({column} AS BIGINT) END"
        return f"TRY_CAST({column} AS {wanted})"

    def valid(self, name: str, wanted: str, is_list: bool = False) -> str:
        """SQL of whether the column's value is one of `wanted`, and would not be rounded or cut."""
        column, found = self.column(name), self.types[name]
        value = self.cast(name, wanted, is_list)
        if is_list:
            holes = f"list_contains(list_transform({value}, lambda v: v IS NULL), true)"
            exact = "true"
            if wanted == "BIGINT" and found == "VARCHAR":
                texts = self.cast(name, "VARCHAR", True)
                whole = f"list_transform({texts}, lambda t: regexp_full_match(t, '-?[0-9]+'))"
                exact = f"list_bool_and({whole}) IS NOT FALSE"
            elif wanted == "BIGINT" and not found.startswith(_INTEGERS):
                exact = "false"
            return f"({value} IS NOT NULL AND NOT {holes} AND {exact})"
        if wanted == "VARCHAR":
            return "true" if found == "VARCHAR" or found in _INTEGERS else "false"
        if wanted == "BIGINT" and found == "VARCHAR":
            return f"(regexp_full_match(lower({column}), '-?[0-9]+|true|false') AND {value} IS NOT NULL)"
        if wanted == "BIGINT" and found not in _INTEGERS:
            return f"(TRY_CAST({value} AS DOUBLE) = TRY_CAST({column} AS DOUBLE))"  # 3.0, as null makes of integers
        return f"({value} IS NOT NULL)"


def open_log(engine: Engine, files: Sequence[pathlib.Path]) -> Log:
    """Make the view `log` of files that have one format and the same columns, by their endings.

    Raises:
        UserError: an ending is unknown, formats are mixed, a file is damaged, or files disagree about their columns.
    """
    kinds = {kind for path in files for kind in (_PARQUET, _CSV, _JSON) if path.name.lower().endswith(kind)}
    if len(kinds) != 1 or any(not path.name.lower().endswith(tuple(kinds)[0]) for path in files):
        known = ", ".join((*_PARQUET, *_CSV, *_JSON))
        raise UserError(f"logs must all end in one of {known}, in one format. Received: {[p.name for p in files][:5]}.")
    (kind,) = kinds
    names = ", ".join(map(str, files[:3])) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
    columns = {path: _columns(engine, path, kind) for path in files}
    first = columns[files[0]]
    if kind is _JSON:  # an object need not have every name
        first = {name: "VARCHAR" for found in columns.values() for name in found}
        columns = {}
    for path, found in columns.items():
        if found != first:
            different = sorted({c for c in {*found, *first} if found.get(c) != first.get(c)})
            raise UserError(f"{path} must have the columns of {files[0]}. Received: different {different}.")
    paths = "[" + ", ".join(_path(path) for path in files) + "]"
    engine.execute(f"CREATE VIEW log AS SELECT * FROM {_reader(kind, paths, first)}")
    _probe(engine, names)
    return Log(names, first)


def _columns(engine: Engine, path: pathlib.Path, kind: tuple[str, ...]) -> dict[str, str]:
    """The file's columns with their types."""
    try:
        if kind is _JSON:
            found = engine.query(f"DESCRIBE SELECT * FROM read_json({_path(path)}, format = 'newline_delimited', "
                                 "sample_size = -1)")
            return {name: "VARCHAR" for name, *_ in found}
        found = engine.query(f"DESCRIBE SELECT * FROM {_reader(kind, _path(path), {})}")
        return {name: dtype for name, dtype, *_ in found}
    except (duckdb.Error, UserError) as error:
        raise UserError(f"{path} cannot be read. Received: {' '.join(str(error).split())[:400]}") from error


def _reader(kind: tuple[str, ...], paths: str, columns: dict[str, str]) -> str:
    if kind is _PARQUET:
        return f"read_parquet({paths})"
    if kind is _JSON:
        types = ", ".join(f"{_text(name)}: 'VARCHAR'" for name in columns)
        return f"read_json({paths}, format = 'newline_delimited', columns = {{{types}}})"
    return (f"read_csv({paths}, header = true, all_varchar = true, quote = '\"', escape = '\"', strict_mode = true, "
            "union_by_name = true, sample_size = -1)")


def _probe(engine: Engine, names: str) -> None:
    """Read everything once, so that a damaged file is found before anything is made of it."""
    try:
        engine.query("SELECT count(COLUMNS(*)) FROM log")
    except (duckdb.Error, UserError) as error:
        raise UserError(f"{names} cannot be read. Received: {' '.join(str(error).split())[:400]}") from error


def _path(path: pathlib.Path) -> str:
    """A path as a SQL string, with what would be a pattern's sign taken as it is."""
    escaped = "".join(f"[{c}]" if c in "*?[" else c for c in str(path))
    return _text(escaped)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
