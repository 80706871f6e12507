"""CAM2 beside a tiny model: its configuration, its network, its losses."""

import numpy as np
import tensorflow as tf

from dlen_cam2.models import CAM2, build
from dlen_cam2.models.causal.cam2.cam2 import STATE
from dlen_cam2.models.causal.cam2.threshold import LabelThreshold
from tests.support.builders import raw_batch, tiny_batch, tiny_config, tiny_schema

VARIANTS = ("task_arch", "joint_loss", "all_features", "proposed")
HEADS = ("joint", "conditional", "gated")
THRESHOLD = LabelThreshold("any_positive", "ctr", 0.5, rows=100, rows_above=40, engaged=50, engaged_above=25)


def config(variant="proposed", trunk="mmoe", head="logistic", **fields):
    """Of `tiny_config`, with small branches; "production": none."""
    sizes = {"units": 6, "blocks": 1, "embedding": 4, "interests": 3, "statistic": "ctr", "thresh": 0.5}
    causal = None if variant == "production" else CAM2(variant=variant, **(sizes | fields))
    return tiny_config(trunk=trunk, head=head, causal=causal)


def built(settings, seed=5):
    tf.keras.utils.set_random_seed(seed)
    return build(settings.model, tiny_schema(settings.model.head.name), {STATE: THRESHOLD})


def causal_loss(settings):
    return settings.model.causal.loss(tiny_schema(), {STATE: THRESHOLD})


def batch(rows=16, seed=0):
    features, labels = tiny_batch(rows, seed)
    return features, labels | {"ctr": tf.constant(raw_batch(rows, seed)["ctr"])}


def largest(gradient):
    return 0.0 if gradient is None else float(np.abs(tf.convert_to_tensor(gradient)).max())
