"""The columns of a log that only computed features read, and as what."""

from typing import Literal

from dlen_cam2.schema import Schema
from dlen_cam2.schema.computed import EXPOSURES
from dlen_cam2.utils.errors import UserError
from pipelines.logs.log_files import INTEGERS, OURS, Log

Read = Literal["binary", "int", "float", "string", "time"]


def read_columns(schema: Schema, log: Log) -> dict[str, Read]:
    """The columns that computed features read and the schema does not describe, with their types.

    Events are 0 or 1, what is added up is a number, and the time at which feedback is known is a time. A key or a value
    that is listed has the type of the log, or that of the feature that lists it.

    Raises:
        UserError: the log has no such column; it is read as two types; or the log has a column with the name of a
            computed feature.
    """
    found: dict[str, Read] = {}
    labels = {t.name: t.label for t in schema.tasks}

    def read(name: str, dtype: Read, by: str) -> None:
        name = name if name in log.types else labels.get(name, name)
        if name in schema.columns and name not in computed and dtype != "time":
            return
        if name not in log.types:
            hint = " (by: names one column; repeat it for a key of several)" if "," in name else ""
            raise UserError(f"{by}: the log must have the column {name!r}{hint}. "
                            f"Known: {', '.join(sorted(log.types))}.")
        if name in OURS:
            raise UserError(f"{by}: the names {' and '.join(OURS)} are reserved: rename the column. "
                            f"Received: {name!r}.")
        if name in schema.columns or found.setdefault(name, dtype) != dtype:
            other = found.get(name, schema.columns.get(name))
            raise UserError(f"{by}: column {name!r} must be read as one type. Received: {dtype} and {other}.")

    computed = {f.name for f in schema.features if f.computed}
    if there := sorted(computed & log.types.keys()):
        raise UserError(f"a computed feature must not have the name of a column of the log: rename it, or remove its "
                        f"tags to read the column. Received: {there}.")
    for feature in schema.features:
        if not feature.computed:
            continue
        c, by = feature.computed, f"feature {feature.name!r}"
        adds = c.kind in ("sum", "mean") or c.kind == "rate" and bool(c.value)
        if c.of != EXPOSURES:
            read(c.of, "binary", by)
        if c.among:
            read(c.among, "float" if adds else "binary", by)
        if c.value and adds:
            read(c.value, "float", by)
        elif c.value:
            read(c.value, feature.dtype if c.kind in ("last", "sequence") else _type(log, c.value), by)  # type: ignore[arg-type]
        for column in c.by:
            read(column, _type(log, column), by)
    for name, known in schema.known.items():
        if known.at:
            read(known.at, "time", f"column {name!r}, known_at")
        if known.after:
            read(known.after, "float", f"column {name!r}, known_after")
    return found


def _type(log: Log, name: str) -> Read:
    """The type of a key: texts, or integers, which pandas writes as decimals where some are missing."""
    whole = log.types.get(name, "").startswith((*INTEGERS, "FLOAT", "DOUBLE"))
    return "int" if whole else "string"
