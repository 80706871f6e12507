"""A log's columns as SQL: casts to the schema's types, and the first rule that a row breaks."""

from collections.abc import Mapping

from dlen_cam2.schema import Known, Schema
from dlen_cam2.utils.errors import UserError
from pipelines.engines import Engine, literal
from pipelines.logs.log_files import Log
from pipelines.logs.read_columns import Read, read_columns
from pipelines.logs.roles import UNITS, Roles
from pipelines.logs.split_by import SPLITS

YOUNG = "_young"
_LISTS = {"int": "a list of integers within 64 bits", "string": "a list of texts"}
_IN_TEXT = {"int": " as JSON, such as [1, 2], or separated by spaces",
            "string": ' as JSON, such as ["a", "b"], or separated by spaces'}
_SQL = {"int": "BIGINT", "float": "DOUBLE", "string": "VARCHAR"}


def holds_texts(engine: Engine, log: Log, name: str) -> bool:
    """Whether an id column that the schema does not describe has a value that is not an integer."""
    if log.types[name] != "VARCHAR":
        return False
    column = log.column(name)
    return bool(engine.one(f"SELECT count(*) FROM log WHERE {column} IS NOT NULL AND NOT {log.valid(name, 'BIGINT')}"))


def check_time(engine: Engine, log: Log, roles: Roles) -> None:
    """Raise `UserError` if most rows have no time in the time column of `roles`."""
    if roles.time:
        rule, holds = _time_rule(log, roles)
        right = f"coalesce({holds}, false)"
        rows, wrong, example = engine.query(
            f"SELECT count(*), count(*) FILTER (NOT {right}), min(CAST({log.column(roles.time)} AS VARCHAR)) "
            f"FILTER (NOT {right}) FROM log")[0]
        if 2 * wrong > rows:
            raise UserError(f"{log.name}: column {roles.time!r} must be {rule}. Received: {example}; "
                            f"{wrong:,} of {rows:,} rows have no such time.")


def typed(log: Log, schema: Schema, roles: Roles, end_ms: int = 0) -> dict[str, str]:
    """SQL for each column of `typed`, by name: those of the schema that are not computed, and those that features read.

    Args:
        log, schema, roles: the log and the meaning of its columns.
        end_ms: the end of the log. Rows that are younger than a label's attribution window then are in splits `_young`.
    """
    features = {f.name: f for f in schema.features}
    labels, numbers = _labels(schema)
    columns = {}
    for name, dtype in schema.columns.items():
        if name in features and features[name].computed:
            continue
        if name == roles.time:
            columns[name] = time_ms(log, roles, name)
            continue
        is_list = name in features and features[name].is_list
        if name in labels or numbers.get(name):
            value = _attributed(log, roles, schema, name, _label(log, labels | numbers, name, _SQL[dtype]))
        else:
            value = log.cast(name, _SQL[dtype], is_list)
        if name in features and not features[name].is_numeric:
            value = f"coalesce({value}, {'[]' if is_list else -1 if dtype == 'int' else repr('')})"
        columns[name] = value
    for name, read in read_columns(schema, log).items():
        columns[name] = _read(log, roles, name, read)
    if roles.split_by is None:
        # A wrong time has no day; its row breaks a rule.
        local = f"{time_ms(log, roles, roles.time)} + {roles.utc_offset * 3_600_000}"
        local = f"CASE WHEN {local} BETWEEN 0 AND 4102444800000 THEN {local} END"
        day = f"strftime(make_timestamp({local} * 1000), '%Y%m%d')"
    else:
        day = roles.split_by.sql(log, columns[roles.item if roles.split_by.way == "item" else roles.user])
    random = f"CASE WHEN {log.cast(roles.random, 'BIGINT')} = 1 THEN '_random' ELSE '' END" if roles.random else "''"
    columns["split"] = f"{day} || {random}"
    if within := attribution_ms(schema):
        young = f"CASE WHEN {time_ms(log, roles, roles.time)} > {end_ms - within} THEN '{YOUNG}' ELSE '' END"
        columns["split"] += f" || {young}"
    return columns


def attribution_ms(schema: Schema) -> int:
    """How long a row must wait until all of its labels count, in milliseconds; 0: not at all."""
    return max((round(known.within * 1000) for known in schema.known.values()), default=0)


def _read(log: Log, roles: Roles, name: str, read: Read) -> str:
    """SQL for a column that only features read; what is missing is no event, or a key of its own."""
    if read == "time":
        return time_ms(log, roles, name)
    absent = {"binary": "0", "int": "-1", "string": "''"}.get(read)
    value = log.cast(name, _SQL["int" if read == "binary" else read])
    return value if absent is None else f"coalesce({value}, {absent})"


def _attributed(log: Log, roles: Roles, schema: Schema, name: str, value: str) -> str:
    """SQL for a label, which is 0 where its time is too long after the exposure (`Known.within`)."""
    known = schema.known.get(name, Known())
    if not known.within:
        return value
    late = f"{time_ms(log, roles, known.at)} - {time_ms(log, roles, roles.time)} > {round(known.within * 1000)}"
    return f"CASE WHEN {late} THEN 0 ELSE {value} END"


def _labels(schema: Schema) -> tuple[dict[str, str], dict[str, str]]:
    """The masks of binary labels, and of labels that are numbers: {label: mask, or ""}."""
    found = ({t.label: t.mask for t in schema.tasks if t.is_number == number} for number in (False, True))
    return next(found), next(found)


def _label(log: Log, labels: Mapping[str, str], name: str, sql: str = "BIGINT") -> str:
    """SQL for a label, which may be missing where its task's mask is 0, and counts as 0 there."""
    value, mask = log.cast(name, sql), labels.get(name)
    return f"coalesce({value}, CASE WHEN {_label(log, labels, mask)} = 0 THEN 0 END)" if mask else value


def time_ms(log: Log, roles: Roles, name: str) -> str:
    """SQL for the time in a column, in milliseconds since 1970; null where it is none."""
    column, found = log.column(name), log.types[name]
    if found.startswith("TIMESTAMP WITH"):
        return f"epoch_ms({column})"
    if found.startswith(("TIMESTAMP", "DATE")):
        return f"epoch_ms(CAST({column} AS TIMESTAMP))"
    # As doubles these are exact to far beyond any year, and cannot overflow.
    time = f"TRY_CAST(floor(TRY_CAST({column} AS DOUBLE) * {UNITS[roles.unit]}) AS BIGINT)"
    return f"coalesce({time}, epoch_ms(TRY_CAST({column} AS TIMESTAMPTZ)))" if found == "VARCHAR" else time


def _time_rule(log: Log, roles: Roles) -> tuple[str, str]:
    """The rule for a time, in words and as SQL."""
    return (f"a time from 2000-01-01 to now (unit {roles.unit}; see --time_unit)",
            f"{time_ms(log, roles, roles.time)} BETWEEN 946684800000 AND {roles.now_ms}")


def broken(log: Log, schema: Schema, roles: Roles) -> str:
    """SQL for the first rule that a row breaks, with the value received and its file, or null; see `typed`."""
    lists = {f.name for f in schema.features if f.is_list}
    labels, numbers = _labels(schema)
    features = {f.name: f for f in schema.features}
    rules = []

    def rule(name: str, text: str, holds: str) -> None:
        received = f"coalesce(CAST({log.column(name)} AS VARCHAR), 'nothing')"
        said = f"column '{name}' must be {text}".replace("'", "''")
        rules.append(f"WHEN NOT coalesce({holds}, false) THEN "
                     f"{{'rule': '{said}', 'received': left({received}, 80), 'file': {log.file}}}")

    if roles.time:
        rule(roles.time, *_time_rule(log, roles))
    elif roles.split_column:
        rule(roles.split_column, f"one of {', '.join(SPLITS)}",
             f"{log.cast(roles.split_column, 'VARCHAR')} IN ({', '.join(map(literal, SPLITS))})")
    for name, dtype in schema.columns.items():
        if name == roles.time or name in features and features[name].computed:
            continue
        kind = {"int": "an integer within 64 bits", "float": "a finite number", "string": "text"}[dtype]
        column, valid = log.column(name), log.valid(name, _SQL[dtype], name in lists)
        if labels.get(name):
            absent = f"{log.missing(name)} AND {_label(log, labels, labels[name])} = 0"
            rule(name, f"0 or 1 (where its mask {labels[name]!r} is 0, it may be missing)",
                 f"({absent}) OR {valid} AND {log.cast(name, 'BIGINT')} IN (0, 1)")
        elif name in schema.binary_columns:
            rule(name, "0 or 1", f"{valid} AND {log.cast(name, 'BIGINT')} IN (0, 1)")
        elif name in features and not features[name].is_numeric and name not in (roles.user, roles.item):
            if name in lists:
                kind = _LISTS[dtype] + (_IN_TEXT[dtype] if log.types[name] == "VARCHAR" else "")
            rule(name, kind, f"{log.missing(name)} OR {valid}")
        elif dtype == "float":
            low, high = features[name].domain if name in features else (float("-inf"), float("inf"))
            value = log.cast(name, "DOUBLE")
            within = f"isfinite(TRY_CAST({value} AS FLOAT))"  # it becomes a float32, which ends at 3.4e38
            within += f" AND {value} >= {low}" if low > float("-inf") else ""
            within += f" AND {value} <= {high}" if high < float("inf") else ""
            where = f" in [{low:g}, {high:g}]" if low > float("-inf") else ""
            holds = f"{valid} AND {within}"
            if mask := numbers.get(name):
                where += f" (where its mask {mask!r} is 0, it may be missing)"
                holds = f"({log.missing(name)} AND {_label(log, labels, mask)} = 0) OR {holds}"
            rule(name, kind + where, holds)
        elif dtype == "string":
            rule(name, "text that is not empty", f"{column} <> '' AND {valid}")
        else:
            rule(name, kind, f"{column} IS NOT NULL AND {valid}")
    for name, read in read_columns(schema, log).items():
        if read == "binary":
            valid = f"{log.valid(name, 'BIGINT')} AND {log.cast(name, 'BIGINT')} IN (0, 1)"
            rule(name, "0 or 1", f"{log.missing(name)} OR {valid}")
        elif read == "float":
            rule(name, "a finite number", f"{log.missing(name)} OR isfinite({log.cast(name, 'DOUBLE')})")
        elif read != "time":
            kind = {"int": "an integer within 64 bits", "string": "text"}[read]
            rule(name, kind, f"{log.missing(name)} OR {log.valid(name, _SQL[read])}")
    for name, known in schema.known.items():
        if known.after:
            value = log.cast(known.after, "DOUBLE")
            rule(known.after, f"a number of seconds of at least 0, after which '{name}' is known",
                 f"isfinite({value}) AND {value} >= 0")
        if known.at:
            value, time = log.cast(name, "DOUBLE"), time_ms(log, roles, known.at)
            rule(known.at, f"a time that is not before that of the exposure, where '{name}' is not 0",
                 f"coalesce({value}, 0) = 0 OR {time} >= {time_ms(log, roles, roles.time)}")
    if roles.random:
        value = log.cast(roles.random, "BIGINT")
        rule(roles.random, "0 or 1", f"{log.valid(roles.random, 'BIGINT')} AND {value} IN (0, 1)")
    return f"CASE {' '.join(rules)} END"
