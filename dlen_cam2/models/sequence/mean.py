"""The mean of a list's events, the default encoder."""

import dataclasses
from typing import Any

import tensorflow as tf

from dlen_cam2.layers.mean_pooling import MeanPooling
from dlen_cam2.models.parts import Encoder
from dlen_cam2.parts import encoder
from dlen_cam2.schema import Feature


@encoder("mean")
@dataclasses.dataclass
class Mean(Encoder):
    """The mean of the events that are present, or 0 if there are none, see `MeanPooling`."""

    def layer(self, feature: Feature, name: str, dtype: Any) -> tf.keras.layers.Layer:
        return MeanPooling(name=name, dtype=dtype)
