"""`Schema`: what the columns are. Every part of the product uses it, from the pipelines to the SavedModel."""

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dlen_cam2.schema.columns import Feature, Task
from dlen_cam2.schema.computed import Known
from dlen_cam2.utils.errors import UserError

KEYS = ("user", "item", "time")


@dataclasses.dataclass(frozen=True)
class Schema:
    """The columns of a data set.

    Attributes:
        name: the data set's name.
        features: model inputs, in order.
        tasks: feedback signals, in order.
        targets: numeric label columns (float32), such as watch time; a target may also be a float feature. The labels
            of regression tasks are targets whether they are named here or not.
        keys: column name by role ("user", "item", "time"). The user key groups rows for GAUC and for the bootstrap.
        text_keys: columns of `keys` that hold texts, sorted; a key that is a string feature need not be named. The
            others are integers, or have the type of the feature of the same name.
        known: when feedback is known, by column, for features that are computed from it: labels, masks, targets, and
            columns that only such features read. Default: right after its exposure.

    Raises:
        UserError: a name is used twice, the features of a shared table differ in shape, or a key is unknown.
    """

    name: str
    features: tuple[Feature, ...]
    tasks: tuple[Task, ...]
    targets: tuple[str, ...] = ()
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)
    text_keys: tuple[str, ...] = ()
    known: Mapping[str, Known] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = [t.label for t in self.tasks if t.is_number]
        more = dict.fromkeys(label for label in numbers if label not in self.targets)
        object.__setattr__(self, "targets", (*self.targets, *more))
        if strange := sorted(set(numbers) & set(self.binary_columns)):
            raise UserError(f"a column must be either numeric, or a binary label or mask. Received as both: {strange}.")
        labels = list(self.binary_columns)
        numeric = {f.name for f in self.features if f.is_numeric}
        _unique("column", [f.name for f in self.features] + labels + [t for t in self.targets if t not in numeric])
        _unique("target", list(self.targets))
        _unique("task", [t.name for t in self.tasks])
        if unknown := sorted(set(self.keys) - set(KEYS)):
            raise UserError(f"keys must be among {KEYS}. Received: {unknown}.")
        # Kept beside the features, so that a key has its type also where its feature is left out.
        types = dict.fromkeys(self.text_keys, "string") | {f.name: f.dtype for f in self.features}
        texts = [c for c in sorted(set(self.keys.values())) if types.get(c) == "string"]
        object.__setattr__(self, "text_keys", tuple(texts))
        tables: dict[str, Feature] = {}
        for feature in self.features:
            if feature.is_numeric:
                continue
            first = tables.setdefault(feature.table, feature)
            shape = ("dtype", "size", "hashed", "vocabulary", "min_count", "oov_buckets", "width")
            if any(getattr(first, a) != getattr(feature, a) for a in shape):
                raise UserError(
                    f"features {first.name!r} and {feature.name!r} share the table {feature.table!r}, so their "
                    f"dtype, size, hashing, vocabulary, min_count, oov_buckets and width must be equal. Received: "
                    f"{[getattr(first, a) for a in shape if a != 'vocabulary']} and "
                    f"{[getattr(feature, a) for a in shape if a != 'vocabulary']}."
                )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Schema":
        """The schema that `dataclasses.asdict` turned into `values`, also after a pass through JSON."""
        def listed(of: type, items: Iterable[Mapping[str, Any]]) -> tuple[Any, ...]:
            return tuple(of(**{k: tuple(v) if isinstance(v, list) else v for k, v in i.items()}) for i in items)

        return cls(values["name"], listed(Feature, values["features"]), listed(Task, values["tasks"]),
                   tuple(values["targets"]), dict(values["keys"]), tuple(values.get("text_keys", ())),
                   {name: Known(**known) for name, known in values.get("known", {}).items()})

    @property
    def groups(self) -> dict[str, tuple[Feature, ...]]:
        """The features by group, both in schema order."""
        groups: dict[str, tuple[Feature, ...]] = {}
        for feature in self.features:
            groups[feature.group] = (*groups.get(feature.group, ()), feature)
        return groups

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(t.name for t in self.tasks)

    @property
    def ancestors(self) -> tuple[tuple[int, ...], ...]:
        """For each task, the indices of the tasks that it follows, nearest first: for a conversion, the click.

        A task follows the one whose label is its mask.

        Raises:
            UserError: tasks form a cycle of masks.
        """
        place = {t.label: k for k, t in enumerate(self.tasks) if not t.is_number}
        found = []
        for task in self.tasks:
            chain: list[int] = []
            before = place.get(task.mask)
            while before is not None:
                if before in chain:
                    raise UserError(f"the masks of tasks must not form a cycle. Received: one through {task.name!r}.")
                chain.append(before)
                before = place.get(self.tasks[before].mask)
            found.append(tuple(chain))
        return tuple(found)

    @property
    def parents(self) -> tuple[int | None, ...]:
        """For each task, the index of the nearest of its `ancestors`, or None."""
        return tuple(chain[0] if chain else None for chain in self.ancestors)

    @property
    def follows(self) -> dict[str, str | None]:
        """For each task, by name, the name of its parent, see `parents`."""
        names = self.task_names
        return {name: None if k is None else names[k] for name, k in zip(names, self.parents, strict=True)}

    @property
    def mask_columns(self) -> tuple[str, ...]:
        """The masks that are not the label of a task."""
        labels = {t.label for t in self.tasks if not t.is_number}
        return tuple(sorted({t.mask for t in self.tasks if t.mask} - labels))

    @property
    def binary_columns(self) -> tuple[str, ...]:
        """The columns that hold 0 or 1: the labels in task order, then the masks."""
        return tuple(t.label for t in self.tasks if not t.is_number) + self.mask_columns

    @property
    def columns(self) -> dict[str, str]:
        """Every column of a record with its type: features, labels, masks, targets, keys."""
        columns = {f.name: f.dtype for f in self.features}
        columns |= dict.fromkeys(self.binary_columns, "int")
        columns |= dict.fromkeys(self.targets, "float")
        for column in self.keys.values():
            columns.setdefault(column, "string" if column in self.text_keys else "int")
        return columns

    def select(self, tasks: Iterable[str] = (), features: Iterable[str] = (), without: Iterable[str] = ()) -> "Schema":
        """The schema with only the named tasks and features (empty: all) and without those in `without`.

        Their order stays that of the schema. A mask that was the label of a dropped task remains as a column.

        Raises:
            UserError: a name is not in the schema.
        """
        tasks, features, without = tuple(tasks), tuple(features), tuple(without)
        names = tuple(f.name for f in self.features)
        _known("task", tasks, self.task_names, self.name)
        _known("feature", features + without, names, self.name)
        keep = [n for n in features or names if n not in without]
        return dataclasses.replace(
            self,
            tasks=tuple(t for t in self.tasks if t.name in (tasks or self.task_names)),
            features=tuple(f for f in self.features if f.name in keep),
        )

    def weigh(self, weights: Sequence[float]) -> "Schema":
        """The schema with these task weights, in the order of `tasks`; empty: unchanged.

        Raises:
            UserError: there is not one weight for each task.
        """
        if weights and len(weights) != len(self.tasks):
            raise UserError(f"there must be one weight for each task of {self.task_names}. Received: {tuple(weights)}.")
        tasks = self.tasks if not weights else tuple(
            dataclasses.replace(t, weight=float(w)) for t, w in zip(self.tasks, weights, strict=True)
        )
        return dataclasses.replace(self, tasks=tasks)

    def learn(self, counts: Mapping[str, Mapping[Any, int]]) -> "Schema":
        """The schema with the vocabularies of the features with a `min_count` learned from `counts`.

        Args:
            counts: how often each value occurs on the training days, by feature, see `dlen_cam2.data.counts`. The
                counts of single-valued features that share a table are added. The counts of lists matter only if all
                features of the table are lists.

        Raises:
            UserError: a feature is not in `counts`.
        """
        vocabularies: dict[str, tuple[Any, ...]] = {}
        for feature in self.features:
            if not feature.min_count or feature.table in vocabularies:
                continue
            sharing = [f for f in self.features if not f.is_numeric and f.table == feature.table]
            total: collections.Counter[Any] = collections.Counter()
            for f in [f for f in sharing if not f.is_list] or sharing:
                if f.name not in counts:
                    raise UserError(f"feature {f.name!r} must have counts to learn its vocabulary. Received: none.")
                total.update(counts[f.name])
            known = [(-n, v) for v, n in total.items()
                     if n >= feature.min_count and (v != "" if feature.dtype == "string" else v >= 0)]
            vocabularies[feature.table] = tuple(v for _, v in sorted(known))
        return dataclasses.replace(self, features=tuple(
            dataclasses.replace(f, vocabulary=vocabularies[f.table]) if f.min_count else f for f in self.features
        ))

    def fit(self, statistics: Mapping[str, Any], days: Iterable[str]) -> "Schema":
        """The schema with the positive rates and numeric moments of `days` (the training days only).

        Args:
            statistics: the content of `statistics.json`.
            days: the splits to use.

        Raises:
            UserError: a day or a column is missing from the statistics.
        """
        parts = []
        for day in days:
            if day not in statistics["days"]:
                raise UserError(f"statistics.json has no day {day!r}. Received days: {list(statistics['days'])}.")
            parts.append(statistics["days"][day])

        def task(t: Task) -> Task:
            if any(t.name not in p["tasks"] for p in parts):
                raise UserError(f"statistics.json has no counts of the task {t.name!r}: write the data set again.")
            found = [p["tasks"][t.name] for p in parts]
            rows = sum(p["rows"] for p in found)
            if t.is_number:
                if any("sum" not in p for p in found):
                    raise UserError(f"statistics.json has no moments of the task {t.name!r}: write the data set again.")
                mean = sum(p["sum"] for p in found) / rows if rows else 0.0
                # Of the squared distances from each day's own mean, so that large numbers keep their digits.
                variance = sum(p["squares"] + p["rows"] * (p["sum"] / p["rows"] - mean) ** 2
                               for p in found if p["rows"]) / max(rows, 1)
                std = math.sqrt(variance)
                # Of a constant label no more than rounding is left; float32 must hold 1 / std.
                return dataclasses.replace(t, mean=mean, std=std if std > max(1e-12 * abs(mean), 1e-30) else 1.0)
            return dataclasses.replace(t, positive_rate=sum(p["positives"] for p in found) / rows if rows else 0.0)

        def feature(f: Feature) -> Feature:
            if not f.is_numeric:
                return f
            missing = [p for p in parts if f.name not in p["features"]]
            if missing:
                raise UserError(f"statistics.json has no moments of the feature {f.name!r}: write the data set again.")
            n = sum(p["rows"] for p in parts)
            if not n:
                return f
            moments = [(p["rows"], p["features"][f.name]["model_mean"], p["features"][f.name]["model_std"])
                       for p in parts if p["rows"]]
            mean = sum(r * m for r, m, _ in moments) / n
            variance = sum(r * (s * s + (m - mean) ** 2) for r, m, s in moments) / n
            # A constant column carries nothing; std 1 keeps it finite.
            return dataclasses.replace(f, mean=mean, std=math.sqrt(variance) if variance > 1e-12 else 1.0)

        return dataclasses.replace(
            self, tasks=tuple(map(task, self.tasks)), features=tuple(map(feature, self.features))
        )


def _unique(kind: str, names: list[str]) -> None:
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise UserError(f"each {kind} may be named only once. Received more than once: {twice}.")


def _known(kind: str, names: tuple[str, ...], known: tuple[str, ...], where: str) -> None:
    unknown = [n for n in names if n not in known]
    if unknown:
        raise UserError(f"the schema {where!r} has no {kind} {unknown}. Known: {list(known)}.")
