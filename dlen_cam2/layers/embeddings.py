"""Embeddings: turns indexed feature groups into one dense vector per row."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2 import parts
from dlen_cam2.layers.axes import Axes, Axis, Reached
from dlen_cam2.layers.candidates import Candidates, Product
from dlen_cam2.layers.tpu_tables import look_up, tpu_tables
from dlen_cam2.parts import Part
from dlen_cam2.schema import Feature, Schema
from dlen_cam2.utils.all_reduce import global_sum

# The vectors of features that lie side by side, (B, width of all), by their names.
Found = dict[tuple[str, ...], tf.Tensor]


@tf.keras.utils.register_keras_serializable(package="dlen_cam2")
class Embeddings(tf.keras.layers.Layer):
    """Looks up the embeddings of a row's features and concatenates them with its numbers.

    All tables of one width are stacked in one variable; the index of a feature plus the offset of its table is a row of
    this variable. Each width therefore costs one gather in the forward pass and one row-sparse update in the backward
    pass, however many features there are. The cost of a step depends on the rows touched, not on the vocabulary.

    The vector of a list feature is the mean over its known and unknown values; padding (-1) does not count, and an
    empty list gives 0. DESIGN: where a user's feature shares its table with an item's (the videos watched and the video
    of the row), the elementwise product of the two is appended, because a ReLU network is slow to learn by itself
    whether two ids match.

    Args:
        schema: the features. The output holds those of the user, then the others, then the products. In each part,
            numeric features come first, then width by width (ascending) single-valued ones and lists, in schema order.
        l2: weight of the regulariser `l2 * mean over rows of sum of squares of the looked-up vectors`.
        stddev: standard deviation of the tables' initial values.
        seed: seed of the initial values; None: they are drawn after those of the layers built before.
        backend: "gather": as above. "tpu": TFRS's `TPUEmbedding`, with one variable for each table. On a TPU, the
            tables are in its embedding memory; elsewhere they are plain variables. `l2` must be 0.
        learning_rate: learning rate of the tables' Adagrad on a TPU, which updates them while computing gradients.
        shared: whether the tasks' losses reach the tables. They do not reach the separate tables of CAM2's branches.
        encoder: a part of the kind "encoder", which turns a list of events into a vector; None: their mean. Lists whose
            encoder reads the candidate are placed with the other features, not with the user's.

    Attributes:
        xla: whether XLA may compile the layer, see `read_rows`; True until a trainer knows that it will not.

    Raises:
        ValueError: the backend is unknown, or does not support a regulariser.

    Input: `{group: {feature: tensor}}` as `Indexer` makes it. Output: (B, D), D = the number of numeric
    features + the widths of the categorical ones + the widths of the products.

    Example:
        >>> schema = Schema("log", (Feature("video", "int", "item", "content", size=9, width=4),), ())
        >>> Embeddings(schema)({"item_content": {"video": tf.constant([3, 0])}}).shape
        TensorShape([2, 4])
    """

    def __init__(
        self, schema: Schema, l2: float = 0.0, stddev: float = 0.05, seed: int | None = None, backend: str = "gather",
        learning_rate: float = 0.02, shared: bool = True, encoder: Part | None = None, **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if backend not in ("gather", "tpu") or (backend == "tpu" and l2):
            raise ValueError(f"backend must be 'gather', or 'tpu' with l2=0. Received: {backend!r}, l2={l2}.")
        self.xla = True
        self.backend = backend
        self.learning_rate = learning_rate
        self.shared = shared
        self.schema = schema
        self.l2 = l2
        self.stddev = stddev
        self.seed = seed
        self.encoder = encoder if encoder is not None else parts.make("encoder", "mean")
        if backend == "tpu" and self.encoder.name != "mean":
            raise ValueError(f"encoder must be 'mean' with backend='tpu'. Received: {self.encoder.name!r}.")
        self._encoders = {
            f.name: self.encoder.layer(f, f"encoder_{f.name}", self.dtype_policy) for f in schema.features if f.is_list
        }
        categorical = [f for f in schema.features if not f.is_numeric]
        self._widths = tuple(sorted({f.width for f in categorical}))
        ordered = sorted(schema.features, key=lambda f: (f.width, f.is_list))  # numbers have no width, that is, 0
        self._by_width = tuple(tuple(f for f in ordered if f.width == width) for width in self._widths)
        self._user = tuple(f for f in ordered if f.side == "user" and not (f.is_list and self.encoder.reads_candidate))
        self._others = tuple(f for f in ordered if f not in self._user)
        # A user's and an item's feature that share a table.
        self._pairs = tuple(
            (user, item) for user in self._user for item in self._others
            if not user.is_numeric and item.side == "item" and user.table == item.table
        )
        # The first row of each table within the stack of its width, and each stack's rows in all.
        self._offsets: dict[str, int] = {}
        self._rows = []
        for features in self._by_width:
            rows = 0
            for feature in features:
                if feature.table not in self._offsets:
                    self._offsets[feature.table] = rows
                    rows += feature.rows
            self._rows.append(rows)
        self._tpu = tpu_tables(categorical, self._initializer, learning_rate) if backend == "tpu" else None

    def _initializer(self, key: int) -> tf.keras.initializers.Initializer:
        seed = None if self.seed is None else self.seed + key
        return tf.keras.initializers.RandomNormal(stddev=self.stddev, seed=seed)

    def build(self, input_shape: Any) -> None:
        self.tables = [] if self._tpu else [
            self.add_weight(
                name=f"tables_{width}", shape=(rows, width), initializer=self._initializer(width),
            )
            for width, rows in zip(self._widths, self._rows, strict=True)
        ]
        super().build(input_shape)

    def call(self, inputs: Mapping[str, Mapping[str, tf.Tensor]]) -> tf.Tensor:
        if self._tpu is None:
            found = self._looked_up(inputs, self.schema.features)
        else:
            vectors = look_up(self._tpu, inputs)
            found = {(f.name,): vectors[f.name] for f in self._user + self._others if not f.is_numeric}
        products = [_vectors_of(user, found) * _vectors_of(item, found) for user, item in self._pairs]
        return self._row([*_parts(self._user, inputs, found), *_parts(self._others, inputs, found), *products])

    def candidates(self, inputs: Mapping[str, Mapping[str, tf.Tensor]], rows: tf.Tensor) -> tf.Tensor | Candidates:
        """The output of `call`, (N, D) with N = `rows`, for inputs whose user features are (1,) or (1, L).

        The user's features are looked up once, see `Candidates`. If there are none, or if the tables are those of a
        TPU, the result is a plain tensor.
        """
        # Lists whose encoder reads the candidate are of the user and not read once.
        repeated = {f.name for f in self._others if f.side == "user"}
        if self._tpu is not None:
            repeated |= {f.name for f in self._user}
        if repeated:
            inputs = {
                group: {n: tf.repeat(index, rows, axis=0) if n in repeated else index for n, index in values.items()}
                for group, values in inputs.items()
            }
        if self._tpu is not None or not self._user:
            return self(inputs)
        once, each = self._looked_up(inputs, self._user), self._looked_up(inputs, self._others)
        columns = _parts(self._others, inputs, each)
        start, begin = {}, 0
        for f in self._others:
            start[f.name], begin = begin, begin + (f.width or 1)
        return Candidates(
            self._row(_parts(self._user, inputs, once)),
            self._row(columns) if columns else tf.zeros((rows, 0), self.compute_dtype),
            tuple(Product(self._row([_vectors_of(user, once)]), start[item.name]) for user, item in self._pairs),
        )

    def _row(self, columns: Sequence[tf.Tensor]) -> tf.Tensor:
        return tf.concat([tf.cast(column, self.compute_dtype) for column in columns], axis=1)

    def _looked_up(self, inputs: Mapping[str, Mapping[str, tf.Tensor]], wanted: Sequence[Feature]) -> Found:
        """The vectors of the categorical features, with one gather for each width.

        Single-valued features of one width and side stay together, as they are in the output: separating and joining
        them again would cost as much as the gather.
        """
        found: Found = {}
        for of_width, table in zip(self._by_width, self.tables, strict=True):
            width = of_width[0].width
            features = [f for f in of_width if f in wanted]
            if not features:
                continue
            sides = [[f for f in side if f in features and not f.is_list] for side in (self._user, self._others)]
            singles, lists = sides[0] + sides[1], [f for f in features if f.is_list]
            ids = [inputs[f.group][f.name] for f in lists]
            if singles:
                ids.insert(0, tf.stack([inputs[f.group][f.name] for f in singles], axis=1))
            spans = [1] * len(singles) + [f.max_length for f in lists]
            offsets = [self._offsets[f.table] for f, n in zip(singles + lists, spans, strict=True) for _ in range(n)]
            index = tf.concat(ids, axis=1)
            present = index >= 0
            rows_of_table = tf.maximum(index, 0) + tf.constant(offsets, index.dtype)
            if table.shape[0] <= tf.int32.max:
                rows_of_table = tf.cast(rows_of_table, tf.int32)  # the optimizer finds their distinct values faster
            # Flat, because a table that lies in parts on parameter servers takes nothing else.
            vectors = read_rows(table, tf.reshape(rows_of_table, (-1,)), self.xla)
            vectors = tf.reshape(vectors, (-1, index.shape[1], width))
            if self.l2:
                squares = tf.reduce_sum(tf.square(tf.cast(vectors, tf.float32)), axis=-1)
                kept = tf.where(present, squares, tf.zeros_like(squares))
                rows = global_sum(tf.cast(tf.shape(index)[0], tf.float32))
                self.add_loss(self.l2 * tf.reduce_sum(kept) / tf.maximum(rows, 1.0))
            # Splits and not slices: the gradient of one split is one concatenation.
            sizes = [len(side) for side in sides if side] + spans[len(singles) :]
            pieces = iter(tf.split(vectors, sizes, axis=1))
            for side in sides:
                if side:
                    found[tuple(f.name for f in side)] = tf.reshape(next(pieces), (-1, len(side) * width))
            known = iter(tf.split(tf.cast(present, vectors.dtype), sizes, axis=1)[len(sizes) - len(lists) :])
            for feature, values, weight in zip(lists, pieces, known, strict=True):
                candidate = self._candidate_of(feature, found) if self.encoder.reads_candidate else None
                found[feature.name,] = self._encoders[feature.name](values, weight, candidate)
        return found

    def _candidate_of(self, feature: Feature, found: Found) -> tf.Tensor | None:
        """The vector of the single-valued item feature that shares the list's table."""
        for item in self._others:
            if item.side == "item" and not item.is_list and not item.is_numeric and item.table == feature.table:
                return _vectors_of(item, found)
        return None

    def columns(self) -> Axis:
        """The columns of the output: `(feature,)`, or for a product `(user's feature, item's feature)`."""
        single = [((f.name,), f.width or 1) for f in self._user + self._others]
        return Axis("inputs", (*single, *(((user.name, item.name), user.width) for user, item in self._pairs)))

    def axes(self, read: Axis | None, tasks: Axis) -> Axes:
        found: Axes = []
        for variable, features in zip(self.tables, self._by_width, strict=True):
            found.append((variable, (Axis("rows", tuple(
                ((f.table, kind), n) for f in {f.table: f for f in features}.values()
                for kind, n in (("missing", 1), ("known", f.known), ("oov", f.oov_buckets))
            )), None)))
        for encoder in self._encoders.values():
            if encoder.weights:
                found += encoder.axes(None, tasks)
        return found

    def shared_weights(self) -> Reached:
        if not self.shared:
            return []
        encoders = [layer for layer in self._encoders.values() if layer.weights]
        return [(t, np.ones(1, np.float32)) for t in self.tables] + [w for e in encoders for w in e.shared_weights()]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "schema": dataclasses.asdict(self.schema), "l2": self.l2, "stddev": self.stddev, "seed": self.seed,
            "backend": self.backend, "learning_rate": self.learning_rate, "shared": self.shared,
            "encoder": self.encoder.to_dict(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Embeddings":
        encoder = parts.from_dict("encoder", config["encoder"])
        return cls(**(config | {"schema": Schema.from_dict(config["schema"]), "encoder": encoder}))


def read_rows(table: tf.Variable, rows: tf.Tensor, xla: bool) -> tf.Tensor:
    """Look up `table[rows]`, (N,) -> (N, width).

    On a CPU, `gather_nd` takes two thirds of the time of `gather`. It is not available to XLA for variables, nor for a
    table that is sharded across parameter servers.
    """
    if xla or not isinstance(table, tf.Variable):
        return tf.gather(table, rows)
    return tf.gather_nd(table, rows[:, None])


def _parts(
    features: Sequence[Feature], inputs: Mapping[str, Mapping[str, tf.Tensor]], found: Found
) -> list[tf.Tensor]:
    """The columns of `features`: first the numbers, (B, count), then the embeddings that were looked up."""
    names = {f.name for f in features}
    numbers = [inputs[f.group][f.name] for f in features if f.is_numeric]
    vectors = [part for together, part in found.items() if together[0] in names]
    return [tf.stack(numbers, axis=1), *vectors] if numbers else vectors


def _vectors_of(feature: Feature, found: Found) -> tf.Tensor:
    """The vectors of one feature, (B, width)."""
    together = next(names for names in found if feature.name in names)
    start = together.index(feature.name) * feature.width
    return found[together][:, start : start + feature.width]
