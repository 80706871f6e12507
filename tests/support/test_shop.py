"""The tests' own shop: its log is drawn from the truth that it keeps."""

import numpy as np
import pytest

from dlen_cam2.metrics import auc, calibration
from tests.support import shop


@pytest.fixture(scope="module")
def made():
    return shop.make(40_000)


def feedback(made):
    return np.stack([made.log.column(task).to_numpy() for task in shop.TASKS], axis=1)


def test_feedback_follows_the_truth_and_the_task_before(made):
    y = feedback(made)
    assert np.all(np.diff(y, axis=1) <= 0)
    for k in range(4):
        assert calibration(y[:, k], made.entire[:, k]) == pytest.approx(1, abs=0.1)
        assert auc(y[:, k], made.entire[:, k]) > 0.75


def test_ids_are_texts_and_what_is_missing_is_null(made):
    nulls = {name: made.log.column(name).null_count / made.log.num_rows for name in made.log.column_names}
    assert {name: round(share, 2) for name, share in nulls.items() if share} == {
        "brand": 0.01, "category": 0.0, "stars": 0.08}
    assert {str(made.log.schema.field(name).type) for name in ("visitor", "sku", "request_id")} == {"string"}


def test_the_same_seed_draws_the_same_shop():
    once, again, other = shop.make(500, 2, 1), shop.make(500, 2, 1), shop.make(500, 2, 2)
    assert once.log.equals(again.log) and not once.log.equals(other.log)
