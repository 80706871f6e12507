"""MetaBalance by hand."""

import numpy as np
import pytest

from dlen_cam2.models import build
from dlen_cam2.training.balancing import MetaBalance
from dlen_cam2.training.balancing.metabalance import MetaBalanceBalancer
from dlen_cam2.utils.errors import UserError
from tests.support.balancing import ALL, combined, rows
from tests.support.builders import tiny_config, tiny_schema


def test_metabalance_without_relaxation_gives_the_main_tasks_norm():
    gradients = [[[3.0, 0.0]], [[0.0, 50.0]], [[0.0, -0.001]], [[1.0, 1.0]]]
    found = combined(MetaBalanceBalancer(3, [ALL], main=1, relax=1.0, beta=0.0), *gradients)[0]
    np.testing.assert_allclose(found, [50 + 1, 50 - 50 + 1], rtol=1e-5)


def test_metabalance_at_zero_is_the_plain_sum():
    method = MetaBalanceBalancer(2, [ALL, ALL], 0, relax=0.0, beta=0.9)
    found = combined(method, [[3.0], [1.0]], [[7.0], None], [None, [5.0]])
    assert [g.tolist() for g in found] == [[10], [6]]


def test_metabalance_by_hand():
    method = MetaBalanceBalancer(2, [ALL, ALL], main=0, relax=0.7, beta=0.9)
    first = combined(method, [[3.0, 4.0], [1.0]], [[0.0, 10.0], [-1.0]], [None, None])
    # n = .1 · (5, 10): factor .7 · .5 + .3; the second weight's norms are equal.
    np.testing.assert_allclose(first[0], [3, 4 + 0.65 * 10], rtol=1e-6)
    np.testing.assert_allclose(first[1], [0], atol=1e-7)
    second = combined(method, [[3.0, 4.0], [1.0]], [[0.0, 1.0], [-1.0]], [None, None])
    # n = (.9 · .5 + .5, .9 · 1 + .1) = (.95, 1)
    np.testing.assert_allclose(method.norms.numpy()[0], [0.95, 1.0], rtol=1e-6)
    np.testing.assert_allclose(second[0], [3, 4 + 0.7 * 0.95 + 0.3], rtol=1e-6)


def test_metabalance_has_one_norm_for_a_table():
    # Lookups of a row are summed first: ‖(3), (4)‖ = 5 and ‖(2), (0)‖ = 2, not √(1 + 4 + 16).
    method = MetaBalanceBalancer(2, [ALL], main=0, relax=1.0, beta=0.0)
    found = combined(method, [rows([2, 2, 4], [[1], [2], [4]])], [rows([2, 2, 4], [[1], [1], [0]])], [None])[0]
    np.testing.assert_allclose(method.norms, [[5, 2]])
    assert found[2, 0] == pytest.approx(3 + 2.5 * 2) and found[4, 0] == pytest.approx(4)


def test_the_main_task_is_one_of_the_tasks():
    network = build(tiny_config().model, tiny_schema())
    with pytest.raises(UserError) as error:
        MetaBalance(main="like")(tiny_schema(), network, None)
    assert str(error.value) == (
        "config.train.step_rule.main must be one of the tasks ['click', 'hate', 'finish'], or empty for the first. "
        "Received: 'like'."
    )
    made = MetaBalance(main="finish", relax=0.5, beta=0.25)(tiny_schema(), network, None)
    assert (made.main, made.relax, made.beta) == (2, 0.5, 0.25)
    assert MetaBalance()(tiny_schema(), network, None).main == 0
