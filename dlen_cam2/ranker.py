"""`Ranker`: a network with its loss, on TFRS's model and task."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs

from dlen_cam2.losses import TaskCrossentropy, sample_weights, targets
from dlen_cam2.schema import Schema


class Ranker(tfrs.Model):
    """Trains `network` on batches `(features, labels)` of `dlen_cam2.data.read`.

    Args:
        network: what `dlen_cam2.models.build` returns.
        schema: the tasks, in the order of the network's logits.
    """

    def __init__(self, network: tf.keras.Model, schema: Schema):
        super().__init__()
        self.network = network
        self.schema = schema
        self.ranking = tfrs.tasks.Ranking(loss=TaskCrossentropy())

    def call(self, features: Mapping[str, Any], training: bool = False) -> dict[str, tf.Tensor]:
        return self.network(features, training=training)

    def compute_loss(
        self, inputs: tuple[Mapping[str, Any], Mapping[str, tf.Tensor]], training: bool = False
    ) -> tf.Tensor:
        features, labels = inputs
        y, mask = targets(labels, self.schema)
        return self.ranking(
            labels=y, predictions=self(features, training=training)["logits"],
            sample_weight=sample_weights(mask, self.schema), training=training,
        )
