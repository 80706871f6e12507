"""The SQL that computes a plan's features, and keeps its counters from day to day. DuckDB and Spark run the same text.

The tables:

    today       the day's exposures (`__row` is their number) and those of before that are still needed (`__row` null),
                with the columns that the plan reads, and `__known_N`: when the N-th of its moments is known
    counts_N    what the N-th key has counted, by __row;    kept_counts_N: what it had at the boundary, by key
    windows_N   what it has counted within windows of more than an hour
    listed_N    the events of the N-th list, numbered from the oldest that is known;    kept_listed_N
    firsts_N    the first meetings of a key with a value since the boundary;    kept_firsts_N: all before
    session_N   the place of an exposure in its session
    hours       the rates of all rows before each hour;    kept_hours: what all rows had counted at the boundary
    computed    the features, by __row: a view

Everything known before the boundary is in the kept tables; everything later is in `today`. Only a window of more than
an hour looks at rows of `today` from before the boundary.

Strictly earlier: every window is ordered by the time at which events are known, and leaves out the row itself and all
rows of the same millisecond. Sums are of doubles that hold integers, so no order of summation can change a result.
Nothing looks at a whole day.
"""

from collections.abc import Iterator, Mapping

from dlen_cam2.schema import Known
from pipelines.engines import quoted
from pipelines.features.amounts import ALL, HOUR_MS, INTERNAL, ROW, TS, Amount, Key, key_columns, key_names, value_name
from pipelines.features.counting import (
    computed,
    counts,
    create,
    events,
    hours,
    listed_events,
    numbered,
    same,
    session,
    time_of,
    totals_of,
)
from pipelines.features.plan import Plan

_SQL = {"int": "BIGINT", "float": "DOUBLE", "string": "STRING"}


def known(moment: Known, time: str) -> str:
    """SQL for when a column is known, in milliseconds; never before its exposure."""
    time = quoted(time)
    if moment.at:
        return f"greatest({time}, coalesce({quoted(moment.at)}, {time}))"
    if moment.after:
        return f"{time} + CAST(floor(greatest(coalesce({quoted(moment.after)}, 0), 0) * 1000e0 + 0.5e0) AS BIGINT)"
    return f"{time} + {round(moment.seconds * 1000)}"


def kept(plan: Plan) -> dict[str, dict[str, str]]:
    """The tables that a snapshot keeps, with the SQL types of their columns."""
    types = {name: _SQL[dtype] for name, dtype in plan.log.types.items()}
    tables: dict[str, dict[str, str]] = {}
    for n, by in enumerate(plan.amounts):
        if amounts := plan.amounts[by].get(ALL):
            tables[f"kept_counts_{n}"] = _key_types(by, types) | dict.fromkeys(amounts, "BIGINT")
    for n, listed in enumerate(plan.listed):
        tables[f"kept_listed_{n}"] = _key_types(listed.by, types) | {TS: "BIGINT"} | {
            value_name(place): types[c] for place, c in enumerate(listed.values)}
    for n, (by, value, _) in enumerate(plan.firsts):
        tables[f"kept_firsts_{n}"] = _key_types(by, types) | {value_name(0): types[value]}
    if plan.bases:
        tables["kept_hours"] = dict.fromkeys(totals_of(plan), "BIGINT")
    moments = {f"{INTERNAL}known_{n}": "BIGINT" for n, _ in enumerate(plan.moments)}
    tables["tail"] = {TS: "BIGINT"} | {c: types[c] for c in plan.columns} | moments
    return tables


def _key_types(by: Key, types: Mapping[str, str]) -> dict[str, str]:
    return {name: types[c] for name, c in zip(key_names(by), by, strict=True)}


def begin(plan: Plan) -> Iterator[str]:
    """Create the kept tables of a log of which nothing is known yet."""
    for table, columns in kept(plan).items():
        row = ", ".join(f"CAST(NULL AS {sql}) AS {quoted(name)}" for name, sql in columns.items())
        yield create(table, f"SELECT * FROM (SELECT {row}) AS nothing WHERE false")


def today(plan: Plan, where: str, boundary: int | None) -> Iterator[str]:
    """Create `today` from the rows of `numbered` with `where` and the tail, and the first meetings among them."""
    columns = [f"{quoted(plan.log.time)} AS {TS}", *map(quoted, plan.columns)]
    for n, moment in enumerate(plan.moments):
        times = [known(part, plan.log.time) for part in moment]
        latest = times[0] if len(times) == 1 else f"greatest({', '.join(times)})"
        columns.append(f"{latest} AS {INTERNAL}known_{n}")
    tail = ", ".join(map(quoted, kept(plan)["tail"]))
    yield create("today", f"""
        SELECT {ROW}, {', '.join(columns)} FROM numbered WHERE {where}
        UNION ALL
        SELECT CAST(NULL AS BIGINT) AS {ROW}, {tail} FROM tail""")
    for n, (by, value, event) in enumerate(plan.firsts):
        key = [*key_columns(by), f"{quoted(value)} AS {value_name(0)}"]
        met = " AND ".join(f"k.{name} = f.{name}" for name in (*key_names(by), value_name(0)))
        there = [f"{quoted(c)} IS NOT NULL" for c in (*by, value)] + [event.holds] * bool(event.holds)
        since = f" AND {time_of(plan, event.moment)} >= {boundary}" if boundary is not None else ""
        yield create(f"firsts_{n}", f"""
            SELECT f.*
            FROM (SELECT {', '.join(key)}, min({time_of(plan, event.moment)}) AS {TS}
                  FROM today
                  WHERE {' AND '.join(there)}{since}
                  GROUP BY {', '.join(map(quoted, (*by, value)))}) AS f
            LEFT JOIN kept_firsts_{n} AS k ON {met}
            WHERE k.{value_name(0)} IS NULL""")


def compute(plan: Plan, boundary: int | None) -> Iterator[str]:
    """Create `computed` from `today` and the kept tables, which hold all events before `boundary`."""
    for n, by in enumerate(plan.amounts):
        yield from counts(plan, n, by, boundary)
    for n, _ in enumerate(plan.listed):
        yield numbered(plan, n, boundary)
    for n, (by, pause) in enumerate(plan.sessions):
        yield session(n, by, pause)
    if plan.bases:
        yield hours(plan, boundary)
    yield computed(plan)


def advance(plan: Plan, boundary: int | None, new: int) -> Iterator[str]:
    """Create the kept tables at the boundary `new`, as new_…: with what is known since `boundary`, and the tail."""
    passed = f"{TS} < {new}" + (f" AND {TS} >= {boundary}" if boundary is not None else "")
    for n, by in enumerate(plan.amounts):
        if amounts := plan.amounts[by].get(ALL):
            yield _add(plan, f"kept_counts_{n}", amounts, by, passed)
    for n, _ in enumerate(plan.listed):
        yield _keep_list(plan, n, passed)
    for n, (by, _, _) in enumerate(plan.firsts):
        row = ", ".join((*key_names(by), value_name(0)))
        yield create(f"new_kept_firsts_{n}", f"""
            SELECT {row} FROM kept_firsts_{n} UNION ALL SELECT {row} FROM firsts_{n} WHERE {TS} < {new}""")
    if plan.bases:
        yield _add(plan, "kept_hours", totals_of(plan), (), passed)
    oldest = oldest_needed(plan, new)
    late = "".join(f" OR {INTERNAL}known_{n} >= {oldest}" for n, _ in enumerate(plan.moments))
    yield create("new_tail", f"""
        SELECT {', '.join(map(quoted, kept(plan)['tail']))} FROM today WHERE {TS} >= {oldest}{late}""")


def oldest_needed(plan: Plan, boundary: int) -> int:
    """The time before which no row of today is needed after `boundary`: later rows are at least an hour younger."""
    return min(boundary, boundary + HOUR_MS - plan.longest)


def temporary(plan: Plan) -> list[str]:
    """The tables of a day that nothing needs after it."""
    found = [f"{kind}_{n}" for n, _ in enumerate(plan.amounts) for kind in ("counts", "windows")]
    for kind, things in (("listed", plan.listed), ("firsts", plan.firsts), ("session", plan.sessions)):
        found += [f"{kind}_{n}" for n, _ in enumerate(things)]
    return [*found, "hours", "today"]


def _keep_list(plan: Plan, n: int, passed: str) -> str:
    """The last events of each key; those of keys without new ones stay as they are."""
    listed = plan.listed[n]
    key = ", ".join(key_names(listed.by))
    row = ", ".join((*key_names(listed.by), *listed.names))
    old = ", ".join(f"k.{name}" for name in (*key_names(listed.by), *listed.names))
    found = f"SELECT {row} FROM ({listed_events(plan, n)}) AS events WHERE {passed}"
    met = f"(SELECT DISTINCT {key} FROM ({found}) AS met)"
    return create(f"new_kept_listed_{n}", f"""
        SELECT {old} FROM kept_listed_{n} AS k LEFT JOIN {met} AS m ON {same('k', 'm', listed.by)}
        WHERE m.{key_names(listed.by)[0]} IS NULL
        UNION ALL
        SELECT {row}
        FROM (SELECT {row}, row_number() OVER ({listed.newest}) AS place
              FROM (SELECT {old} FROM kept_listed_{n} AS k JOIN {met} AS m ON {same('k', 'm', listed.by)}
                    UNION ALL {found}) AS parts) AS placed
        WHERE place <= {listed.length}""")


def _add(plan: Plan, table: str, amounts: Mapping[str, Amount], by: Key, passed: str) -> str:
    """The amounts of a kept table, with those of the events that passed."""
    keys = key_names(by)
    names = ", ".join((*keys, *map(quoted, amounts)))
    combined = [f"CAST({'max' if a.combine == 'max' else 'sum'}({quoted(name)}) AS BIGINT) AS {quoted(name)}"
                for name, a in amounts.items()]
    there = "".join(f" AND {name} IS NOT NULL" for name in keys)
    group = f" GROUP BY {', '.join(keys)}" if by else ""
    return create(f"new_{table}", f"""
        SELECT {', '.join((*keys, *combined))}
        FROM (SELECT {names} FROM {table}
              UNION ALL
              SELECT {names} FROM ({events(plan, amounts, by)}) AS events WHERE {passed}{there}) AS parts{group}""")
