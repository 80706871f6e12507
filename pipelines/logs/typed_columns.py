"""A log's columns as SQL: casts to the schema's types, and the first rule that a row breaks."""

from collections.abc import Collection, Mapping

from dlen_cam2.schema import Schema
from dlen_cam2.utils.errors import UserError
from pipelines.engines import Engine, literal
from pipelines.features.point_in_time import BINARY
from pipelines.features.text_ids import TextIds
from pipelines.logs.log_files import Log
from pipelines.logs.roles import UNITS, Roles
from pipelines.logs.split_by import SPLITS

# The columns that point_in_time.sql reads beside time, user and item: what stands for one that the log does not have.
CONTRACT = {
    "author_id": "CAST(-1 AS BIGINT)", "topic": "''", "tab": "CAST(-1 AS BIGINT)", "duration_s": "CAST(0 AS DOUBLE)",
    "play_s": "CAST(NULL AS DOUBLE)",
    **dict.fromkeys(BINARY, "CAST(0 AS BIGINT)"),
}
# What counters and histories count by.
_IDS = ("user_id", "video_id", "author_id", "tab")
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


def text_ids(engine: Engine, log: Log, schema: Schema, roles: Roles, before: Collection[str] | None) -> TextIds:
    """Find the columns that hold texts, among those by which counters and histories count.

    Args:
        engine, log, schema, roles: the log and the meaning of its columns.
        before: for a data set to which days are added, the columns that held texts; None: they have to be found.
    """
    texts = []
    for name in _IDS:
        of = {"user_id": roles.user, "video_id": roles.item}.get(name, name)
        if of in schema.columns:
            holds = schema.columns[of] == "string"
        elif of in log.types:
            holds = holds_texts(engine, log, of) if before is None else name in before
        else:
            holds = False
        texts += [name] if holds else []
    return TextIds(tuple(texts), {name: _aside(name, log) for name in texts if name in schema.columns})


def _aside(name: str, log: Log) -> str:
    """A name that no column of the log has, for a text column whose own name is given to its number."""
    name += " (text)"
    while name in log.types:
        name += "_"
    return name


def typed(log: Log, schema: Schema, roles: Roles, computed: set[str], ids: TextIds) -> dict[str, str]:
    """SQL for each column of `typed`, by name.

    Args:
        log, schema, roles: the log and the meaning of its columns.
        computed: features that are computed because the log does not have them.
        ids: the id columns that hold texts.
    """
    lists = {f.name for f in schema.features if f.is_list}
    labels, numbers = _labels(schema)
    columns = {}
    for name, dtype in schema.columns.items():
        if name in computed:
            continue
        if name == roles.time:
            columns[name] = _time_ms(log, roles)
            continue
        if name in labels or numbers.get(name):
            value = _label(log, labels | numbers, name, _SQL[dtype])
        else:
            value = log.cast(name, _SQL[dtype], name in lists)
        if name in {f.name for f in schema.features if not f.is_numeric}:
            value = f"coalesce({value}, {'[]' if name in lists else -1 if dtype == 'int' else repr('')})"
        columns[ids.names.get(name, name)] = value
    if roles.split_by is None:
        # A wrong time has no day; its row breaks a rule.
        local = f"{_time_ms(log, roles)} + {roles.utc_offset * 3_600_000}"
        local = f"CASE WHEN {local} BETWEEN 0 AND 4102444800000 THEN {local} END"
        day = f"strftime(make_timestamp({local} * 1000), '%Y%m%d')"
    else:
        day = roles.split_by.sql(log, columns[roles.item if roles.split_by.way == "item" else roles.user])
    random = f"CASE WHEN {log.cast(roles.random, 'BIGINT')} = 1 THEN '_random' ELSE '' END" if roles.random else "''"
    columns["split"] = f"{day} || {random}"
    if computed:
        for name, of in (("user_id", roles.user), ("video_id", roles.item), ("time_ms", roles.time)):
            if name in schema.columns and name != of:
                raise UserError(f"a schema with computed features may have the column {name!r} only as the column of "
                                f"--user, --item or --time. Received: {of!r}.")
            sql = "VARCHAR" if name in ids.columns else "BIGINT"
            columns[name] = _time_ms(log, roles) if name == "time_ms" else log.cast(of, sql)
        for name, default in CONTRACT.items():
            sql = {"topic": "VARCHAR", "duration_s": "DOUBLE", "play_s": "DOUBLE"}.get(name, "BIGINT")
            if name in ids.columns:
                sql, default = "VARCHAR", "''"
            of = _of(schema, name)
            if name not in columns:
                columns[name] = f"coalesce({log.cast(of, sql)}, {default})" if of in log.types else default
    return columns


def _labels(schema: Schema) -> tuple[dict[str, str], dict[str, str]]:
    """The masks of binary labels, and of labels that are numbers: {label: mask, or ""}."""
    found = ({t.label: t.mask for t in schema.tasks if t.is_number == number} for number in (False, True))
    return next(found), next(found)


def _label(log: Log, labels: Mapping[str, str], name: str, sql: str = "BIGINT") -> str:
    """SQL for a label, which may be missing where its task's mask is 0, and counts as 0 there."""
    value, mask = log.cast(name, sql), labels.get(name)
    return f"coalesce({value}, CASE WHEN {_label(log, labels, mask)} = 0 THEN 0 END)" if mask else value


def _of(schema: Schema, name: str) -> str:
    """The log's column for a column of the contract: feedback is also found by its task."""
    return next((task.label for task in schema.tasks if task.name == name), name)


def _time_ms(log: Log, roles: Roles) -> str:
    column, found = log.column(roles.time), log.types[roles.time]
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
            f"{_time_ms(log, roles)} BETWEEN 946684800000 AND {roles.now_ms}")


def broken(log: Log, schema: Schema, roles: Roles, computed: set[str], ids: TextIds) -> str:
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
        if name in computed or name == roles.time:
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
    given = set(schema.columns)
    for name in CONTRACT if computed else ():
        of = _of(schema, name)
        if of not in log.types or of in given:
            continue
        given.add(of)
        missing = log.missing(of)
        if name in BINARY:
            rule(of, "0 or 1", f"{missing} OR ({log.valid(of, 'BIGINT')} AND {log.cast(of, 'BIGINT')} IN (0, 1))")
        elif name.endswith("_s"):
            value = log.cast(of, "DOUBLE")
            rule(of, "a number of seconds, at least 0", f"{missing} OR (isfinite({value}) AND {value} >= 0)")
        else:
            text = name == "topic" or name in ids.columns
            kind = "VARCHAR" if text else "BIGINT"
            rule(of, "text" if text else "an integer within 64 bits", f"{missing} OR {log.valid(of, kind)}")
    if roles.random:
        value = log.cast(roles.random, "BIGINT")
        rule(roles.random, "0 or 1", f"{log.valid(roles.random, 'BIGINT')} AND {value} IN (0, 1)")
    return f"CASE {' '.join(rules)} END"
