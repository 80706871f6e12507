"""The SELECTs that count a day's events by key, and join what they counted. `statements` describes the tables."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from dlen_cam2.schema.computed import DAY_MS
from pipelines.engines import quoted
from pipelines.features.amounts import (
    ALL,
    HOUR_MS,
    INTERNAL,
    ROW,
    TS,
    Amount,
    Key,
    Moment,
    key_columns,
    key_names,
    value_name,
)
from pipelines.features.expressions import column_of, double, expressions
from pipelines.features.plan import Plan


def create(table: str, select: str) -> str:
    return f"CREATE TABLE {table} AS\n{textwrap.dedent(select).strip()}"


def totals_of(plan: Plan) -> dict[str, Amount]:
    return {a.name: a for of, among, _ in plan.bases.values() for a in (of, among)}


def time_of(plan: Plan, moment: Moment) -> str:
    return f"{INTERNAL}known_{plan.moments.index(moment)}" if moment else TS


def same(a: str, b: str, by: Key) -> str:
    """SQL for whether the rows of two tables have the same key."""
    return " AND ".join(f"{a}.{c} = {b}.{c}" for c in key_names(by))


def events(plan: Plan, amounts: Mapping[str, Amount], by: Key, rows: bool = False) -> str:
    """SELECT of the time, the key and the amounts at their moments; with `rows`, of all exposures, with `__row`."""
    sources: dict[tuple[str, Moment], list[str]] = {("today", ()): []} if rows else {}
    for name, amount in amounts.items():
        sources.setdefault((amount.table, amount.moment), []).append(name)
    selects = []
    for (table, moment), found in sources.items():
        own = table == "today" and not moment
        columns = [ROW if own else f"CAST(NULL AS BIGINT) AS {ROW}"] * rows
        columns += [f"{time_of(plan, moment)} AS {TS}", *(key_columns(by) if table == "today" else key_names(by))]
        columns += [f"{_value(plan, a, moment, name in found)} AS {quoted(name)}" for name, a in amounts.items()]
        holds = sorted({amounts[name].holds for name in found})
        if own and rows and not found:
            holds = [f"{ROW} IS NOT NULL"]
        where = "" if "" in holds or own and rows and found else f" WHERE {' OR '.join(holds)}"
        selects.append(f"SELECT {', '.join(columns)} FROM {table}{where}")
    return "\n        UNION ALL ".join(selects)


def _value(plan: Plan, amount: Amount, moment: Moment, there: bool) -> str:
    """SQL for an amount in the rows of one source: nothing if it is of another."""
    nothing = "0e0" if amount.combine == "sum" else "NULL"
    if not there:
        return nothing
    sql = time_of(plan, moment) if amount.combine == "max" else amount.sql
    return f"CASE WHEN {amount.holds} THEN {sql} ELSE {nothing} END" if amount.holds else sql


def counts(plan: Plan, n: int, by: Key, boundary: int | None) -> Iterator[str]:
    """What the key has counted: since ever and within the hour, and within longer windows."""
    windows = plan.amounts[by]
    near = {w: a for w, a in windows.items() if w <= HOUR_MS}
    far = {w: a for w, a in windows.items() if w > HOUR_MS}
    if near:
        kept_ones = windows.get(ALL, {})
        columns, joins = [], []
        for window, amounts in near.items():
            for name, amount in amounts.items():
                column = quoted(column_of(name, window))
                if window != ALL:
                    columns.append(f"w.{column}")
                elif amount.combine == "max":
                    columns.append(f"coalesce(w.{column}, k.{column}) AS {column}")
                else:
                    columns.append(f"coalesce(k.{column}, 0) + w.{column} AS {column}")
        if kept_ones:
            joins.append(f"LEFT JOIN kept_counts_{n} AS k ON {same('k', 'w', by)}")
        for m, listed in enumerate(plan.listed):
            if listed.by == by:
                key = ", ".join(key_names(by))
                joins.append(f"LEFT JOIN (SELECT {key}, count(*) AS kept FROM kept_listed_{m} GROUP BY {key}) AS l{m} "
                             f"ON {same(f'l{m}', 'w', by)}")
                columns.append(f"CAST(coalesce(l{m}.kept, 0) + w.{quoted(listed.amount.name)} AS BIGINT) AS number_{m}")
        yield create(f"counts_{n}", f"""
    -- By {', '.join(by)}.
    SELECT {', '.join(f"w.{c}" for c in (ROW, *key_names(by)))},
        {_lines(columns)}
    FROM ({_windowed(plan, near, by, boundary)}) AS w
    {' '.join(joins)}
    WHERE w.{ROW} IS NOT NULL""")
    if far:
        since = None if boundary is None else boundary + HOUR_MS - max(far)
        yield create(f"windows_{n}", f"""
    -- By {', '.join(by)}.
    SELECT * FROM ({_windowed(plan, far, by, since)}) AS w
    WHERE {ROW} IS NOT NULL""")


def _windowed(plan: Plan, windows: Mapping[int, Mapping[str, Amount]], by: Key, since: int | None) -> str:
    """SELECT of each window's amounts, of the events from `since` on.

    A sum of what is strictly earlier is one up to the row's moment less that of the moment: exact, since it is of
    integers, and with few keys five times as fast in DuckDB as a frame that ends 1 PRECEDING.
    """
    amounts = {name: a for found in windows.values() for name, a in found.items()}
    earlier = f"PARTITION BY {', '.join(key_names(by))} ORDER BY {TS}"
    columns: list[str] = []
    frames: list[str] = []
    for number, (window, found) in enumerate(windows.items()):
        for name, amount in found.items():
            own = quoted(name)
            function = {"sum": f"sum({own}) OVER up_to_{number} - sum({own}) OVER now",
                        "max": f"max({own}) OVER before_{number}",
                        "values": f"coalesce(array_size(array_distinct(array_agg({own}) OVER before_{number})), 0)"}
            columns.append(f"{function[amount.combine]} AS {quoted(column_of(name, window))}")
        start = f"({earlier} RANGE BETWEEN {'UNBOUNDED' if window == ALL else window} PRECEDING AND"
        frames += [f"up_to_{number} AS {start} CURRENT ROW)", f"before_{number} AS {start} 1 PRECEDING)"]
    frames.append(f"now AS ({earlier} RANGE BETWEEN CURRENT ROW AND CURRENT ROW)")
    where = f" WHERE {TS} >= {since}" if since is not None else ""
    return f"""
        SELECT {', '.join((ROW, *key_names(by)))},
            {_lines(columns)}
        FROM ({events(plan, amounts, by, rows=True)}) AS events{where}
        WINDOW
            {_lines(frames)}"""


def _lines(parts: Sequence[str]) -> str:
    return ",\n            ".join(parts)


def numbered(plan: Plan, n: int, boundary: int | None) -> str:
    """Number a key's events from the oldest that is known; each knows of those up to and including it, newest first.

    An exposure before which m of them were known has what is at number m.
    """
    listed = plan.listed[n]
    names, newest = listed.names, listed.newest
    key = ", ".join(key_names(listed.by))

    def last(function: str, length: int, name: str, place: int) -> str:
        frame = f"ROWS BETWEEN CURRENT ROW AND {length - 1} FOLLOWING"
        return f"{function} OVER ({newest} {frame}) AS {name}_{length}_{place}"

    lists = names[1:]
    for column, length in listed.arrays:
        place = listed.values.index(column)
        lists.append(last(f"array_agg({value_name(place)})", length, "last", place))
    for column, length in listed.totals:
        place = listed.values.index(column)
        lists.append(last(f"sum({plan.number(column, value_name(place))})", length, "sum", place))
        lists.append(last("count(*)", length, "n", place))
    since = f" AND {time_of(plan, listed.amount.moment)} >= {boundary}" if boundary is not None else ""
    found = f"counts_{list(plan.amounts).index(listed.by)}"
    return create(f"listed_{n}", f"""
        SELECT c.{ROW}, e.*
        FROM {found} AS c LEFT JOIN (
              SELECT {key}, count(*) OVER ({newest} ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS number,
                  {', '.join(lists)}
              FROM (SELECT {key}, {', '.join(names)} FROM kept_listed_{n}
                    UNION ALL {listed_events(plan, n)}{since}) AS e
              WHERE EXISTS (SELECT 1 FROM {found} AS c WHERE {same('c', 'e', listed.by)})) AS e
        ON {same('c', 'e', listed.by)} AND e.number = c.number_{n}""")


def listed_events(plan: Plan, n: int) -> str:
    listed = plan.listed[n]
    values = ", ".join(f"{quoted(c)} AS {value_name(place)}" for place, c in enumerate(listed.values))
    there = " AND ".join(f"{quoted(c)} IS NOT NULL" for c in listed.by)
    return (f"SELECT {', '.join(key_columns(listed.by))}, {time_of(plan, listed.amount.moment)} AS {TS}, {values} "
            f"FROM today WHERE {there}" + f" AND {listed.amount.holds}" * bool(listed.amount.holds))


def session(n: int, by: Key, pause: int) -> str:
    """How many exposures of the key a session has had; where none began within a day, those of the day."""
    key = ", ".join(key_names(by))
    earlier = f"PARTITION BY {key} ORDER BY {TS}"
    day = f"{earlier} RANGE BETWEEN {DAY_MS} PRECEDING AND"
    return create(f"session_{n}", f"""
        SELECT t.{ROW}, m.of_day, m.at_start, m.before
        FROM today AS t LEFT JOIN (
        SELECT {key}, {TS}, of_day, max(CASE WHEN begins THEN before END) OVER ({day} CURRENT ROW) AS at_start, before
        FROM (SELECT {key}, {TS},
                  coalesce(sum(exposures) OVER ({earlier} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)
                      AS before,
                  coalesce(sum(exposures) OVER ({day} 1 PRECEDING), 0) AS of_day,
                  coalesce({TS} - lag({TS}) OVER ({earlier}) >= {pause}, true) AS begins
              FROM (SELECT {', '.join(key_columns(by))}, {TS}, CAST(count(*) AS DOUBLE) AS exposures
                    FROM today GROUP BY {', '.join(map(quoted, by))}, {TS}) AS moments) AS counted) AS m
        ON {' AND '.join(f'm.{name} = t.{quoted(c)}' for c, name in zip(by, key_names(by), strict=True))}
            AND m.{TS} = t.{TS}
        WHERE t.{ROW} IS NOT NULL""")


def hours(plan: Plan, boundary: int | None) -> str:
    """The rates of all rows that are known before each hour."""
    totals = totals_of(plan)
    names = list(map(quoted, totals))
    where = f" WHERE {TS} >= {boundary}" if boundary is not None else ""
    rates = []
    for name, (of, among, start) in plan.bases.items():
        above, below = (f"k.{quoted(a.name)} + coalesce(sum(h.{quoted(a.name)}) OVER earlier, 0)" for a in (of, among))
        rates.append(f"({above} + 1) / ({below} + {double(1 / start)}) AS {quoted(name)}")
    return create("hours", f"""
        SELECT h.hour_ms, {', '.join(rates)}
        FROM (SELECT {TS} - {TS} % {HOUR_MS} AS hour_ms, {', '.join(f'sum({name}) AS {name}' for name in names)}
              FROM ({events(plan, totals, (), rows=True)}) AS events{where}
              GROUP BY {TS} - {TS} % {HOUR_MS}) AS h
        CROSS JOIN (SELECT {', '.join(f'coalesce(sum({name}), 0) AS {name}' for name in names)} FROM kept_hours) AS k
        WINDOW earlier AS (ORDER BY h.hour_ms ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)""")


def computed(plan: Plan) -> str:
    """Join what was counted, and calculate the features."""
    joins = []
    for n, by in enumerate(plan.amounts):
        windows = plan.amounts[by]
        joins += [f"JOIN counts_{n} AS c{n} ON c{n}.{ROW} = t.{ROW}"] * any(w <= HOUR_MS for w in windows)
        joins += [f"JOIN windows_{n} AS w{n} ON w{n}.{ROW} = t.{ROW}"] * any(w > HOUR_MS for w in windows)
    joins += [f"JOIN listed_{n} AS l{n} ON l{n}.{ROW} = t.{ROW}" for n, _ in enumerate(plan.listed)]
    joins += [f"JOIN session_{n} AS s{n} ON s{n}.{ROW} = t.{ROW}" for n, _ in enumerate(plan.sessions)]
    if plan.bases:
        joins.append(f"JOIN hours AS h ON h.hour_ms = t.{TS} - t.{TS} % {HOUR_MS}")
    columns = [f"{sql} AS {quoted(name)}" for name, sql in expressions(plan).items()]
    lines = ",\n    ".join((f"t.{ROW}", *columns))
    rows = f"SELECT\n    {lines}\nFROM today AS t\n" + "\n".join(joins) + f"\nWHERE t.{ROW} IS NOT NULL"
    return f"CREATE OR REPLACE VIEW computed AS\n{rows}"  # written only once, as shards
