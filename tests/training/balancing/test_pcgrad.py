"""PCGrad by hand, and on a network."""

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.training.balancing.pcgrad import PCGradBalancer, projected
from tests.support.balancing import ALL, combined, moved, rows, same_tasks


def test_pcgrad_of_two_opposed_tasks():
    # g1·g2 = -1, ‖g1‖² = 2, ‖g2‖² = 4: g1 + g2/4 and g2 + g1/2
    g1, g2 = np.array([0.5, np.sqrt(1.75)]), np.array([-2.0, 0.0])
    found = combined(PCGradBalancer(2, [ALL]), [g1], [g2], [[10.0, 20.0]])[0]
    assert g1 @ g2 == pytest.approx(-1) and g1 @ g1 == pytest.approx(2)
    np.testing.assert_allclose(found, g1 + g2 / 4 + g2 + g1 / 2 + [10, 20], rtol=1e-6)
    # Each projected gradient is at right angles to the other task's.
    assert (g1 + g2 / 4) @ g2 == pytest.approx(0) and (g2 + g1 / 2) @ g1 == pytest.approx(0)


def test_pcgrad_without_conflict_is_the_plain_sum():
    found = combined(PCGradBalancer(3, [ALL]), [[1.0, 0.0]], [[0.0, 2.0]], [[3.0, 1.0]], [None])[0]
    assert found.tolist() == [4, 3]


def test_dense_weights_are_one_vector():
    # Opposed in the first weight, more than aligned in the second: no conflict.
    method = PCGradBalancer(2, [ALL, ALL])
    found = combined(method, [[[1.0]], [[2.0]]], [[[-1.0]], [[2.0]]], [None, None])
    assert [g.tolist() for g in found] == [[[0]], [[4]]]
    # Where only the first is shared, they are in conflict; the second is added as it is.
    found = combined(PCGradBalancer(2, [ALL, None]), [[[1.0]], [[2.0]]], [[[-1.0]], [[-3.0]]], [None, [[5.0]]])
    assert [g.tolist() for g in found] == [[[0]], [[4]]]


def test_pcgrad_meets_the_tasks_in_the_given_order_and_uses_original_gradients():
    g = np.random.default_rng(1).normal(size=(4, 3))
    g[3] = -g[0] - g[1]
    orders = np.array([[3, 1, 0, 2], [0, 1, 2, 3], [2, 3, 1, 0], [1, 2, 0, 3]], np.int32)
    expected, changed = np.zeros(3), 0
    for i in range(4):
        p = g[i].copy()
        for j in orders[i]:
            if j != i and p @ g[j] < 0:
                p -= p @ g[j] / (g[j] @ g[j]) * g[j]
                assert p @ g[j] == pytest.approx(0, abs=1e-12)
                changed += 1
        expected += p
    products = tf.constant(g @ g.T, tf.float32)[None]
    factors = projected(products, tf.constant(orders)).numpy()
    assert factors.shape == (4, 1) and changed >= 4
    np.testing.assert_allclose(factors[:, 0] @ g, expected, rtol=1e-4, atol=1e-5)
    other = projected(products, tf.constant(orders[:, ::-1].copy())).numpy()
    assert np.abs(other - factors).max() > 0.01


def test_pcgrad_draws_a_new_order_each_step():
    # Three tasks at 120° and more: what is left depends on who is met first.
    gradients = [[[1.0, 0.1]], [[-1.0, 0.3]], [[0.2, -1.0]], [None]]
    method, found = PCGradBalancer(3, [ALL]), set()
    for _ in range(20):
        found.add(tuple(np.round(combined(method, *gradients)[0], 5)))
        assert tuple(np.round(combined(method, *gradients)[0], 5)) in found  # the same within a step
        method.update(tf.zeros(3))
    assert 1 < len(found) <= 8  # 2³ orders matter


def test_each_row_of_a_table_is_projected_by_itself():
    # Row 2, looked up twice: (1, 0) + (1, 0) against (-1, 0) + (-1, 2): dot -4, squares 4 and 8. Row 5: no conflict.
    first = rows([2, 5, 2], [[1, 0], [1, 1], [1, 0]])
    second = rows([2, 5, 2], [[-1, 0], [1, 0], [-1, 2]])
    other = rows([5, 7], [[0, 3], [1, 0]])
    found = combined(PCGradBalancer(2, [ALL]), [first], [second], [other])[0]
    expected = np.zeros((9, 2))
    g1, g2 = np.array([2.0, 0]), np.array([-2.0, 2])
    expected[2] = g1 + 4 / 8 * g2 + g2 + 4 / 4 * g1
    expected[5] = [2, 4]
    expected[7] = [1, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(expected[2], [1, 3])


def test_a_task_without_a_gradient_counts_as_zero():
    table = rows([2, 2], [[1, 2], [3, 4]])
    method = PCGradBalancer(3, [ALL, ALL, ALL, None])
    found = combined(method, [None, None, None, None], [table, [1.0], None, [1.0]], [None, [2.0], None, None],
                     [None, None, [9.0], None])
    assert found[0][2].tolist() == [4, 6] and found[0].sum() == 10
    assert [g.tolist() for g in found[1:]] == [[3], [9], [1]]
    assert combined(method, *[[None] * 4] * 4) == [None] * 4


@pytest.mark.parametrize("opposed", [False, True])
def test_pcgrad_on_a_network_differs_from_the_sum_only_in_conflict_and_on_shared_weights(opposed):
    ranker, batch = same_tasks(opposed)
    plain, found = moved(ranker("fixed"), batch), moved(ranker("pcgrad"), batch)
    for name, move in found.items():
        assert np.abs(plain[name]).max() > 1e-4
        if name.startswith(("embeddings", "shared_bottom")) and opposed:
            assert np.abs(move - plain[name]).max() > 1e-5
        else:
            np.testing.assert_allclose(move, plain[name], rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_compiled_pcgrad_projects_the_same():
    """Of two tasks, as XLA draws other orders."""
    ranker, batch = same_tasks(opposed=True)
    compiled = ranker("pcgrad")
    compiled.compile(optimizer=compiled.optimizer, jit_compile=True)
    for one, other in zip(moved(compiled, batch).values(), moved(ranker("pcgrad"), batch).values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-7)
