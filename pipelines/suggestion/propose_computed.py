"""Proposes features to compute from a log: what is worth counting, by which key, and why."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dlen_cam2.schema import Computed, Feature, Task
from pipelines.features.amounts import INTERNAL
from pipelines.suggestion.column_names import clock, is_place

_KEYS = 3  # columns of the item, and of the context, by which is counted
_VALUES = 64  # of a column of the context by which is counted
_TASKS = 2  # whose last outcomes are told: the most frequent
_OFTEN = 0.05  # share of positives from which on a task is often seen: its last outcomes say something about the next
_STRENGTH = {"often": 10, "rarely": 30}
_RECENT = ("10m", "1h", "1d")
_PAUSE = "30m"


class Seen(NamedTuple):
    """What is known of a task: its label, its positive rate, and whether it is known of every exposure at some time."""

    name: str
    label: str
    rate: float
    each: bool


def propose_computed(
    features: Sequence[Feature], tasks: Sequence[Task], rates: Mapping[str, float], values: Mapping[str, int],
    user: str, item: str, taken: Iterable[str], known_at: Iterable[str] = (),
) -> tuple[list[Feature], dict[str, str]]:
    """The features that are proposed, and the reason for each.

    - The user: exposures, the rates of all tasks, the time since the last of each, and the state of the session: for
      the most frequent tasks what came of the last exposure and of the last 3 and 10, how much happened within 10
      minutes, an hour and a day, and the place in the session.
    - The item, and the three columns of the item with the most values (at least 2, and at most half as many as there
      are items): exposures and rates.
    - The user with each of these: exposures, rates of tasks that are often positive, and the time since the last
      positive of those that are not, such as a purchase in the category. Whether the row's value of the item's column
      is among those of the last exposures.
    - The user with columns of the context that have few values: exposures, and rates of tasks that are often positive.

    Args:
        features: the features among the log's columns.
        tasks: the tasks.
        rates: the share of ones of each label.
        values: the number of different values of each column.
        user, item: the columns of the ids.
        taken: names that no feature may have; case is ignored.
        known_at: labels that are known at a time of their own.
    """
    seen = [Seen(t.name, t.label, rates[t.label], t.label not in known_at) for t in tasks if not t.is_number]
    ids = [f for f in features if not f.is_numeric and not f.is_list and f.name not in (user, item)
           and not f.name.startswith(INTERNAL)]
    of_item = [f.name for f in ids if f.side == "item" and 2 <= values[f.name] <= max(values[item] / 2, 2)]
    of_item = sorted(of_item, key=lambda name: -values[name])[:_KEYS]
    around = [f.name for f in ids if f.side == "context" and 2 <= values[f.name] <= _VALUES
              and not is_place(f.name) and not clock(f.name)][:_KEYS]
    lower = {name.lower() for name in taken}
    renamed: dict[str, str] = {}
    found: list[Feature] = []
    why: dict[str, str] = {}

    def add(name: str, side: str, reason: str, computed: Computed) -> None:
        transform = {"rate": "logit", "mean": "", "last": "", "same": ""}.get(computed.kind, "log1p")
        own = name
        while own.lower() in lower:  # a column of the log is called so
            own += "_computed"
        lower.add(own.lower())
        renamed[name], name = own, own
        if computed.prior:
            computed = dataclasses.replace(computed, prior=renamed[computed.prior])
        found.append(Feature(name, "float", side, "statistical", transform=transform, computed=computed))
        why[name] = f"computed: {reason}"

    for name, reason, computed in (*_of_user(user, seen), *_session(user, seen)):
        add(name, "user", reason, computed)
    for key in (item, *of_item):
        for name, reason, computed in _of_key(key, seen):
            add(name, "item", reason, computed)
    for key in (item, *of_item, *around):
        for name, reason, computed in _of_both(user, key, seen, key in around):
            add(name, "context", reason, computed)
    for key in of_item:
        for last in (1, 3):
            last_ones = "the last exposure" if last == 1 else f"one of the last {last} exposures"
            add(f"{user}_same_{key}_{last}", "context", f"whether {last_ones} of {user} had this {key}",
                Computed("same", (user,), value=key, over=f"last {last}"))
    return found, why


_Proposed = tuple[str, str, Computed]


def _rate(by: tuple[str, ...], task: Seen, **how: Any) -> Computed:
    often = task.rate >= _OFTEN
    if not how:
        how = {"start": 0.5 if often else 0.05}
    return Computed("rate", by, of=task.label, strength=_STRENGTH["often" if often else "rarely"], **how)


def _of_user(user: str, seen: Sequence[Seen]) -> Iterator[_Proposed]:
    yield f"{user}_exposures", f"exposures of {user}", Computed("count", (user,))
    yield f"{user}_age", f"seconds since the last exposure of {user}", Computed("age", (user,))
    for task in seen:
        yield f"{user}_{task.name}_rate", f"rate of {task.name} of {user}", _rate((user,), task)
        yield (f"{user}_{task.name}_age", f"seconds since the last {task.name} of {user}",
               Computed("age", (user,), of=task.label))


def _session(user: str, seen: Sequence[Seen]) -> Iterator[_Proposed]:
    """What the user has just done: it says more than all that was long ago."""
    yield (f"{user}_session_exposures", f"place in the session of {user}, which a pause of {_PAUSE} ends",
           Computed("count", (user,), over=f"session {_PAUSE}"))
    for window in _RECENT:
        yield (f"{user}_exposures_{window}", f"exposures of {user} within {window}",
               Computed("count", (user,), over=window))
    for task in sorted(seen, key=lambda task: -task.rate)[:_TASKS]:
        for window in _RECENT:
            yield (f"{user}_{task.name}_{window}", f"{task.name} of {user} within {window}",
                   Computed("count", (user,), of=task.label, over=window))
        if task.each:
            yield (f"{user}_last_{task.name}", f"{task.name} of the last exposure of {user}",
                   Computed("last", (user,), value=task.label))
            for last in (3, 10):
                yield (f"{user}_{task.name}_of_{last}", f"share of {task.name} in the last {last} exposures of {user}",
                       Computed("mean", (user,), value=task.label, over=f"last {last}"))


def _of_key(key: str, seen: Sequence[Seen]) -> Iterator[_Proposed]:
    yield f"{key}_exposures", f"exposures of {key}", Computed("count", (key,))
    for task in seen:
        yield f"{key}_{task.name}_rate", f"rate of {task.name} of {key}", _rate((key,), task)


def _of_both(user: str, key: str, seen: Sequence[Seen], is_context: bool) -> Iterator[_Proposed]:
    by = (user, key)
    name = f"{user}_{key}"
    yield f"{name}_exposures", f"exposures of {user} with {key}", Computed("count", by)
    for task in seen:
        if task.rate >= _OFTEN:
            yield (f"{name}_{task.name}_rate",
                   f"rate of {task.name} of {user} with {key}, smoothed towards that of {user}",
                   _rate(by, task, prior=f"{user}_{task.name}_rate"))
        elif not is_context:
            yield (f"{name}_{task.name}_age", f"seconds since the last {task.name} of {user} with {key}",
                   Computed("age", by, of=task.label))


def costs(features: Sequence[Feature]) -> str:
    """What it costs to compute the features, in words."""
    keys = {(f.computed.by, f.computed.over) for f in features if f.computed}
    return (f"{len(features)} computed features, by {len({by for by, _ in keys})} keys and {len(keys)} pairs of key "
            "and window: each day's rows are sorted once for each pair, and a snapshot has a row for each value of a "
            "key; remove those that you do not need")
