"""A schema proposed from a sample of a log: a start to correct, by rules that are easy to predict."""

import math
import re

from dlen_cam2.cli import UserError
from dlen_cam2.schema import Feature, Schema, Task
from pipelines import point_in_time
from pipelines.engines import Engine, quoted
from pipelines.logs import INTEGERS, OURS, Log
from pipelines.point_in_time import BINARY, SECONDS

ROWS = 100_000
# Names that feedback goes by, also after "is_".
_LABELS = {
    "click", "like", "follow", "comment", "forward", "share", "hate", "dislike", "long_view", "valid_play", "purchase",
    "conversion", "buy", "cart", "favorite", "favourite", "collect", "save", "download", "install", "profile_enter",
    "skip", "report", "finish", "complete", "watched", "label",
}
_RANDOM = re.compile(r"(^|_)(rnd|rand|random|randomi[sz]ed)(_|$)")
_NEGATIVE = {"hate", "dislike", "skip", "report"}
_UNIT = "s|sec|seconds|ms"
_TARGET = re.compile(rf"(play|watch|dwell|stay|view|read)(ing)?_?((time|duration)_?({_UNIT})?|{_UNIT})$")
_STATISTIC = re.compile(
    r"(^|_)(cnt|count|counts|num|rate|ctr|cvr|ratio|impressions|exposures|clicks|likes|views|pv|uv)(_|$)")
_DECIMALS = ("FLOAT", "DOUBLE", "DECIMAL")
_FEW, _LONGEST = 64, 50  # distinct values of a small vocabulary; values of a list


def suggest(engine: Engine, log: Log, time: str, user: str, item: str) -> tuple[Schema, dict[str, str]]:
    """Propose a schema; returns it, and for each column why.

    - A column of 0 and 1 with a name of feedback (click, is_like …) is a task; of play or watch time a target.
    - Text, ids and small integers are categorical with a learned vocabulary; where over half of the rows have a value
      of their own, hashed. Lists keep as many values as 99 of 100 rows have, at most 50.
    - Other numbers are numeric: as log-odds if they are rates, as log1p if they are not negative and have a long tail.
    - The side is the user where each user has one value, the item where each item has; else the context. The cause is
      statistical for counts and rates by name, content otherwise, context for what is of the context.
    - Counters are added where the log has what they are made of, and ids are integers.
    - What no feature can be is left out: lists of decimals, objects, other types, 0 and 1 of random exposure.

    Raises:
        UserError: the time, user or item column is missing, or the log has no rows or no feedback.
    """
    for name in (time, user, item):
        log.column(name)
    engine.execute(f"CREATE TABLE sampled AS SELECT * FROM log USING SAMPLE reservoir({ROWS} ROWS) REPEATABLE (0)",
                   f"{log.name} cannot be read")
    rows = engine.one("SELECT count(*) FROM sampled")
    if not rows:
        raise UserError(f"{log.name} must have rows. Received: none.")
    tasks, targets, features, why = [], [], [], {}
    for name in log.types:
        if name == time:
            continue
        bare = name.lower().removeprefix("is_")
        if reason := _unfit(log, name):
            why[name] = f"left out: {reason}"
            continue
        column = _Column(engine, log, name, rows)
        if column.unfit:
            why[name] = f"left out: {column.unfit}"
        elif bare in _LABELS and column.is_binary:
            tasks.append(Task(bare if name.lower() != bare else name, label=name, negative=bare in _NEGATIVE))
            why[name] = f"a task: 0 and 1, {column.mean:.4f} are 1"
        elif _TARGET.search(name.lower()) and column.is_number:
            targets.append(name)
            why[name] = "a target: time that was spent"
        elif column.distinct == 0:
            why[name] = "left out: no values"
        elif name in SECONDS and not column.is_number or name in BINARY:
            why[name] = f"left out: counters read it as {'seconds' if name in SECONDS else '0 or 1'}, which not all are"
        elif column.is_binary and _RANDOM.search(name.lower()):
            why[name] = f"left out: 0 and 1; --random={name} if it marks random exposures"
        else:
            feature, reason = _feature(column, user, item)
            features.append(feature)
            why[name] = reason
    if not tasks:
        raise UserError(f"{log.name} must have feedback, a column of 0 and 1 named one of {sorted(_LABELS)}, or that "
                        f"after is_. Received columns: {sorted(log.types)}. Write the schema by hand otherwise.")
    computed = _computed(features, tasks, set(log.types), user, item)
    why |= {f.name: "computed from the log" for f in computed}
    schema = Schema("log", (*features, *computed), tuple(tasks), tuple(targets),
                    {"user": user, "item": item, "time": time})
    return schema, why


def _unfit(log: Log, name: str) -> str:
    """Why a column of this name or type is no feature; "" if it may be one."""
    found = log.types[name]
    inner = found.removesuffix("[]")
    if name in OURS:
        return "the name is one of ours; rename the column"
    if found != inner and inner.startswith(_DECIMALS):
        return f"a list of decimals ({found}); lists hold integers or texts"
    if not inner.startswith((*INTEGERS, *_DECIMALS, "VARCHAR")) or inner.endswith("]"):
        return f"of type {found}; features are numbers, texts, or lists of integers or texts"
    return ""


class _Column:
    """What the sample says of a column.

    Attributes:
        unfit: why it is no feature; "" if it may be one.
    """

    def __init__(self, engine: Engine, log: Log, name: str, rows: int):
        self.name, self._engine, self._rows = name, engine, rows
        found = log.types[name]
        texts = found == "VARCHAR"
        self.is_list = found.endswith("[]") or texts and self._all(f"{quoted(name)} LIKE '[%]'")
        self._value = quoted(name)
        self.unfit = self._unreadable() if texts else ""
        if self.unfit:
            return
        self.is_integer = not self.is_list and self._all(log.valid(name, "BIGINT"))
        self.is_number = not self.is_list and (self.is_integer or self._all(log.valid(name, "DOUBLE")))
        if self.is_list:
            self._value = f"unnest({log.cast(name, 'VARCHAR', True)})"
            values = f"(SELECT {self._value} AS v FROM sampled WHERE {quoted(name)} IS NOT NULL)"
            self.distinct, self.values = engine.query(f"SELECT count(DISTINCT v), count(v) FROM {values} AS t")[0]
            lengths = f"len({log.cast(name, 'VARCHAR', True)})"
            self.length = int(engine.one(f"SELECT coalesce(quantile_disc({lengths}, 0.99), 0) FROM sampled"))
            items, numbers = engine.query("SELECT count(*) FILTER (NOT regexp_full_match(v, '-?[0-9]+')), "
                                          f"count(TRY_CAST(v AS DOUBLE)) FROM {values} AS t")[0]
            self.is_integer = items == 0
            if texts and items and numbers == self.values:
                self.unfit = "a list of decimals; lists hold integers or texts"
        else:
            self.distinct, self.values = engine.query(
                f"SELECT count(DISTINCT {self._value}), count({self._value}) FROM sampled")[0]
        self.low = self.high = self.mean = self.median = 0.0
        if self.is_number and self.distinct:
            number = log.cast(name, "DOUBLE")
            self.low, self.high, self.mean, self.median = engine.query(
                f"SELECT min({number}), max({number}), avg({number}), median({number}) FROM sampled")[0]
        self.is_binary = self.is_integer and not self.is_list and self.distinct > 0 and self.low >= 0 and self.high <= 1

    def _unreadable(self) -> str:
        """What is wrong with texts that look like lists or objects."""
        if self._all(f"{quoted(self.name)} LIKE '{{%}}' AND json_valid({quoted(self.name)})"):
            return "objects" if self._engine.one(f"SELECT count({quoted(self.name)}) FROM sampled") else ""
        broken = self._engine.query(f"SELECT min({quoted(self.name)}) FROM sampled "
                                    f"WHERE NOT json_valid({quoted(self.name)})")[0][0] if self.is_list else None
        return "" if broken is None else f"lists that are not JSON such as [\"a\", \"b\"]. Received: {broken[:60]}"

    def _all(self, holds: str) -> bool:
        return not self._engine.one(
            f"SELECT count(*) FROM sampled WHERE {quoted(self.name)} IS NOT NULL AND NOT coalesce({holds}, false)")

    def constant_by(self, key: str) -> float:
        """Share of the keys with several rows that have one value in all of them."""
        one, several = self._engine.query(
            "SELECT count(*) FILTER (WHERE n = 1), count(*) FROM ("
            f"SELECT count(DISTINCT coalesce(CAST({quoted(self.name)} AS VARCHAR), '')) AS n "
            f"FROM sampled GROUP BY {quoted(key)} HAVING count(*) > 1) AS t")[0]
        return one / several if several else 0.0


def _feature(column: _Column, user: str, item: str) -> tuple[Feature, str]:
    side, reason = _side(column, user, item)
    cause = "context" if side == "context" else "content"
    if _STATISTIC.search(column.name.lower()) and column.is_number and column.name not in (user, item):
        cause, reason = "statistical", f"{reason}; a count or rate by its name"
    is_id = column.name in (user, item) or column.name.lower().endswith("id")
    small = column.is_integer and not column.is_list and 0 <= column.low and column.high < 100
    if column.is_number and (cause == "statistical" or not column.is_integer or column.name in SECONDS) \
            or column.is_integer and not (column.is_list or is_id or small):
        if 0 <= column.low and column.high <= 1 and not column.is_integer:
            transform = "logit"
        else:
            transform = "log1p" if column.low >= 0 and column.high > 20 * max(column.median, 1) else ""
        reason = f"{reason}; numeric {transform}".rstrip()
        return Feature(column.name, "float", side, cause, transform=transform), reason
    dtype = "int" if column.is_integer else "string"
    width = 16 if is_id else 8
    length = min(max(2, column.length), _LONGEST) if column.is_list else 1
    if column.distinct > column.values / 2 and column.distinct > 1000:
        buckets = 2 ** math.ceil(math.log2(4 * column.distinct))
        return (Feature(column.name, dtype, side, cause, size=buckets, hashed=True, width=width, max_length=length),
                f"{reason}; categorical, hashed: {column.distinct:,} values in {column.values:,} of the sample")
    least, buckets = (1, 0) if column.distinct <= _FEW else (2, 16)
    reason = f"{reason}; categorical, {column.distinct:,} values in the sample"
    return Feature(column.name, dtype, side, cause, min_count=least, oov_buckets=buckets, width=width,
                   max_length=length), reason


def _side(column: _Column, user: str, item: str) -> tuple[str, str]:
    if column.name in (user, item):
        side = "user" if column.name == user else "item"
        return side, f"the {side}'s id"
    by = {"user": column.constant_by(user), "item": column.constant_by(item)}
    for side in sorted(by, key=lambda s: -by[s]):
        if by[side] > 0.95:
            return side, f"{side}: {by[side]:.0%} of those with several rows have one value"
    return "context", "context: neither users nor items have one value"


def _computed(features: list[Feature], tasks: list[Task], columns: set[str], user: str, item: str) -> list[Feature]:
    """Counters that the log has the columns for; those of point_in_time.sql, whose names are fixed."""
    ids = [f for f in features if f.name in (user, item)]
    if any(f.dtype != "int" for f in ids):
        return []
    known = columns | {t.name for t in tasks}
    needs = {name: name for name in ("click", "long_view", "like", "profile_enter", "topic", "tab")}
    needs |= {"play_ratio": "play_s", "author": "author_id"}
    return [
        f for f in point_in_time.COUNTERS
        if f.name not in columns and all(n in known for part, n in needs.items() if part in f.name)
    ]
