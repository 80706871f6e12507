"""The mean of a list's events: what every list was before there were encoders."""

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
    """The mean of the events that are present, `MeanPooling`; 0 of none."""

    def layer(self, feature: Feature, name: str, dtype: Any) -> tf.keras.layers.Layer:
        return MeanPooling(name=name, dtype=dtype)
