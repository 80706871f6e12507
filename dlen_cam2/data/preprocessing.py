"""The conversion of raw column values to model inputs, which training and serving share."""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from dlen_cam2.schema import Feature, Schema
from dlen_cam2.schema.columns import TRANSFORMS

# A rate of 0 or 1 has the logit of this much beside it.
RATE_END = 1e-6
# So many standard deviations at most enter a network, so that no number makes a score infinite.
LARGEST = 1e4


class Indexer(tf.Module):
    """Turns raw columns into `{group: {feature: tensor}}`, the inputs of every model.

    During training, the reader calls it inside tf.data; for serving, the SavedModel contains it. Sharing it rules out
    training/serving skew by construction.

    - categorical, single-valued: (B,) -> int64 (B,) row of the embedding table; 0 is missing or unknown;
    - categorical list: (B, L), padded with -1 or "" -> int64 (B, L); -1 marks padding, 0 an unknown value;
    - numeric: (B,) -> float32 (B,), (t(v) - mean) / std with the moments of the training days, within +-1e4.

    Args:
        schema: the features to index.
    """

    def __init__(self, schema: Schema):
        super().__init__(name="indexer")
        self.schema = schema
        self._tables = {
            f.table: tf.lookup.StaticHashTable(
                tf.lookup.KeyValueTensorInitializer(
                    tf.constant(f.vocabulary, tf.string if f.dtype == "string" else tf.int64),
                    tf.range(1, 1 + len(f.vocabulary), dtype=tf.int64),
                ),
                default_value=0,
            )
            for f in schema.features
            if f.vocabulary
        }

    def __call__(
        self, raw: Mapping[str, tf.Tensor], features: Sequence[Feature] | None = None
    ) -> dict[str, dict[str, tf.Tensor]]:
        """Index `features` (default: all of the schema), whose columns must have equally many rows."""
        wanted = self.schema.features if features is None else features
        # Columns of one kind are computed together: with dozens of them, starting an operation for each costs as
        # much as parsing the records.
        indexed: dict[str, tf.Tensor] = {}
        for kind in TRANSFORMS:
            if numeric := [f for f in wanted if f.is_numeric and f.transform == kind]:
                values = transform(kind, tf.stack([raw[f.name] for f in numeric]))
                mean = tf.constant([f.mean for f in numeric], tf.float32)[:, None]
                std = tf.constant([f.std for f in numeric], tf.float32)[:, None]
                values = tf.clip_by_value((values - mean) / std, -LARGEST, LARGEST)
                indexed |= zip((f.name for f in numeric), tf.unstack(values), strict=True)
        if ids := [f for f in wanted if f.dtype == "int" and f.size and not (f.hashed or f.is_list)]:
            values = tf.stack([raw[f.name] for f in ids])
            sizes = tf.constant([f.size for f in ids], tf.int64)[:, None]
            # Arithmetic, here and below: tf.where costs four times as much.
            rows = (tf.maximum(values, -1) + 1) * tf.cast(values < sizes, tf.int64)
            indexed |= zip((f.name for f in ids), tf.unstack(rows), strict=True)
        groups: dict[str, dict[str, tf.Tensor]] = {}
        for f in wanted:
            value = indexed[f.name] if f.name in indexed else self._index(f, raw[f.name])
            groups.setdefault(f.group, {})[f.name] = value
        return groups

    def _index(self, feature: Feature, value: tf.Tensor) -> tf.Tensor:
        present = tf.cast(value >= 0 if feature.dtype == "int" else tf.not_equal(value, ""), tf.int64)
        if feature.has_vocabulary:
            row = self._tables[feature.table].lookup(value) if feature.vocabulary else tf.zeros_like(value, tf.int64)
            if feature.oov_buckets:
                row = tf.where(row > 0, row, 1 + len(feature.vocabulary) + _hash(value, feature.oov_buckets))
        elif feature.hashed:
            row = 1 + _hash(value, feature.size)
        else:
            row = (value + 1) * tf.cast(value < feature.size, tf.int64)
        return row * present + (present - 1 if feature.is_list else 0)


def transform(kind: str, value: tf.Tensor) -> tf.Tensor:
    """Apply a feature's `transform` t(v); v outside its domain is moved to the nearest end, so scores stay finite."""
    if kind == "log1p":
        return tf.math.log1p(tf.maximum(value, 0.0))
    if kind == "logit":
        value = tf.clip_by_value(value, RATE_END, 1 - RATE_END)
        return tf.math.log(value / (1 - value))
    return value


def _hash(value: tf.Tensor, buckets: int) -> tf.Tensor:
    """A fixed hash into [0, buckets): FarmHash for strings, the splitmix64 finaliser for integers."""
    if value.dtype == tf.string:
        return tf.strings.to_hash_bucket_fast(value, buckets)
    bits = tf.bitcast(value, tf.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, tf.constant(shift, tf.uint64)))
        bits *= tf.constant(factor, tf.uint64)
    bits = tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, tf.constant(31, tf.uint64)))
    return tf.bitcast(tf.bitwise.right_shift(bits, tf.constant(1, tf.uint64)), tf.int64) % buckets
