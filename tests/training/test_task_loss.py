"""`config.model.task_loss`: cross-entropy, or over that of the best constant (CAM2, section 2.2)."""

import dataclasses

import numpy as np
import pytest

from dlen_cam2.models import ESMM
from dlen_cam2.schema import Schema, Task
from dlen_cam2.training.jobs import weighed
from dlen_cam2.utils.errors import UserError
from tests.support.builders import flat

SCHEMA = Schema("s", (), (
    Task("click", positive_rate=0.4), Task("buy", mask="click", positive_rate=0.001),
    Task("watch", kind="regression", mean=20.0, std=3.0),
))


def entropy(q):
    return -q * np.log(q) - (1 - q) * np.log(1 - q)


def test_weights_are_over_the_entropy_of_the_rate():
    found = [task.weight for task in weighed(flat(task_loss="ne", task_weights=(1.0, 2.0, 3.0)), SCHEMA).tasks]
    np.testing.assert_allclose(found, [1 / entropy(0.4), 2 / entropy(0.001), 3 / 0.5])
    assert round(found[1] / 2) == 126 and round(found[0], 1) == 1.5  # methods.md, section 19
    assert weighed(flat(), SCHEMA) == SCHEMA


def test_of_esmm_it_is_the_entropy_of_what_is_trained():
    model = dataclasses.replace(flat(task_loss="ne"), head=ESMM())
    found = [task.weight for task in weighed(model, SCHEMA).tasks]
    np.testing.assert_allclose(found[:2], [1 / entropy(0.4), 1 / entropy(0.4 * 0.001)])


def test_a_task_of_one_class_has_no_entropy():
    schema = dataclasses.replace(SCHEMA, tasks=(Task("click", positive_rate=0.0),))
    with pytest.raises(UserError, match=r"needs rows of both classes. Received: none of \['click'\]"):
        weighed(flat(task_loss="ne"), schema)
