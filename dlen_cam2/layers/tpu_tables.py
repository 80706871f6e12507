"""Embedding tables in a TPU's embedding memory, behind `Embeddings`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs

from dlen_cam2.schema import Feature


def tpu_tables(
    features: Sequence[Feature], initializer: Callable[[int], tf.keras.initializers.Initializer], learning_rate: float
) -> tfrs.layers.embedding.TPUEmbedding:
    """Create one TPU table for each table of the schema, with the optimizer that a TPU applies to it.

    On other devices the tables are plain variables, which `dlen_cam2.training.optimizers.composite` trains.

    Args:
        features: categorical features; features that name the same table share it. A list is combined by its mean.
        initializer: function from the number of a table to its initializer.
        learning_rate: learning rate of Adagrad, see `dlen_cam2.training.optimizers.composite`.
    """
    embedding = tf.tpu.experimental.embedding
    tables = {
        feature.table: embedding.TableConfig(
            feature.rows, feature.width, initializer(number), combiner="mean", name=f"table_{feature.table}"
        )
        for number, feature in enumerate({f.table: f for f in features}.values())
    }
    configs: dict[str, dict[str, Any]] = {}
    for feature in features:
        configs.setdefault(feature.group, {})[feature.name] = embedding.FeatureConfig(
            tables[feature.table], name=feature.name
        )
    return tfrs.layers.embedding.TPUEmbedding(
        configs, embedding.Adagrad(learning_rate, initial_accumulator_value=1e-8)
    )


def look_up(
    tables: tfrs.layers.embedding.TPUEmbedding, inputs: Mapping[str, Mapping[str, tf.Tensor]]
) -> dict[str, tf.Tensor]:
    """Look up the features: {feature: (B, width)}. A list, padded with -1, gives its mean, or 0 if it is empty."""
    ids: dict[str, dict[str, tf.Tensor]] = {}
    for group, features in inputs.items():
        for name, index in features.items():
            if index.dtype.is_integer:
                index = tf.cast(index, tf.int32)
                ids.setdefault(group, {})[name] = index if index.shape.rank == 1 else _ragged(index)
    found = tables(ids)
    return {name: vectors for features in found.values() for name, vectors in features.items()}


def _ragged(index: tf.Tensor) -> tf.RaggedTensor:
    return tf.RaggedTensor.from_tensor(index, padding=-1)
