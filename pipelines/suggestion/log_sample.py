"""Measures a log's columns: kinds, values and dependence on a sample; missing values on all of its rows."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dlen_cam2.utils.errors import UserError
from pipelines.engines import Engine, quoted
from pipelines.logs.log_files import Log
from pipelines.suggestion.column_names import clock, is_duration, is_id, is_month

ROWS = 100_000
# How texts say that a value is missing, in lower case.
_ABSENT = "('', 'na', 'n/a', 'nan', 'null', 'none', 'nil', '?', '-', '\\n')"
_DATE = (r"\d{4}[-/]\d{1,2}([-/]\d{1,2})?([t ]\d{1,2}:.*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}([t ]\d{1,2}:.*)?"
         r"|.*\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b.*\b\d{4}\b.*")
_CLOCK = r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[ap]m)?"
# Dates as numbers: 20220425, and the same with hour, minute and second.
_DIGITS = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_FROM, _TO = 946_684_800, 4_102_444_800  # the years 2000 and 2100 in seconds since 1970


class Agreement(NamedTuple):
    """How often two rows have the same value of a column.

    Attributes:
        within: among rows with the same key; each row counts once, except rows without a value.
        anyway: among any two rows.
    """

    within: float
    anyway: float

    @property
    def strength(self) -> float:
        """Cohen's kappa: 1 if the key decides the value, 0 if it says nothing or if all rows have the same value."""
        return (self.within - self.anyway) / (1 - self.anyway) if self.anyway < 1 else 0.0


class Sample:
    """A sample of at most `ROWS` rows of a log, always the same ones, as the table `sampled`.

    Attributes:
        rows: the number of rows of the log; 0 before `measure`.

    Raises:
        UserError: the log has no rows.
    """

    def __init__(self, engine: Engine, log: Log):
        self.engine, self.log, self.rows = engine, log, 0
        self._agreements: dict[tuple[str, str], Agreement] = {}
        engine.execute(f"CREATE TABLE sampled AS SELECT * FROM log USING SAMPLE reservoir({ROWS} ROWS) REPEATABLE (0)",
                       f"{log.name} cannot be read")
        if not engine.one("SELECT count(*) FROM sampled"):
            raise UserError(f"{log.name} must have rows. Received: none.")

    def none(self, rows: str) -> bool:
        """Whether no row of the sample satisfies `rows`, a condition in SQL."""
        return not self.engine.one(f"SELECT count(*) FROM sampled WHERE {rows}")

    def present(self, name: str) -> str:
        """SQL for whether the column has a value."""
        return f"({quoted(name)} IS NOT NULL AND lower(trim(CAST({quoted(name)} AS VARCHAR))) NOT IN {_ABSENT})"

    def agreement(self, of: str, by: str) -> Agreement:
        """How much the column `by` decides the column `of`."""
        if (of, by) not in self._agreements:
            pairs = (f"SELECT {quoted(by)} AS k, CAST({quoted(of)} AS VARCHAR) AS v, count(*) AS n FROM sampled "
                     f"WHERE {self.present(by)} AND {self.present(of)} GROUP BY ALL")
            found = self.engine.query(
                f"WITH pairs AS ({pairs}), keys AS (SELECT sum(n) AS m, sum(n * (n - 1)) AS same FROM pairs GROUP BY k "
                "HAVING sum(n) > 1), texts AS (SELECT sum(n) AS n FROM pairs GROUP BY v) "
                "SELECT (SELECT coalesce(sum(same / (m - 1)) / sum(m), 0) FROM keys), "
                "(SELECT coalesce(sum(n * (n - 1)) / nullif(sum(n) * (sum(n) - 1), 0), 0) FROM texts)")[0]
            self._agreements[of, by] = Agreement(*map(float, found))
        return self._agreements[of, by]

    def measure(self, columns: Iterable["Column"]) -> None:
        """Set `rows`, for each column `lacking`, and for numbers `ones`, `low` and `high`, from all rows of the log."""
        columns, values, parts = list(columns), [], ["count(*)"]
        for c in columns:
            name = quoted(c.name)
            value = f"CAST({c.number} AS DOUBLE)" if c.is_number else "1"
            values.append(f"CASE WHEN {c.usable} THEN {value} END AS {name}")
            parts += [f"count({name})", f"count(*) FILTER (WHERE {name} = 1)", f"min({name})", f"max({name})"]
        self.rows, *found = self.engine.query(
            f"SELECT {', '.join(parts)} FROM (SELECT {', '.join(values)} FROM log)")[0]
        for c, (count, ones, low, high) in zip(columns, zip(*[iter(found)] * 4, strict=True), strict=True):
            c.lacking = self.rows - count
            if c.is_number and count:
                c.ones, c.low, c.high = ones, low, high

    def together(self, columns: Sequence["Column"], others: Sequence["Column"]) -> dict[tuple[str, str], int]:
        """The number of rows in which a column of `columns` and one of `others` are both 1; all of them are binary."""
        if not columns or not others:
            return {}
        pairs = [(a.name, b.name) for a in columns for b in others]
        ones = {c.name: f"CAST(coalesce({c.number} = 1, false) AS INTEGER) AS {quoted(c.name)}"
                for c in (*columns, *others)}
        sums = ", ".join(f"sum({quoted(a)} * {quoted(b)})" for a, b in pairs)
        found = self.engine.query(f"SELECT {sums} FROM (SELECT {', '.join(ones.values())} FROM log)")[0]
        return dict(zip(pairs, found, strict=True))


class Column:
    """A column of the sample.

    Args:
        sample: the sample.
        name: the column's name.
        is_key: whether it is the user's or the item's id.

    Attributes:
        unfit: why it is not a feature; "" if it may be one.
        is_list, is_integer, is_number: whether all values are; for numbers, texts such as "NA" count as missing.
        is_whole: whether all are integers, apart from such texts; also "3.0" in text if it is an id or some rows lack a
            value.
        is_binary: whether all are 0 or 1, true or false, apart from such texts.
        distinct, values: the number of different values, and of all values.
        length: for a list, the length that 99 of 100 rows do not exceed.
        low, high, median: for numbers; `low` and `high` are those of the log after `Sample.measure`.
        number: SQL for the number.
        usable: SQL for whether a row has what is needed: 0 or 1 if all do, a finite number, an id, or any value.
        lacking: the number of rows of the log that do not.
        ones: the number of rows of the log that are 1.
    """

    def __init__(self, sample: Sample, name: str, is_key: bool = False):
        self.name, self._sample = name, sample
        log, column = sample.log, quoted(name)
        texts = log.types[name] == "VARCHAR"
        self.is_list = log.types[name].endswith("[]") or texts and self._all(f"{column} LIKE '[%]'")
        self.is_integer = self.is_whole = self.is_number = self.is_binary = False
        self.low = self.high = self.median = 0.0
        self.lacking = self.ones = 0
        self.number, self.usable = log.cast(name, "DOUBLE"), f"{column} IS NOT NULL"
        self.unfit = self._unreadable() if texts else ""
        if self.unfit:
            return
        if self.is_list:
            self._read_list(texts)
            return
        self.distinct, self.values = sample.engine.query(
            f"SELECT count(DISTINCT {column}), count({column}) FROM sampled")[0]
        self._read_number(texts)
        if is_key:
            self.usable = log.valid(name, "BIGINT") if self.is_integer else f"CAST({column} AS VARCHAR) <> ''"
        elif self.is_binary:
            self.number = log.cast(name, "BIGINT")
            self.usable = f"({log.valid(name, 'BIGINT')} AND {self.number} IN (0, 1))"
        elif self.is_number:  # it becomes a float32, which ends at 3.4e38
            self.usable = f"isfinite(TRY_CAST({self.number} AS FLOAT))"

    @property
    def examples(self) -> list[str]:
        """A few of the values."""
        column = f"left(CAST({quoted(self.name)} AS VARCHAR), 40)"
        found = self._sample.engine.query(f"SELECT DISTINCT {column} AS v FROM sampled "
                                          f"WHERE {self._sample.present(self.name)} ORDER BY v DESC LIMIT 3")
        return [value for (value,) in found]

    @property
    def stray(self) -> str:
        """An example of an unusable value in the log; "" if rows only lack a value."""
        column = quoted(self.name)
        return self._sample.engine.one(f"SELECT coalesce(left(min(CAST({column} AS VARCHAR)), 40), '') FROM log "
                                       f"WHERE NOT coalesce({self.usable}, false)")

    @property
    def moment(self) -> str:
        """"date" or "clock" if the values, by form or name, are dates, times since 1970 or times of day; or ""."""
        if self.is_number:
            return "" if self.is_binary else self._moment_of_numbers()
        if self.is_list or self._sample.log.types[self.name] != "VARCHAR":
            return ""
        for kind, pattern in (("date", _DATE), ("clock", _CLOCK)):
            if self._some(f"regexp_full_match(lower(trim({quoted(self.name)})), '{pattern}')"):
                return kind
        return ""

    def _moment_of_numbers(self) -> str:
        integer = f"TRY_CAST({self.number} AS BIGINT)"
        for count, form in _DIGITS.items():
            if 1900 * 10 ** (count - 4) <= self.low and self.high < 2101 * 10 ** (count - 4) and self._sample.none(
                    f"{integer} IS NOT NULL AND try_strptime(CAST({integer} AS VARCHAR), '{form}') IS NULL"):
                return "date"
        if is_month(self.name) and self.low >= 190_001 and self.high <= 210_012 and self._sample.none(
                f"{integer} % 100 NOT BETWEEN 1 AND 12"):
            return "date"
        if not is_id(self.name) and not is_duration(self.name) and any(
                _FROM * unit <= self.low and self.high <= _TO * unit for unit in (1, 10**3, 10**6, 10**9)):
            return "date"
        return clock(self.name)

    def _read_number(self, texts: bool) -> None:
        log, sample, present = self._sample.log, self._sample, self._sample.present(self.name)
        self.is_integer = self.distinct > 0 and self._all(log.valid(self.name, "BIGINT"))
        whole = self.is_integer or self._some(log.valid(self.name, "BIGINT"))
        # DuckDB takes 1_000 for a number.
        written = f" AND NOT contains({quoted(self.name)}, '_')" if texts else ""
        if not whole and not self._some(log.valid(self.name, "DOUBLE") + written):
            return
        number = log.cast(self.name, "BIGINT" if whole else "DOUBLE")
        low, high, median = sample.engine.query(
            f"SELECT min({number}), max({number}), median({number}) FROM sampled "
            f"WHERE isfinite(TRY_CAST({number} AS FLOAT))")[0]
        if low is None:
            return
        self.is_number, self.low, self.high, self.median = True, float(low), float(high), float(median)
        self.is_binary = whole and self.low >= 0 and self.high <= 1
        self.is_whole = self.is_integer or texts and (whole or self._some(f"{number} = floor({number})") and (
            is_id(self.name) or not sample.none(f"NOT {present}")))

    def _read_list(self, texts: bool) -> None:
        lists = self._sample.log.cast(self.name, "VARCHAR", True)
        values = f"(SELECT unnest({lists}) AS v FROM sampled WHERE {quoted(self.name)} IS NOT NULL)"
        self.distinct, self.values, broken, numbers = self._sample.engine.query(
            "SELECT count(DISTINCT v), count(v), count(*) FILTER (NOT regexp_full_match(v, '-?[0-9]+')), "
            f"count(TRY_CAST(v AS DOUBLE)) FROM {values} AS t")[0]
        most = f"coalesce(quantile_disc(len({lists}), 0.99), 0)"
        self.length = int(self._sample.engine.one(f"SELECT {most} FROM sampled"))
        self.is_integer = broken == 0
        if texts and broken and numbers == self.values:
            self.unfit = "it is a list of decimals, but lists must hold integers or texts"

    def _unreadable(self) -> str:
        """What is wrong with texts that look like lists or objects."""
        column, engine = quoted(self.name), self._sample.engine
        if self._all(f"{column} LIKE '{{%}}' AND json_valid({column})"):
            return "it holds objects" if engine.one(f"SELECT count({column}) FROM sampled") else ""
        if not self.is_list:
            return ""
        broken = engine.one(f"SELECT min({column}) FROM sampled WHERE NOT json_valid({column})")
        return "" if broken is None else f"it holds lists not in JSON, such as [\"a\", \"b\"]. Received: {broken[:60]}"

    def _all(self, holds: str) -> bool:
        """Whether the condition holds for all values."""
        return self._sample.none(f"{quoted(self.name)} IS NOT NULL AND NOT coalesce({holds}, false)")

    def _some(self, holds: str) -> bool:
        """Whether the condition holds for all values except those that say "missing", and there are such."""
        present = self._sample.present(self.name)
        return self._sample.none(f"{present} AND NOT coalesce({holds}, false)") and not self._sample.none(present)


class Sides:
    """Finds whether columns describe users, items or the context.

    Attributes:
        keys: the columns of the user's and the item's ids, by side.
        sizes: the number of users and items in the sample.
    """

    def __init__(self, sample: Sample, user: str, item: str):
        self._sample, self.keys = sample, {"user": user, "item": item}
        self.sizes = {side: sample.engine.one(f"SELECT count(DISTINCT {quoted(key)}) FROM sampled")
                      for side, key in self.keys.items()}

    def of(self, name: str) -> tuple[str, str]:
        """The side that decides a column's values with a kappa of at least 0.8, or "context"; and the reason.

        If both do, it is the one that decides more; of equals, the one with fewer keys, since an item that only one
        user sees has whatever its user has.
        """
        for side, key in self.keys.items():
            if name == key:
                return side, f"the {side}'s id"
        found = {side: self._sample.agreement(name, key) for side, key in self.keys.items()}
        side = min(found, key=lambda s: (-round(found[s].strength, 2), self.sizes[s]))
        within, anyway = found[side]
        if found[side].strength < 0.8:
            return "context", "context: neither the user nor the item determines it"
        return side, f"{side}: two rows of one {side} agree in {within:.0%} of cases, any two rows in {anyway:.0%}"

    def divides_users(self, column: Column) -> bool:
        """Whether each value belongs to one user and users have several, as with sessions."""
        return column.distinct > self.sizes["user"] and \
            self._sample.agreement(self.keys["user"], column.name).strength > 0.99
