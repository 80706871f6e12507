"""The entries of a split in statistics.json and counts.parquet, gathered shard by shard."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dlen_cam2.schema import Feature, Schema
from dlen_cam2.utils.errors import UserError

_PENDING = 1_000_000  # values that wait before equal ones are counted together


class Statistics:
    """Counts the rows, labels, moments and values of a split.

    Args:
        schema: what the columns are.
    """

    def __init__(self, schema: Schema):
        # What the model sees, by the function that it uses. TensorFlow takes seconds to load, which is done here,
        # before the clock of a split starts.
        from dlen_cam2.data.preprocessing import transform

        self._transform = transform
        self.schema = schema
        self.rows = 0
        self._tasks = {t.name: {"rows": 0, "positives": 0} for t in schema.tasks if not t.is_number}
        self._numbers = {t.name: _Moments() for t in schema.tasks if t.is_number}
        self._moments = {f.name: _Moments() for f in schema.features if f.dtype != "string"}
        self._moments |= {name: _Moments() for name in schema.targets}
        self._model = {f.name: _Moments() for f in schema.features if f.is_numeric}
        self._values = {f.name: _Values() for f in schema.features if not f.is_numeric}
        self._known = dict.fromkeys(self._values, 0)

    def add(self, table: pa.Table) -> None:
        """Count the rows of `table`, whose columns are those of the schema, without nulls.

        Raises:
            UserError: a number is outside the domain of its feature's transform.
        """
        self.rows += table.num_rows
        for task in self.schema.tasks:
            label = table.column(task.label).to_numpy()
            mask = table.column(task.mask).to_numpy() if task.mask else np.ones(len(label), np.int64)
            if task.is_number:
                self._numbers[task.name].add(label[mask == 1])
                continue
            self._tasks[task.name]["rows"] += int(mask.sum())
            self._tasks[task.name]["positives"] += int((label * mask).sum())
        for name in self.schema.targets:
            self._moments[name].add(table.column(name).to_numpy())
        self._add_numeric([f for f in self.schema.features if f.is_numeric], table)
        for feature in self.schema.features:
            if not feature.is_numeric:
                self._add_categorical(feature, table.column(feature.name).combine_chunks())

    def _add_numeric(self, features: Sequence[Feature], table: pa.Table) -> None:
        for feature in features:
            values = table.column(feature.name).to_numpy().astype(np.float64)
            low, high = feature.domain
            if values.size and not (low <= values.min() and values.max() <= high):
                raise UserError(
                    f"feature {feature.name!r} has the transform {feature.transform!r} and must be in [{low}, {high}]. "
                    f"Received: values from {values.min()} to {values.max()}."
                )
            if feature.name not in self.schema.targets:
                self._moments[feature.name].add(values)
            self._model[feature.name].add(np.asarray(self._transform(feature.transform, values)))

    def _add_categorical(self, feature: Feature, column: pa.Array) -> None:
        flat = column.flatten() if feature.is_list else column
        if feature.dtype == "int":
            values = flat.to_numpy()
            self._moments[feature.name].add(values)
            size = feature.size if feature.size and not feature.hashed else math.inf
            known = int(np.sum((values >= 0) & (values < size)))
        else:
            known = pc.sum(pc.not_equal(flat, "")).as_py() or 0
        if feature.vocabulary and not feature.min_count:
            known = pc.sum(pc.is_in(flat, pa.array(feature.vocabulary, flat.type))).as_py() or 0
        self._known[feature.name] += known
        self._values[feature.name].add(flat)

    def result(self) -> dict[str, Any]:
        """The split's entry in statistics.json."""
        features = {}
        for feature in self.schema.features:
            found = self._moments[feature.name].result() if feature.name in self._moments else {}
            if feature.is_numeric:
                model = self._model[feature.name]
                found |= {"model_mean": model.mean, "model_std": model.std} if model.count else {}
            else:
                values = self._values[feature.name]
                found["coverage"] = self._known[feature.name] / values.count if values.count else None
                found["distinct"] = values.table().num_rows
                if feature.is_list:
                    found["mean_length"] = values.count / self.rows if self.rows else None
            features[feature.name] = found
        targets = {name: self._moments[name].result() for name in self.schema.targets}
        numbers = {name: moments.sums() for name, moments in self._numbers.items()}
        tasks = {t.name: (numbers if t.is_number else self._tasks)[t.name] for t in self.schema.tasks}
        return {"rows": self.rows, "tasks": tasks, "features": features, "targets": targets}

    def counts(self) -> pa.Table:
        """How often each value of the learned vocabularies occurs: feature, id (for ints) or text, count."""
        parts = []
        for feature in self.schema.features:
            if not feature.min_count:
                continue
            table = self._values[feature.name].table().sort_by([("count", "descending"), ("value", "ascending")])
            values, none = table.column("value"), pa.nulls(table.num_rows)
            parts.append(pa.table({
                "feature": pa.array([feature.name] * table.num_rows, pa.string()),
                "id": values if feature.dtype == "int" else none.cast(pa.int64()),
                "text": none.cast(pa.string()) if feature.dtype == "int" else values,
                "count": table.column("count"),
            }))
        columns = [("feature", pa.string()), ("id", pa.int64()), ("text", pa.string()), ("count", pa.int64())]
        return pa.concat_tables([pa.schema(columns).empty_table(), *parts])


class _Moments:
    """Count, minimum, maximum, mean and variance, added up from parts as in Chan, Golub and LeVeque 1979."""

    def __init__(self) -> None:
        self.count, self.mean, self._squares = 0, 0.0, 0.0
        self._low: Any = None
        self._high: Any = None

    def add(self, values: np.ndarray) -> None:
        if not len(values):
            return
        low, high = values.min().item(), values.max().item()
        self._low = low if self._low is None else min(low, self._low)
        self._high = high if self._high is None else max(high, self._high)
        values = values.astype(np.float64)  # a distance of float32 numbers from their mean is none of float32's
        n, mean = len(values), float(values.mean())
        squares = float(np.square(values - mean).sum())
        apart, total = mean - self.mean, self.count + n
        self._squares += squares + apart * apart * self.count * n / total
        self.mean += apart * n / total
        self.count = total

    @property
    def std(self) -> float:
        return math.sqrt(self._squares / self.count)

    def sums(self) -> dict[str, Any]:
        """For a regression task: rows, the sum, and the sum of squared distances from the mean."""
        return {"rows": self.count, "sum": self.mean * self.count, "squares": self._squares}

    def result(self) -> dict[str, Any]:
        return {"min": self._low, "max": self._high, "mean": self.mean if self.count else None}


class _Values:
    """Counts how often each value occurs."""

    def __init__(self) -> None:
        self.count = 0
        self._parts: list[pa.Table] = []

    def add(self, values: pa.Array) -> None:
        self.count += len(values)
        found = pc.value_counts(values)
        self._parts.append(pa.table({"value": found.field("values"), "count": found.field("counts")}))
        if sum(len(part) for part in self._parts) > _PENDING + 2 * len(self._parts[0]):
            self._parts = [self.table()]

    def table(self) -> pa.Table:
        """A table with the columns value and count, and a row for each value."""
        if not self._parts:
            return pa.table({"value": pa.array([], pa.string()), "count": pa.array([], pa.int64())})
        total = pa.concat_tables(self._parts).group_by("value").aggregate([("count", "sum")])
        return total.select(["value", "count_sum"]).rename_columns(["value", "count"])
