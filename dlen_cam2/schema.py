"""`Schema`: what the columns are. It crosses the whole product, from the pipelines to the SavedModel."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dlen_cam2.cli import UserError

SIDES = ("user", "item", "context")
CAUSES = ("statistical", "content", "context")
DTYPES = ("int", "float", "string")
KEYS = ("user", "item", "time")
TRANSFORMS = ("", "log1p", "logit")


@dataclasses.dataclass(frozen=True)
class Feature:
    """One model input column.

    Categorical features (`int`, `string`) become the rows of an embedding table. Index 0 stands for
    "missing or unknown", so a table has `1 + cardinality` rows:

    - `int`, not hashed: an id v in [0, size) has index 1 + v;
    - `string` with a vocabulary: the value at position p has index 1 + p;
    - hashed: index 1 + hash(value) mod size.

    Numeric features (`float`) enter as (t(v) - mean) / std, with t the feature's transform: "" leaves v,
    "log1p" is log(1 + v) for heavy-tailed v >= 0, "logit" is log(v / (1 - v)) for rates v in [0, 1], whose
    differences matter most near 0.

    Attributes:
        name: the column's name in the records.
        dtype: "int", "float" or "string".
        side: whom the feature describes: "user", "item" or "context".
        cause: "statistical" (counts and rates of past feedback), "content" (attributes, ids, history) or
            "context". CAM2 gives statistical features to conformity and content features to relevance.
        size: int ids run over [0, size); for a hashed feature the number of buckets.
        hashed: map any value that is not missing (ids below 0, "") to one of `size` buckets; two values collide
            with probability 1 / size.
        vocabulary: the known values of a string feature, in index order.
        width: embedding width of a categorical feature.
        table: name of the embedding table; features that name the same table share it. Default: `name`.
        max_length: 1 for a single value; above 1 the feature is a list of up to `max_length` values
            (categorical only), of which the reader keeps the first.
        transform: numeric only; "", "log1p" or "logit".
        mean, std: numeric only; moments of t(v) over the training days, see `Schema.fit`.

    Raises:
        UserError: an attribute breaks one of these rules.
    """

    name: str
    dtype: str
    side: str
    cause: str
    size: int = 0
    hashed: bool = False
    vocabulary: tuple[str, ...] = ()
    width: int = 0
    table: str = ""
    max_length: int = 1
    transform: str = ""
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        def rule(holds: bool, text: str, received: Any) -> None:
            if not holds:
                raise UserError(f"feature {self.name!r}: {text}. Received: {received!r}.")

        rule(bool(self.name), "name must not be empty", self.name)
        rule(self.dtype in DTYPES, f"dtype must be one of {DTYPES}", self.dtype)
        rule(self.side in SIDES, f"side must be one of {SIDES}", self.side)
        rule(self.cause in CAUSES, f"cause must be one of {CAUSES}", self.cause)
        rule(self.max_length >= 1, "max_length must be at least 1", self.max_length)
        for number in ("mean", "std"):  # plain floats, so that their text in schema.pbtxt is a number's
            object.__setattr__(self, number, float(getattr(self, number)))
        if self.is_numeric:
            rule(self.max_length == 1, "a float feature must be single-valued", self.max_length)
            rule(not (self.size or self.hashed or self.vocabulary or self.width or self.table),
                 "a float feature has no vocabulary, size, hash, width or table", self)
            rule(self.transform in TRANSFORMS, f"transform must be one of {TRANSFORMS}", self.transform)
            rule(math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0,
                 "mean must be finite and std positive", (self.mean, self.std))
            return
        rule(self.width >= 1, "width of a categorical feature must be at least 1", self.width)
        rule(not self.transform and self.mean == 0.0 and self.std == 1.0,
             "transform, mean and std are for float features", (self.transform, self.mean, self.std))
        if not self.table:
            object.__setattr__(self, "table", self.name)
        if self.vocabulary:
            rule(self.dtype == "string" and not self.hashed and not self.size,
                 "a vocabulary is for string features that are not hashed and have no size",
                 (self.dtype, self.hashed, self.size))
            rule(len(set(self.vocabulary)) == len(self.vocabulary), "vocabulary must hold each value once",
                 len(self.vocabulary))
            rule("" not in self.vocabulary, "vocabulary must not hold the empty string, which means missing", "")
        else:
            rule(self.size >= 1, "size must be at least 1", self.size)
            rule(self.dtype == "int" or self.hashed, "a string feature needs a vocabulary or hashing", self.hashed)

    @property
    def is_numeric(self) -> bool:
        return self.dtype == "float"

    @property
    def domain(self) -> tuple[float, float]:
        """The least and the greatest value that a numeric feature may have."""
        return {"": (-math.inf, math.inf), "log1p": (0.0, math.inf), "logit": (0.0, 1.0)}[self.transform]

    @property
    def is_list(self) -> bool:
        return self.max_length > 1

    @property
    def rows(self) -> int:
        """Rows of the embedding table: one for missing or unknown, one for each known value or bucket."""
        return 1 + (len(self.vocabulary) or self.size)

    @property
    def group(self) -> str:
        """`side_cause`, such as "user_statistical"; just "context" when both are context."""
        return self.side if self.side == self.cause else f"{self.side}_{self.cause}"


@dataclasses.dataclass(frozen=True)
class Task:
    """One feedback signal to predict.

    Attributes:
        name: the task's name, such as "click".
        label: the column that holds 0 or 1. Default: `name`.
        mask: the column that is 1 for rows in the task's sample space (PLE, section 4.3), which may be another
            task's label (conversions among clicks). Default: all rows.
        negative: the signal shows dislike, such as "hate": it is no sign of preference.
        weight: the task's weight in the total loss.
        positive_rate: share of positives in the sample space of the training days, see `Schema.fit`;
            DLEN's cap is a multiple of it. 0 until fitted.
    """

    name: str
    label: str = ""
    mask: str = ""
    negative: bool = False
    weight: float = 1.0
    positive_rate: float = 0.0

    def __post_init__(self) -> None:
        if not self.name:
            raise UserError("a task needs a name. Received: ''.")
        if not self.label:
            object.__setattr__(self, "label", self.name)
        for number in ("weight", "positive_rate"):
            object.__setattr__(self, number, float(getattr(self, number)))
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise UserError(f"task {self.name!r}: weight must be finite and >= 0. Received: {self.weight!r}.")
        if not 0 <= self.positive_rate <= 1:
            raise UserError(
                f"task {self.name!r}: positive_rate must be in [0, 1]. Received: {self.positive_rate!r}."
            )


@dataclasses.dataclass(frozen=True)
class Schema:
    """The columns of a data set.

    Attributes:
        name: the data set's name.
        features: model inputs, in order.
        tasks: feedback signals, in order.
        targets: numeric label columns (float32), such as watch time; one may also be a float feature.
        keys: column name by role ("user", "item", "time"); integers unless the column is also a feature of
            another type. The user key groups rows for GAUC and for the bootstrap.

    Raises:
        UserError: a name is used twice, a shared table has features of different shape, or a key is unknown.
    """

    name: str
    features: tuple[Feature, ...]
    tasks: tuple[Task, ...]
    targets: tuple[str, ...] = ()
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = list(self.binary_columns)
        numeric = {f.name for f in self.features if f.is_numeric}
        _unique("column", [f.name for f in self.features] + labels + [t for t in self.targets if t not in numeric])
        _unique("target", list(self.targets))
        _unique("task", [t.name for t in self.tasks])
        if unknown := sorted(set(self.keys) - set(KEYS)):
            raise UserError(f"keys must be among {KEYS}. Received: {unknown}.")
        tables: dict[str, Feature] = {}
        for feature in self.features:
            if feature.is_numeric:
                continue
            first = tables.setdefault(feature.table, feature)
            shape = ("dtype", "size", "hashed", "vocabulary", "width")
            if any(getattr(first, a) != getattr(feature, a) for a in shape):
                raise UserError(
                    f"features {first.name!r} and {feature.name!r} share the table {feature.table!r}, so their "
                    f"dtype, size, hashing, vocabulary and width must be equal. Received: "
                    f"{[getattr(first, a) for a in shape if a != 'vocabulary']} and "
                    f"{[getattr(feature, a) for a in shape if a != 'vocabulary']}."
                )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Schema":
        """The schema whose `dataclasses.asdict` (also after a pass through JSON) is `values`."""
        def listed(of: type, items: Iterable[Mapping[str, Any]]) -> tuple[Any, ...]:
            return tuple(of(**{k: tuple(v) if isinstance(v, list) else v for k, v in i.items()}) for i in items)

        return cls(values["name"], listed(Feature, values["features"]), listed(Task, values["tasks"]),
                   tuple(values["targets"]), dict(values["keys"]))

    @property
    def groups(self) -> dict[str, tuple[Feature, ...]]:
        """Features by group, both in schema order."""
        groups: dict[str, tuple[Feature, ...]] = {}
        for feature in self.features:
            groups[feature.group] = (*groups.get(feature.group, ()), feature)
        return groups

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(t.name for t in self.tasks)

    @property
    def mask_columns(self) -> tuple[str, ...]:
        """The masks that are no task's label."""
        return tuple(sorted({t.mask for t in self.tasks if t.mask} - {t.label for t in self.tasks}))

    @property
    def binary_columns(self) -> tuple[str, ...]:
        """Columns that hold 0 or 1: the labels in task order, then the masks."""
        return tuple(t.label for t in self.tasks) + self.mask_columns

    @property
    def columns(self) -> dict[str, str]:
        """Every column of a record with its type: features, labels, masks, targets, keys."""
        columns = {f.name: f.dtype for f in self.features}
        columns |= dict.fromkeys(self.binary_columns, "int")
        columns |= dict.fromkeys(self.targets, "float")
        for column in self.keys.values():
            columns.setdefault(column, "int")
        return columns

    def select(self, tasks: Iterable[str] = (), features: Iterable[str] = (), without: Iterable[str] = ()) -> "Schema":
        """The schema with only the named tasks and features (empty: all), less the features in `without`.

        They stay in the schema's order. A mask that was a dropped task's label stays a column.

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
        """The schema with these task weights, in the order of `tasks`; empty: as it is.

        Raises:
            UserError: there is not one weight for each task.
        """
        if weights and len(weights) != len(self.tasks):
            raise UserError(f"there must be one weight for each task of {self.task_names}. Received: {tuple(weights)}.")
        tasks = self.tasks if not weights else tuple(
            dataclasses.replace(t, weight=float(w)) for t, w in zip(self.tasks, weights, strict=True)
        )
        return dataclasses.replace(self, tasks=tasks)

    def fit(self, statistics: Mapping[str, Any], days: Iterable[str]) -> "Schema":
        """The schema with positive rates and numeric moments of `days` (the training days only).

        Args:
            statistics: the content of `statistics.json`.
            days: the splits to use.

        Raises:
            UserError: a day is not in the statistics, or a column is missing there.
        """
        parts = []
        for day in days:
            if day not in statistics["days"]:
                raise UserError(f"statistics.json has no day {day!r}. Received days: {list(statistics['days'])}.")
            parts.append(statistics["days"][day])

        def task(t: Task) -> Task:
            if any(t.name not in p["tasks"] for p in parts):
                raise UserError(f"statistics.json has no counts of the task {t.name!r}.")
            found = [p["tasks"][t.name] for p in parts]
            rows = sum(p["rows"] for p in found)
            return dataclasses.replace(t, positive_rate=sum(p["positives"] for p in found) / rows if rows else 0.0)

        def feature(f: Feature) -> Feature:
            if not f.is_numeric:
                return f
            missing = [p for p in parts if f.name not in p["features"]]
            if missing:
                raise UserError(f"statistics.json has no moments of the float feature {f.name!r}.")
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
        raise UserError(f"each {kind} may be named once. Received more than once: {twice}.")


def _known(kind: str, names: tuple[str, ...], known: tuple[str, ...], where: str) -> None:
    unknown = [n for n in names if n not in known]
    if unknown:
        raise UserError(f"the schema {where!r} has no {kind} {unknown}. Known: {list(known)}.")
