"""`Ranker`: a network with its loss, on TFRS's model and task."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs

from dlen_cam2.causes import CausalLoss
from dlen_cam2.losses import TaskCrossentropy, sample_weights, targets
from dlen_cam2.schema import Schema


class Ranker(tfrs.Model):
    """Trains `network` on batches `(features, labels)` of `dlen_cam2.data.read`.

    Args:
        network: what `dlen_cam2.models.build` returns.
        schema: the tasks, in the order of the network's logits.
        causal_loss: CAM2's part of the loss: `L = Σ_t w_t L_t + w_C L_C + w_R L_R` (CAM2, section 2.3).
    """

    def __init__(self, network: tf.keras.Model, schema: Schema, causal_loss: CausalLoss | None = None):
        super().__init__()
        self.network = network
        self.schema = schema
        self.causal_loss = causal_loss
        self.ranking = tfrs.tasks.Ranking(loss=TaskCrossentropy())

    def call(self, features: Mapping[str, Any], training: bool = False) -> dict[str, tf.Tensor]:
        return self.network(features, training=training)

    def compute_loss(
        self, inputs: tuple[Mapping[str, Any], Mapping[str, tf.Tensor]], training: bool = False
    ) -> tf.Tensor:
        features, labels = inputs
        y, mask = targets(labels, self.schema)
        outputs = self(features, training=training)
        loss = self.ranking(
            labels=y, predictions=outputs["logits"], sample_weight=sample_weights(mask, self.schema), training=training
        )
        if self.causal_loss is None or not training:
            return loss
        return loss + self.causal_loss(features, labels, outputs)
