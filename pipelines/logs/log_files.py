"""A log in any format as the view `log` of DuckDB, and the conversion of its columns to types."""

import csv
import dataclasses
import gzip
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import TextIO

import duckdb
import pyarrow as pa
import pyarrow.parquet

from dlen_cam2.utils.errors import UserError
from pipelines.engines import Engine, brief, quoted

_PARQUET = (".parquet",)
_CSV = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_JSON = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
# Columns of the tables between log and data set, which no column of a schema may be named as.
OURS = ("broken", "split")
_DELIMITERS = (",", "\t", ";", "|")
INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
             "UHUGEINT", "BOOLEAN")


@dataclasses.dataclass(frozen=True)
class Log:
    """The view `log`.

    Attributes:
        name: the files, for messages.
        types: DuckDB's type of each column. For CSV and JSON, all are VARCHAR: text that `cast` reads.
        file: SQL for the file of a row.
    """

    name: str
    types: dict[str, str]
    file: str

    def column(self, name: str) -> str:
        """SQL for a column. Raises `UserError` if it does not exist."""
        if name not in self.types:
            raise UserError(f"{self.name} has no column {name!r}{_header(self.types)}. "
                            f"Received columns: {sorted(self.types)}.")
        return quoted(name)

    def cast(self, name: str, wanted: str, is_list: bool = False) -> str:
        """SQL for the column as `wanted` ("BIGINT", "DOUBLE", "VARCHAR") or a list of it; null where that fails."""
        column, found = self.column(name), self.types[name]
        if is_list and found == "VARCHAR":
            # A JSON list, or values separated by spaces.
            values = f"TRY_CAST(json_extract_string({column}, '$[*]') AS VARCHAR[])"
            items = (f"CASE WHEN {column} LIKE '[%' THEN CASE WHEN json_valid({column}) THEN {values} END "
                     f"WHEN trim({column}) = '' THEN [] ELSE string_split_regex(trim({column}), ' +') END")
            return items if wanted == "VARCHAR" else f"TRY_CAST({items} AS {wanted}[])"
        if is_list:
            return f"TRY_CAST({column} AS {wanted}[])"
        if wanted == "BIGINT" and found == "VARCHAR":
            # true and false are what JSON and many CSVs have for labels.
            return f"CASE lower({column}) WHEN 'true' THEN 1 WHEN 'false' THEN 0 ELSE TRY_CAST({column} AS BIGINT) END"
        return f"TRY_CAST({column} AS {wanted})"

    def missing(self, name: str) -> str:
        """SQL for whether the value of a column is missing; NaN, which pandas writes for that, counts as missing."""
        column = self.column(name)
        if self.types[name] not in ("FLOAT", "DOUBLE"):
            return f"({column} IS NULL)"
        # DuckDB answers isnan from a Parquet file's least and greatest value, which leave NaN out.
        return f"({column} IS NULL OR (NOT isfinite({column}) AND NOT isinf({column})))"

    def valid(self, name: str, wanted: str, is_list: bool = False) -> str:
        """SQL for whether the value of the column is one of `wanted` and would not be rounded or truncated."""
        column, found = self.column(name), self.types[name]
        value = self.cast(name, wanted, is_list)
        if is_list:
            holes = f"list_contains(list_transform({value}, lambda v: v IS NULL), true)"
            exact = "true"
            if wanted == "BIGINT" and found == "VARCHAR":
                texts = self.cast(name, "VARCHAR", True)
                whole = f"list_transform({texts}, lambda t: regexp_full_match(t, '-?[0-9]+'))"
                exact = f"list_bool_and({whole}) IS NOT FALSE"
            elif wanted == "BIGINT" and not found.startswith(INTEGERS):
                exact = "false"
            elif found == "VARCHAR":  # "a|b" is no list of one text
                exact = f"({column} LIKE '[%' OR NOT regexp_matches({column}, '[,;|]'))"
            return f"({value} IS NOT NULL AND NOT {holes} AND {exact})"
        if wanted == "VARCHAR":
            return "true" if found == "VARCHAR" or found in INTEGERS else "false"
        if wanted == "BIGINT" and found == "VARCHAR":
            # 3.0 is what pandas writes for a 3 in a column with values that are missing.
            return f"(regexp_full_match(lower({column}), '-?[0-9]+([.]0*)?|true|false') AND {value} IS NOT NULL)"
        if wanted == "BIGINT" and found not in INTEGERS:
            return f"(TRY_CAST({value} AS DOUBLE) = TRY_CAST({column} AS DOUBLE))"  # 3.0, as null makes of integers
        return f"({value} IS NOT NULL)"


def open_log(engine: Engine, files: Sequence[pathlib.Path]) -> Log:
    """Create the view `log` from files with the same columns and one format, chosen by the file extension.

    Raises:
        UserError: an extension is unknown, formats are mixed, a file is damaged, a column occurs twice, or the columns
            of files differ (in JSON, an object need not have every name).
    """
    kinds = {kind for path in files for kind in (_PARQUET, _CSV, _JSON) if path.name.lower().endswith(kind)}
    if len(kinds) != 1 or any(not path.name.lower().endswith(tuple(kinds)[0]) for path in files):
        known = ", ".join((*_PARQUET, *_CSV, *_JSON))
        raise UserError(f"the logs must all have the same extension, one of {known}. "
                        f"Received: {[p.name for p in files][:5]}.")
    (kind,) = kinds
    readers: list[str] = []
    types: dict[str, str] = {}
    for path in files:
        try:
            reader, columns = _READERS[kind](engine, path)
        except (duckdb.Error, pa.ArrowException, UserError, OSError, UnicodeDecodeError, csv.Error) as error:
            reason = error.__cause__ if isinstance(error.__cause__, Exception) else error  # an engine's own words
            raise UserError(f"{path} cannot be read. Received: {brief(reason)}") from error
        _once(path, [name for name, _ in columns])
        found = dict(columns)
        if types and kind is not _JSON:
            _same(path, found, files[0], types)
        readers.append(reader)
        types |= found
    names = ", ".join(map(str, files[:3])) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
    file = quoted("file" + "_" * max(map(len, types), default=0))  # no column's name
    selects = [f"SELECT *, {_text(str(path))} AS {file} FROM {reader}"
               for path, reader in zip(files, readers, strict=True)]
    engine.execute("CREATE VIEW log AS " + " UNION ALL BY NAME ".join(selects))
    return Log(names, types, file)


_Columns = list[tuple[str, str]]


def _parquet(engine: Engine, path: pathlib.Path) -> tuple[str, _Columns]:
    names = pyarrow.parquet.read_schema(path).names  # DuckDB would rename columns that occur twice
    reader = f"read_parquet({_path(path)})"
    found = engine.query(f"DESCRIBE SELECT * FROM {reader}")
    types = [(name, dtype) for name, (_, dtype, *_) in zip(names, found, strict=True)]
    texts = {name for name, dtype in types if dtype == "UUID" or dtype.startswith("ENUM")}
    if texts:
        casts = ", ".join(f"CAST({quoted(name)} AS VARCHAR) AS {quoted(name)}" for name in sorted(texts))
        reader = f"(SELECT * REPLACE ({casts}) FROM {reader})"
    return reader, [(name, "VARCHAR" if name in texts else dtype) for name, dtype in types]


def _csv(engine: Engine, path: pathlib.Path) -> tuple[str, _Columns]:
    """Read a CSV file. Its first line names the columns; the delimiter is the most frequent of `_DELIMITERS` there."""
    with _open(path) as file:
        first = file.readline()
    if not first.strip():
        raise UserError("a file without a header")
    delimiter = max(_DELIMITERS, key=first.count)
    header = next(csv.reader([first], delimiter=delimiter))
    columns = ", ".join(f"{_text(name)}: 'VARCHAR'" for name in dict.fromkeys(header))
    reader = (f"read_csv({_path(path)}, auto_detect = false, header = true, delim = '{delimiter}', quote = '\"', "
              f"escape = '\"', strict_mode = true, null_padding = false, columns = {{{columns}}})")
    return reader, [(name, "VARCHAR") for name in header]


def _json(engine: Engine, path: pathlib.Path) -> tuple[str, _Columns]:
    reader = f"read_json({_path(path)}, format = 'newline_delimited', sample_size = -1)"
    names = [name for name, *_ in engine.query(f"DESCRIBE SELECT * FROM {reader}")]
    if names == ["json"]:  # DuckDB's name for what is no object
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                if not line.lstrip().startswith("{") and line.strip():
                    raise UserError(f"line {number}, where each must be an object: {line.strip()[:60]!r}")
    columns = ", ".join(f"{_text(name)}: 'VARCHAR'" for name in names)
    reader = f"read_json({_path(path)}, format = 'newline_delimited', columns = {{{columns}}})"
    return reader, [(name, "VARCHAR") for name in names]


_READERS = {_PARQUET: _parquet, _CSV: _csv, _JSON: _json}


def _open(path: pathlib.Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _once(path: pathlib.Path, columns: Sequence[str]) -> None:
    """Check that each column occurs once; names in SQL are not case-sensitive."""
    known: dict[str, str] = {}
    for name in columns:
        if name.lower() in known:
            raise UserError(f"{path} must not have two columns {known[name.lower()]!r} and {name!r}, since case is "
                            f"ignored{_header(columns)}. Received columns: {list(columns)}.")
        known[name.lower()] = name


def _same(path: pathlib.Path, found: dict[str, str], first: pathlib.Path, types: dict[str, str]) -> None:
    """Raise `UserError` unless two files have the same columns, of the same types."""
    if found.keys() != types.keys():
        raise UserError(f"{path} must have the columns of {first}{_header(found)}. Received: missing columns "
                        f"{sorted(types.keys() - found.keys())}, new columns {sorted(found.keys() - types.keys())}.")
    for name, dtype in types.items():
        if found[name] != dtype:
            raise UserError(f"{path} must have the column types of {first}. Received: {name!r} is {found[name]} in "
                            f"{path.name}, and {dtype} in {first.name}.")


def _header(columns: Iterable[str]) -> str:
    """A hint for the message if column names are numbers."""
    numbers = any(re.fullmatch(r"-?\d+(\.\d+)?", name) for name in columns)
    return "; the first line of a CSV file must name its columns" if numbers else ""


def _path(path: pathlib.Path) -> str:
    """A path as an SQL string in which pattern characters are taken literally."""
    escaped = "".join(f"[{c}]" if c in "*?[" else c for c in str(path))
    return _text(escaped)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
