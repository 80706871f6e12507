"""Predictions of one task, and calibrations of them."""

import numpy as np

from dlen_cam2.evaluation import Predictions
from dlen_cam2.schema import Schema, Task
from tests.support.builders import numpy_sigmoid

DAY, NEXT = "20240103", "20240104"
SCHEMA = Schema("one", (), (Task("click"),))


def rows(labels, probabilities, mask=None):
    """One task's predictions."""
    labels, probabilities = np.array(labels, np.float32), np.array(probabilities, np.float32)
    mask = np.ones_like(labels) if mask is None else np.array(mask, np.float32)
    return Predictions(labels[:, None], mask[:, None], probabilities[:, None], None, {}, {}, {}, {})


def drawn(count, slope, shift, seed=0, centre=-1.0):
    """Rows whose true logit is `slope * logit + shift`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(centre, 1.5, count)
    return rows(rng.random(count) < numpy_sigmoid(slope * x + shift), numpy_sigmoid(x))
