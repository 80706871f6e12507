"""Proposes a schema from a sample of a log, by rules that are easy to predict: a start for you to correct."""

import dataclasses
import math

from dlen_cam2.schema import Feature, Known, Schema, Task
from dlen_cam2.utils.errors import UserError
from pipelines.engines import Engine, quoted
from pipelines.features.amounts import Log as LogOfFeatures
from pipelines.features.point_in_time import masks_of
from pipelines.logs.log_files import INTEGERS, OURS, Log
from pipelines.suggestion.column_names import (
    feedback,
    is_event_id,
    is_id,
    is_place,
    is_random,
    is_request_id,
    is_spent,
    is_statistic,
    task_name,
)
from pipelines.suggestion.feedback_times import feedback_times
from pipelines.suggestion.log_sample import Column, Sample, Sides
from pipelines.suggestion.propose_computed import propose_computed

_DECIMALS = ("FLOAT", "DOUBLE", "DECIMAL")
_FEW, _LONGEST = 64, 50  # distinct values of a small vocabulary; values of a list
# Rows that a value of a large vocabulary needs to get its own row. An id with fewer is learned by heart, and nothing
# about it: on two logs 100 was better than 2 and 10 (docs/decisions/own_logs.md).
_OF_AN_ID, _OF_A_VALUE = 100, 10
# Feedback lies inside another: the share of its ones that do, and how many ones it must have; the share of the rows in
# which the other may be 1 at most; and the probability that as many ones lie there by chance.
_INSIDE, _ONES, _AROUND, _CHANCE = 0.98, 10, 0.9, 1e-6
_OWN, _VISIT = 0.9, 50  # share of rows with a value of their own, of an id of rows; rows of a session at most
_NUMBER = 1e12  # above it an integer that hardly two rows share is an id
_TO_LEARN = "; the tags task:NAME and kind:regression{} make it a task"
_ADVICE = {
    "date": "later days have other values; derive an age in days, the hour or the weekday from it",
    "clock": "reduce it to the hour, which is a category",
}


def suggest(
    engine: Engine, log: Log, time: str, user: str, item: str, random: str = "", split: str = "",
) -> tuple[Schema, dict[str, str]]:
    """Propose a schema with which the log can be converted; returns it, and the reason for each column but the time.

    Feedback, in columns of 0 and 1 (or true and false):

    - A column whose name stands for feedback is a task, in any spelling and form: `click`, `isLiked`, `add_to_cart`,
      `return_item`; see `column_names.feedback`. Where the name alone is ambiguous (`video_download`, `is_subscribed`),
      it is one unless the user or the item decides the value.
    - A column that is almost only 1 where another feedback is 1 is a task too, whatever its name, unless the user or
      the item decides it. Its mask is the smallest such feedback: the cart for a purchase, the click for a cart. At
      least 98% of its ones, and 10, must lie there; the mask must be 1 in more rows than the column, but in at most 90%
      of all rows, and in so few that chance explains it by less than 1e-6. Columns that are 1 in the same rows thus do
      not mask each other. Rows outside its mask do not count for a task; they may lack the label.
    - A task's name is `column_names.task_name`, or its column's name if two tasks would share one.
    - A task is known at the time in a column that has one where the task is 1, see `feedback_times`.

    Numbers whose names stand for time spent are targets, unless the user or the item decides them.

    Features:

    - Text, ids and integers from 0 to 99 are categorical with a learned vocabulary; they are hashed if over half of the
      rows have a unique value. In a vocabulary of more than 64 values, an id has its own row of the table from 100 rows
      on, and another value from 10; rarer ones share 16. Lists keep as many values as 99 of 100 rows have, at most 50.
    - Other numbers are numeric: as log-odds if they are rates, as log1p if they are not negative and have a long tail.
    - The side is the user or the item that decides the value, see `Sides.of`: two rows of the same item then agree much
      more often than any two. Rows without a value do not count. Otherwise, the side is the context.
    - The cause is statistical for counts and rates by name, context for the context's features, content otherwise.
    - Features to compute are added, see `propose_computed`; a log without times has none.

    Left out, with the reason:

    - the columns of `random` and `split`, and binary columns whose names may mark random exposures;
    - ids of requests, sessions and the like: by their names; or texts and ids with a unique value in 90% of the rows,
      and more values than there are users or items; or with values that belong to one user each, while users have
      several;
    - dates and times of day: as types, texts, numbers such as 20220425 or milliseconds since 1970, or by their names.
      An hour or a weekday is a small integer, so a category;
    - numbers, targets and labels (within their masks) that some rows of the log lack, with how many do;
    - lists of decimals, objects, other types, columns without values, and names of ours.

    Args:
        engine: the engine in which `log` is a view.
        log: the log.
        time: the column of the time; "" for a log without times, whose schema has no such key and no computed features.
        user, item: the columns of the ids.
        random: the column that is 1 for random exposures; "" if there is none.
        split: the column that says train or test; "" if there is none.

    Raises:
        UserError: a column is missing, or the log has no rows or no feedback.
    """
    for name in filter(None, (time, user, item, random, split)):
        log.column(name)
    flags = {random: "random", split: "split_column"}
    sample, why, columns = Sample(engine, log), {}, {}
    for name in log.types:
        if name == time:
            continue
        reason = f"it is the column of --{flags[name]}" if name in flags else _unfit(log, name)
        if not reason:
            columns[name] = Column(sample, name, name in (user, item))
            reason = columns[name].unfit or ("" if columns[name].distinct else "it has no values")
        why[name] = f"left out: {reason}" if reason else ""
    columns = {name: column for name, column in columns.items() if not why[name]}
    sample.measure(columns.values())
    sides = Sides(sample, user, item)
    for name, column in columns.items():
        if name not in (user, item) and (reason := _no_feature(column, sides, sample.rows)):
            why[name] = f"left out: {reason}"
    binary = [c for c in columns.values() if c.is_binary and not why[c.name] and c.name not in (user, item)]
    tasks = _tasks(sample, binary, sides, why)
    targets, features = [], []
    for name, column in columns.items():
        if why[name]:
            continue
        if is_spent(name) and column.is_number and sides.of(name)[0] == "context":
            why[name] = (_lacking(column, sample.rows) or "a target: the time spent") + _TO_LEARN.format(
                " and mask:COLUMN of the feedback that it follows" * bool(column.lacking))
            targets += [] if column.lacking else [name]
        else:
            feature, why[name] = _feature(column, sides, sample.rows)
            features += [feature] if feature else []
    if not tasks:
        named = "".join(f" {n!r} is {why[n]}." for n in why if feedback(n) and why[n].startswith("left out"))
        raise UserError(f"{log.name} must have feedback: a column of 0 and 1 with a name such as click or is_liked. "
                        f"Received columns: {sorted(log.types)}.{named} Otherwise write the schema by hand.")
    keys = {"user": user, "item": item} | ({"time": time} if time else {})
    computed: list[Feature] = []
    known: dict[str, Known] = {}
    if time:
        dated = [name for name in why if why[name].endswith(tuple(_ADVICE.values()))]
        for label, name in feedback_times(sample, log, time, {t.label: columns[t.label] for t in tasks}, dated).items():
            known[label] = Known(at=name)
            why[label] += f"; it is known at {name}"
            why[name] = f"the time at which {label} is known (known_at)"
        found = LogOfFeatures({}, time, item, known, masks=masks_of(Schema("log", (), tuple(tasks))))
        for name in (*(t.label for t in tasks if t.label not in known), *targets):
            inside = min(found.times(name), default="")
            why[name] += f"; taken to be known at {inside}, or at" if inside else "; taken to be known right after"
            why[name] += " a later time that known_at or known_after says" if inside else \
                " the exposure, else add known_at or known_after"
        values = {name: column.distinct for name, column in columns.items()}
        shares = {t.label: columns[t.label].ones / sample.rows for t in tasks}
        computed, reasons = propose_computed(features, tasks, shares, values, user, item, log.types,
            {t.label for t in tasks if found.times(t.label)})
        why |= reasons
    return Schema("log", (*features, *computed), tuple(tasks), tuple(targets), keys, known=known), why


def _unfit(log: Log, name: str) -> str:
    """Why a column of this name or type is not a feature; "" if it may be one."""
    found = log.types[name]
    inner = found.removesuffix("[]")
    if name in OURS:
        return "its name is reserved; rename the column"
    if found.startswith(("DATE", "TIME")):
        return f"it is of type {found}; {_ADVICE['date' if found.startswith(('DATE', 'TIMESTAMP')) else 'clock']}"
    if found != inner and inner.startswith(_DECIMALS):
        return f"it is a list of decimals ({found}), but lists must hold integers or texts"
    if not inner.startswith((*INTEGERS, *_DECIMALS, "VARCHAR")) or inner.endswith("]"):
        return f"it is of type {found}, but features must be numbers, texts, or lists of integers or texts"
    return ""


def _no_feature(column: Column, sides: Sides, rows: int) -> str:
    """Why a column of the log's `rows` is neither feedback nor a feature by its values; "" if it may be."""
    name = column.name
    if column.is_binary:
        return f"it is 0 and 1; pass --random={name} if it marks random exposures" if is_random(name) else ""
    if column.is_list:
        return ""
    if moment := column.moment:
        kind = "a date or time" if moment == "date" else "a time of day"
        return f"it is {kind} such as {column.examples[0]}; {_ADVICE[moment]}"
    if feedback(name) and column.distinct <= 3 and not is_statistic(name) and sides.of(name)[0] == "context":
        return f"its name is of feedback, which must be 0 and 1 or true and false. Received: {column.examples}"
    if is_request_id(name):
        return "by its name it is the id of a request or a session, which does not occur again"
    own = column.distinct > _OWN * column.values
    if column.is_number and not is_id(name):
        if column.is_whole and column.values == column.distinct > _FEW and column.high - column.low < 1.5 * rows:
            return "it is the number of the row"
        if not (column.is_whole and own and column.high > _NUMBER):
            return ""
    values = f"it has {column.distinct:,} values in {column.values:,} rows of the sample"
    if own and column.distinct > max(sides.sizes.values()):
        return f"{values}, more than there are users or items: it is an id of the row, or free text"
    if column.distinct > _FEW and column.values < _VISIT * column.distinct and sides.of(name)[0] == "context":
        if is_event_id(name):
            return f"{values}, and by its name it is the id of an event"
        if sides.divides_users(column):
            return f"{values}, each of one user: it is the id of a session or the like, which does not occur again"
    return ""


def _tasks(sample: Sample, binary: list[Column], sides: Sides, why: dict[str, str]) -> list[Task]:
    """The tasks among the binary columns; `why` receives what became of each feedback."""
    varied = {c.name for c in binary if sides.of(c.name)[0] == "context"}
    kinds = {c.name: kind for c in binary if (kind := feedback(c.name)) and (kind.sure or c.name in varied)}
    named = [c for c in binary if c.name in kinds]
    others = [c for c in binary if c.name in varied - kinds.keys()]
    both = sample.together(others, named)
    labels = named + [c for c in others if any(_inside(c, n, both, sample.rows) for n in named)]
    both = sample.together(labels, labels)
    found: dict[str, Task] = {}
    values: dict[str, str] = {}  # SQL of a label, which is 0 where it is missing and its mask is 0
    for c in sorted(labels, key=lambda c: -c.ones):  # what lies around a column is 1 in more rows
        negative = c.name in kinds and kinds[c.name].negative
        said = f"a task: {c.ones:,} of {sample.rows:,} rows are 1 ({c.ones / sample.rows:.2%})"
        said += ", a sign of dislike" * negative
        said += "; its name is not of feedback: remove it if it is known before the exposure" * (c.name not in kinds)
        mask, values[c.name] = "", c.number
        if around := [m for m in labels if m.name in found and _inside(c, m, both, sample.rows)]:
            mask = min(around, key=lambda m: m.ones).name
            inside = both[c.name, mask]
            said += f"; its mask is {mask}, which is 1 in {inside / c.ones:.1%} of these rows"
            said += f", and the other {c.ones - inside:,} do not count" * (inside < c.ones)
            values[c.name] = f"coalesce({c.number}, CASE WHEN {values[mask]} = 0 THEN 0 END)"
            if c.lacking:
                c.lacking -= sample.engine.one(
                    f"SELECT count(*) FROM log WHERE {quoted(c.name)} IS NULL AND {values[mask]} = 0")
        why[c.name] = _lacking(c, sample.rows, "0 or 1") or said
        if not c.lacking:
            found[c.name] = Task(c.name, mask=mask, negative=negative)
    names = [task_name(name) for name in found]
    return [dataclasses.replace(found[c.name], name=name, label=c.name)
            if names.count(name := task_name(c.name)) == 1 else found[c.name] for c in binary if c.name in found]


def _inside(column: Column, around: Column, both: dict[tuple[str, str], int], rows: int) -> bool:
    """Whether `column` is almost only 1 where `around` is, which is 1 in more rows, and not by chance."""
    if column is around:
        return False
    inside, ones = both[column.name, around.name], column.ones
    return (ones >= _ONES and _INSIDE * ones <= inside < _INSIDE * around.ones and around.ones <= _AROUND * rows
            and (around.ones / rows) ** ones < _CHANCE)


def _lacking(column: Column, rows: int, what: str = "number") -> str:
    """Why a column is left out because rows of the log lack a value; "" if none do."""
    if not column.lacking:
        return ""
    stray = f" (but {column.stray!r})" if column.stray else ""
    return f"left out: {column.lacking:,} of {rows:,} rows have no {what}{stray}; fill the column to use it"


def _feature(column: Column, sides: Sides, rows: int) -> tuple[Feature | None, str]:
    """The feature and the note about it; None if some of the log's `rows` lack a number."""
    side, reason = sides.of(column.name)
    reason += "; nobody knows it before ranking: leave it out, or serve one value for all" * is_place(column.name)
    is_key = column.name in sides.keys.values()
    cause = "context" if side == "context" else "content"
    if is_statistic(column.name) and column.is_number and not is_key:
        cause, reason = "statistical", f"{reason}; by its name a count or rate"
    named_id = is_key or is_id(column.name)
    small = column.is_whole and 0 <= column.low and column.high < 100
    if column.is_number and (cause == "statistical" or not column.is_whole) \
            or column.is_whole and not (named_id or small):
        if column.lacking:
            return None, _lacking(column, rows)
        transform = "log1p" if column.low >= 0 and column.high > 20 * max(column.median, 1) else ""
        if 0 <= column.low and column.high <= 1 and not column.is_whole:
            transform = "logit"
        reason = f"{reason}; numeric {transform}".rstrip()
        return Feature(column.name, "float", side, cause, transform=transform), reason
    reason += "; an attribute, although its name is of feedback" * bool(column.is_binary and feedback(column.name))
    reason += "; a list of categories" if column.is_list else "; categorical"
    dtype = "int" if column.is_integer else "string"
    width = 16 if named_id else 8
    length = min(max(2, column.length), _LONGEST) if column.is_list else 1
    if column.distinct > column.values / 2 and column.distinct > 1000:
        buckets = 2 ** math.ceil(math.log2(4 * column.distinct))
        reason += f", hashed: {column.distinct:,} values in {column.values:,} of the sample"
        feature = Feature(column.name, dtype, side, cause, size=buckets, hashed=True, width=width, max_length=length)
    else:
        reason += f", {column.distinct:,} values in the sample"
        least, buckets = (1, 0) if column.distinct <= _FEW else (_OF_AN_ID if named_id else _OF_A_VALUE, 16)
        feature = Feature(column.name, dtype, side, cause, min_count=least, oov_buckets=buckets, width=width,
                          max_length=length)
    if column.lacking:
        reason += f"; {column.lacking:,} of {rows:,} rows have no value"
        reason += ", and --on_bad_row=skip leaves them out" * is_key
    return feature, reason
