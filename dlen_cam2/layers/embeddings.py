"""Embeddings: indexed feature groups to one dense vector per row."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from dlen_cam2.layers.tpu_tables import look_up, tpu_tables
from dlen_cam2.replicas import global_sum
from dlen_cam2.schema import Feature, Schema


class Embeddings(tf.keras.layers.Layer):
    """Looks up and concatenates all features of a row.

    All tables of one width are stacked into one variable; a feature's index plus its table's offset is a row
    of it. So each width costs one gather forward and one row-sparse update backward, however many features
    there are, and the cost of a step depends on the rows touched and not on the vocabulary.

    A list feature is the mean of its known and unknown values; padding (-1) does not count, an empty list
    is 0. DESIGN: where a user's feature shares its table with an item's (the videos watched and the video at
    hand), their elementwise product is appended, because a ReLU network is slow to find by itself whether two
    ids match.

    Args:
        schema: the features; order of the output: numeric features, then width by width (ascending) the
            single-valued features, the lists and the products, each in schema order.
        l2: weight of the regulariser `l2 * mean over rows of sum of squares of the looked-up vectors`.
        stddev: standard deviation of the tables' initial values.
        seed: of the initial values; None: they are drawn after those of the layers built before.
        backend: "gather": as above. "tpu": TFRS's `TPUEmbedding`, with one variable for each table, which on a TPU
            lie in its embedding memory (elsewhere they are plain variables); `l2` must be 0.
        learning_rate: of the tables' Adagrad on a TPU, which updates them while gradients are computed.

    Raises:
        ValueError: the backend is unknown, or cannot have a regulariser.

    Input: `{group: {feature: tensor}}` as `Indexer` makes it. Output: (B, D), D = the number of numeric
    features + the widths of the categorical ones + the widths of the products.

    Example:
        >>> schema = Schema("log", (Feature("video", "int", "item", "content", size=9, width=4),), ())
        >>> Embeddings(schema)({"item_content": {"video": tf.constant([3, 0])}}).shape
        TensorShape([2, 4])
    """

    def __init__(
        self, schema: Schema, l2: float = 0.0, stddev: float = 0.05, seed: int | None = None, backend: str = "gather",
        learning_rate: float = 0.02, **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if backend not in ("gather", "tpu") or (backend == "tpu" and l2):
            raise ValueError(f"backend must be 'gather', or 'tpu' with l2=0. Received: {backend!r}, l2={l2}.")
        self.backend = backend
        self.learning_rate = learning_rate
        self.schema = schema
        self.l2 = l2
        self.stddev = stddev
        self.seed = seed
        self._numeric = tuple(f for f in schema.features if f.is_numeric)
        categorical = [f for f in schema.features if not f.is_numeric]
        self._widths = tuple(sorted({f.width for f in categorical}))
        self._by_width = tuple(
            tuple(sorted((f for f in categorical if f.width == width), key=lambda f: f.is_list))
            for width in self._widths
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
        parts = []
        if self._numeric:
            numeric = tf.stack([inputs[f.group][f.name] for f in self._numeric], axis=1)
            parts.append(tf.cast(numeric, self.compute_dtype))
        looked_up = self._looked_up(inputs) if self._tpu is None else look_up(self._tpu, inputs)
        for features in self._by_width:
            parts += [looked_up[f.name] for f in features]
            parts += [looked_up[user.name] * looked_up[item.name] for user, item in _pairs(features)]
        return tf.concat([tf.cast(part, self.compute_dtype) for part in parts], axis=1)

    def _looked_up(self, inputs: Mapping[str, Mapping[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
        """{feature: (B, width)}, with one gather for each width."""
        pooled: dict[str, tf.Tensor] = {}
        for features, table in zip(self._by_width, self.tables, strict=True):
            singles = [f for f in features if not f.is_list]
            lists = [f for f in features if f.is_list]
            ids = [inputs[f.group][f.name][:, None] for f in singles] + [inputs[f.group][f.name] for f in lists]
            spans = [1] * len(singles) + [f.max_length for f in lists]
            offsets = [self._offsets[f.table] for f, n in zip(singles + lists, spans, strict=True) for _ in range(n)]
            index = tf.concat(ids, axis=1)
            present = index >= 0
            rows_of_table = tf.maximum(index, 0) + tf.constant(offsets, index.dtype)
            # Flat, because a table that lies in parts on parameter servers takes nothing else.
            vectors = tf.gather(table, tf.reshape(rows_of_table, (-1,)))
            vectors = tf.reshape(vectors, (-1, index.shape[1], vectors.shape[-1]))
            if self.l2:
                squares = tf.reduce_sum(tf.square(tf.cast(vectors, tf.float32)), axis=-1)
                kept = tf.where(present, squares, tf.zeros_like(squares))
                rows = global_sum(tf.cast(tf.shape(index)[0], tf.float32))
                self.add_loss(self.l2 * tf.reduce_sum(kept) / tf.maximum(rows, 1.0))
            pooled |= zip([f.name for f in singles], tf.unstack(vectors[:, : len(singles)], axis=1), strict=True)
            start = len(singles)
            for feature in lists:
                stop = start + feature.max_length
                weight = tf.cast(present[:, start:stop], vectors.dtype)
                total = tf.einsum("bl,blw->bw", weight, vectors[:, start:stop])
                pooled[feature.name] = tf.math.divide_no_nan(total, tf.reduce_sum(weight, axis=1, keepdims=True))
                start = stop
        return pooled

    def layout(self) -> tuple[list[tuple[tuple[str, ...], int]], list[list[Feature]]]:
        """The order of the output and of the variables.

        Returns:
            The output's columns, `((feature,), width)` or for a product `((user's, item's), width)`; and for each
            variable of `tables` a feature of each table in it, in the order of the tables.
        """
        columns: list[tuple[tuple[str, ...], int]] = [((f.name,), 1) for f in self._numeric]
        for width, features in zip(self._widths, self._by_width, strict=True):
            columns += [((f.name,), width) for f in features]
            columns += [((user.name, item.name), width) for user, item in _pairs(features)]
        return columns, [list({f.table: f for f in features}.values()) for features in self._by_width]

    def get_config(self) -> dict[str, Any]:
        config = {"schema": dataclasses.asdict(self.schema), "l2": self.l2, "stddev": self.stddev, "seed": self.seed}
        return super().get_config() | config | {"backend": self.backend, "learning_rate": self.learning_rate}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Embeddings":
        return cls(**(config | {"schema": Schema.from_dict(config["schema"])}))


def _pairs(features: Sequence[Feature]) -> list[tuple[Feature, Feature]]:
    """A user's and an item's feature that share a table."""
    return [
        (user, item) for user in features for item in features
        if (user.side, item.side, user.table) == ("user", "item", item.table)
    ]
