"""Loss balancing by hand, on real networks, through a checkpoint, compiled, and on two replicas."""

import dataclasses
import json
import re

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.config import BALANCE, BalanceConfig, TrainConfig
from dlen_cam2.layers.axes import shared_weights
from dlen_cam2.models import build, trunks
from dlen_cam2.schema import Task
from dlen_cam2.training.balancing import Decay, GradNorm, MetaBalance, PCGrad, Uncertainty, balancer, projected
from dlen_cam2.training.balancing.gradients import last_kernel, side_by_side, total
from dlen_cam2.training.optimizers import composite
from dlen_cam2.training.step import Ranker
from dlen_cam2.utils.errors import UserError
from tests.support.builders import reported_by, tiny_batch, tiny_config, tiny_schema, two_replicas

METHODS = [method for method in BALANCE if method != "fixed"]
ALL = np.ones(1, np.float32)


def rows(indices, values, size=9):
    values = tf.constant(values, tf.float32)
    return tf.IndexedSlices(values, tf.constant(indices, tf.int64), tf.constant([size, values.shape[1]]))


def combined(method, *gradients):
    """What `method` makes of one list of gradients for each task, and of those of the other losses."""
    tensors = [
        [g if g is None or isinstance(g, tf.IndexedSlices) else tf.constant(g, tf.float32) for g in each]
        for each in gradients
    ]
    found = method.combine(tensors, tf.ones(len(gradients)), [])
    return [None if g is None else tf.convert_to_tensor(g).numpy() for g in found]


def make(method="fixed", schema=None, optimizer=None, jit=False, config=None, **model):
    schema = schema or tiny_schema()
    tf.keras.utils.set_random_seed(4)
    network = build(tiny_config(**model).model, schema)
    config = config or BalanceConfig(method)
    ranker = Ranker(network, schema, balancer=balancer(config, schema, network))
    train = TrainConfig(embedding_learning_rate=0.1, learning_rate=0.02)
    ranker.compile(optimizer=optimizer or composite(network, train), jit_compile=jit)
    return ranker


def steps(ranker, seeds):
    batches = [tf.data.Dataset.from_tensors(tiny_batch(8, seed)) for seed in seeds]
    return [ranker.fit(batch, verbose=0).history["loss"][0] for batch in batches]


def moved(ranker, batch=None):
    """How far one step moves each weight, by its name."""
    before = ranker.network.get_weights()
    ranker.fit(tf.data.Dataset.from_tensors(batch or tiny_batch()), verbose=0)
    after = ranker.network.get_weights()
    return {v.name: a - b for v, a, b in zip(ranker.network.weights, after, before, strict=True)}


# === Decay ===


def test_decay_is_a_power_of_the_step():
    decay = Decay([0.5, 1.0])
    found = []
    for _ in range(4):
        found.append(decay.weights().numpy().tolist())
        decay.update(tf.zeros(2))
    assert found == [[1, 1], [0.5, 1], [0.25, 1], [0.125, 1]]


def test_decay_starts_at_the_schemas_weights_and_slows_a_task_down():
    # The third step's gradients of task k are those of fixed weights ω_k γ_k².
    schema = tiny_schema().weigh([1.0, 0.5, 2.0])
    config = BalanceConfig("decay", decay=(0.5, 1.0, 0.1))
    decayed = make(schema=schema, config=config, optimizer=tf.keras.optimizers.SGD(0.0))
    steps(decayed, [0, 0])
    decayed.optimizer.learning_rate = 0.1
    fixed = make(schema=schema.weigh([0.25, 0.5, 0.02]), optimizer=tf.keras.optimizers.SGD(0.1))
    for one, other in zip(moved(decayed).values(), moved(fixed).values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7)


# === Uncertainty ===


def test_uncertainty_rests_where_the_weight_is_one_over_twice_the_loss():
    losses = np.array([0.1, 0.5, 4.0])
    uncertainty = Uncertainty(3, learning_rate=0.1)
    assert uncertainty.weights().numpy().tolist() == [1, 1, 1]
    for _ in range(500):
        uncertainty.update(tf.constant(losses, tf.float32))
    s = uncertainty.s.numpy()
    np.testing.assert_allclose(s, np.log(2 * losses), atol=1e-5)
    np.testing.assert_allclose(uncertainty.weights(), 1 / (2 * losses), rtol=1e-5)
    # Σ ½ + ½ log 2 L_k
    assert np.sum(losses * np.exp(-s) + s / 2) == pytest.approx(1.5 + 0.5 * np.log(0.2 * 1.0 * 8.0), rel=1e-6)


def test_uncertainty_steps_by_hand_and_leaves_a_task_without_rows_alone():
    uncertainty = Uncertainty(3, learning_rate=0.1)
    uncertainty.update(tf.constant([2.0, 0.25, 0.0]))
    np.testing.assert_allclose(uncertainty.s, [0.15, -0.025, 0.0], rtol=1e-6)
    uncertainty.update(tf.constant([2.0, 0.25, 0.0]))
    expected = [0.15 - 0.1 * (0.5 - 2 * np.exp(-0.15)), -0.025 - 0.1 * (0.5 - 0.25 * np.exp(0.025)), 0.0]
    np.testing.assert_allclose(uncertainty.s, expected, rtol=1e-5)


# === GradNorm ===


def grad_norm(alpha, rate=0.1, tasks=2):
    return GradNorm(tasks, 0, ALL, alpha, rate)


def feed(method, losses, *gradients):
    """One step with gradients of L_k, on one weight, and of one other loss, which has none."""
    weights = method.weights().numpy()
    pulls = [[tf.constant(w * np.asarray(g, np.float32))] for w, g in zip(weights, gradients, strict=True)]
    return method.combine([*pulls, [None]], tf.constant([*losses, 7.0]), [])


def test_gradnorm_has_no_gradient_where_all_is_equal():
    method = grad_norm(alpha=1.5)
    feed(method, [0.7, 0.7], [3.0, 4.0], [-5.0, 0.0])
    feed(method, [0.6, 0.6], [3.0, 4.0], [-5.0, 0.0])
    assert method.s.numpy().tolist() == [0, 0]
    np.testing.assert_allclose(method.weights(), [1, 1])


def test_gradnorm_steps_by_hand():
    method = grad_norm(alpha=1.0)
    # G = (5, 1), mean 3, all rates 1: a = (5, -1); ∂L/∂s = a - softmax(s) · Σ a = (5 - 2, -1 - 2)
    found = feed(method, [1.0, 2.0], [3.0, 4.0], [1.0, 0.0])
    np.testing.assert_allclose(found[0], [4, 4])
    np.testing.assert_allclose(method.s, [-0.3, 0.3], rtol=1e-6)
    np.testing.assert_allclose(method.first_losses, [1, 2])
    # L̃ = (1, 0.25), r = (1.6, 0.4); equal G: the first task must pull harder, the second less.
    method = grad_norm(alpha=1.0)
    feed(method, [1.0, 2.0], [2.0], [2.0])
    feed(method, [1.0, 0.5], [2.0], [2.0])
    np.testing.assert_allclose(method.s, [0.2, -0.2], rtol=1e-6)  # a = (-2, 2), whose sum is 0


def test_gradnorm_follows_its_loss():
    """The closed form is the derivative of Σ |T softmax(s)_k ‖∇L_k‖ - c_k|."""
    norms, s = tf.constant([3.0, 0.5, 1.0]), tf.Variable([0.1, -0.4, 0.3])
    losses, first = tf.constant([0.5, 0.9, 0.2]), tf.constant([1.0, 1.0, 0.7])
    with tf.GradientTape() as tape:
        pulls = 3 * tf.nn.softmax(s) * norms
        progress = losses / first
        wanted = tf.stop_gradient(tf.reduce_mean(pulls) * (progress / tf.reduce_mean(progress)) ** 1.5)
        loss = tf.reduce_sum(tf.abs(pulls - wanted))
    method = grad_norm(1.5, rate=0.1, tasks=3)
    method.s.assign(s)
    method.first_losses.assign(first)
    feed(method, losses.numpy(), *[[n] for n in norms.numpy()])
    np.testing.assert_allclose(method.s, s - 0.1 * tape.gradient(loss, s), rtol=1e-5)


def test_gradnorm_drives_the_weight_of_a_large_loss_down():
    method = grad_norm(alpha=0.0, rate=0.03)
    for _ in range(500):
        feed(method, [50.0, 0.5], [100.0], [1.0])
    weights = method.weights().numpy()
    # w_1 · 100 = w_2 · 1 and w_1 + w_2 = 2
    np.testing.assert_allclose(weights, [2 / 101, 200 / 101], rtol=0.05)


def test_gradnorm_ignores_a_task_without_rows():
    method = grad_norm(alpha=1.5, tasks=3)
    for _ in range(20):
        feed(method, [0.5, 0.5, 0.0], [2.0], [-2.0], [0.0])
    assert method.s.numpy().tolist() == [0, 0, 0]
    feed(method, [0.5, 0.5, 0.3], [2.0], [2.0], [2.0])
    np.testing.assert_allclose(method.first_losses, [0.5, 0.5, 0.3])


# === PCGrad ===


def test_pcgrad_of_two_opposed_tasks():
    # g1·g2 = -1, ‖g1‖² = 2, ‖g2‖² = 4: g1 + g2/4 and g2 + g1/2
    g1, g2 = np.array([0.5, np.sqrt(1.75)]), np.array([-2.0, 0.0])
    found = combined(PCGrad(2, [ALL]), [g1], [g2], [[10.0, 20.0]])[0]
    assert g1 @ g2 == pytest.approx(-1) and g1 @ g1 == pytest.approx(2)
    np.testing.assert_allclose(found, g1 + g2 / 4 + g2 + g1 / 2 + [10, 20], rtol=1e-6)
    # Each projected gradient is at right angles to the other task's.
    assert (g1 + g2 / 4) @ g2 == pytest.approx(0) and (g2 + g1 / 2) @ g1 == pytest.approx(0)


def test_pcgrad_without_conflict_is_the_plain_sum():
    found = combined(PCGrad(3, [ALL]), [[1.0, 0.0]], [[0.0, 2.0]], [[3.0, 1.0]], [None])[0]
    assert found.tolist() == [4, 3]


def test_dense_weights_are_one_vector():
    # Opposed in the first weight, more than aligned in the second: no conflict.
    method = PCGrad(2, [ALL, ALL])
    found = combined(method, [[[1.0]], [[2.0]]], [[[-1.0]], [[2.0]]], [None, None])
    assert [g.tolist() for g in found] == [[[0]], [[4]]]
    # Where only the first is shared, they are in conflict; the second is added as it is.
    found = combined(PCGrad(2, [ALL, None]), [[[1.0]], [[2.0]]], [[[-1.0]], [[-3.0]]], [None, [[5.0]]])
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
    method, found = PCGrad(3, [ALL]), set()
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
    found = combined(PCGrad(2, [ALL]), [first], [second], [other])[0]
    expected = np.zeros((9, 2))
    g1, g2 = np.array([2.0, 0]), np.array([-2.0, 2])
    expected[2] = g1 + 4 / 8 * g2 + g2 + 4 / 4 * g1
    expected[5] = [2, 4]
    expected[7] = [1, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(expected[2], [1, 3])


def test_a_task_without_a_gradient_counts_as_zero():
    table = rows([2, 2], [[1, 2], [3, 4]])
    method = PCGrad(3, [ALL, ALL, ALL, None])
    found = combined(method, [None, None, None, None], [table, [1.0], None, [1.0]], [None, [2.0], None, None],
                     [None, None, [9.0], None])
    assert found[0][2].tolist() == [4, 6] and found[0].sum() == 10
    assert [g.tolist() for g in found[1:]] == [[3], [9], [1]]
    assert combined(method, *[[None] * 4] * 4) == [None] * 4


def test_lookups_must_be_the_same():
    with pytest.raises(tf.errors.InvalidArgumentError, match="the same rows of a table"):
        side_by_side([rows([1, 2], [[1], [1]]), rows([2, 1], [[1], [1]])], ALL)


def test_gradients_add_up():
    assert total([None, None]) is None
    assert total([None, tf.constant([1.0]), tf.constant([2.0])]).numpy().tolist() == [3]
    found = total([rows([1], [[1]], 3), None, rows([1, 2], [[2], [3]], 3)])
    assert found.indices.numpy().tolist() == [1, 1, 2]
    mixed = total([rows([1], [[1]], 3), tf.ones((3, 1))])
    assert mixed.numpy().ravel().tolist() == [1, 2, 1]
    assert side_by_side([None, rows([1], [[4]], 3), tf.ones((3, 1))], ALL).values.numpy()[..., 0].tolist() == [
        [0, 0, 0], [0, 4, 0], [1, 1, 1]]


# === MetaBalance ===


def test_metabalance_without_relaxation_gives_the_main_tasks_norm():
    gradients = [[[3.0, 0.0]], [[0.0, 50.0]], [[0.0, -0.001]], [[1.0, 1.0]]]
    found = combined(MetaBalance(3, [ALL], main=1, relax=1.0, beta=0.0), *gradients)[0]
    np.testing.assert_allclose(found, [50 + 1, 50 - 50 + 1], rtol=1e-5)


def test_metabalance_at_zero_is_the_plain_sum():
    found = combined(MetaBalance(2, [ALL, ALL], 0, relax=0.0, beta=0.9), [[3.0], [1.0]], [[7.0], None], [None, [5.0]])
    assert [g.tolist() for g in found] == [[10], [6]]


def test_metabalance_by_hand():
    method = MetaBalance(2, [ALL, ALL], main=0, relax=0.7, beta=0.9)
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
    method = MetaBalance(2, [ALL], main=0, relax=1.0, beta=0.0)
    found = combined(method, [rows([2, 2, 4], [[1], [2], [4]])], [rows([2, 2, 4], [[1], [1], [0]])], [None])[0]
    np.testing.assert_allclose(method.norms, [[5, 2]])
    assert found[2, 0] == pytest.approx(3 + 2.5 * 2) and found[4, 0] == pytest.approx(4)


# === Which weights are shared ===


def masks(**model):
    network = build(tiny_config(**model).model, tiny_schema())
    found = zip(network.trainable_variables, shared_weights(network), strict=True)
    return network, {v.name: (mask, v.shape) for v, mask in found if mask is not None}


def test_the_mask_of_ple():
    # T = 3 tasks with 2 experts each, 3 shared: 9 experts a level; in the last, all reach only the last 3.
    network, found = masks(trunk="ple", head="dlen", levels=2)
    names = [f"cgc_{level}/experts/{kind}_{n}:0" for level in (1, 2) for n in (0, 1) for kind in ("kernel", "bias")]
    assert set(found) == {"embeddings/tables_2:0", "embeddings/tables_4:0", *names}
    for name in names:
        mask, shape = found[name]
        expected = np.ones(shape)
        if name.startswith("cgc_2"):
            expected[:6] = 0
        np.testing.assert_array_equal(np.broadcast_to(mask, shape), expected)
    place, mask = last_kernel(network)
    assert network.trainable_variables[place].name == "cgc_2/experts/kernel_1:0"
    assert mask.ravel().tolist() == [0] * 6 + [1] * 3


def test_the_mask_of_cgc_and_of_the_others():
    # One level: the first kernel holds the experts side by side, (in, 9, out).
    _, found = masks(trunk="cgc")
    mask, shape = found["cgc_1/experts/kernel_0:0"]
    expected = np.ones(shape)
    expected[:, :6] = 0
    np.testing.assert_array_equal(np.broadcast_to(mask, shape), expected)
    for trunk, name in (("mmoe", "experts"), ("shared_bottom", "shared_bottom")):
        network, found = masks(trunk=trunk, head="dlen")
        assert {n.partition("/")[0] for n in found} == {"embeddings", name}
        assert all((mask == 1).all() for mask, _ in found.values())
        assert network.trainable_variables[last_kernel(network)[0]].name == f"{name}/kernel_1:0"


@pytest.mark.parametrize("trunk", ["shared_bottom", "mmoe", "cgc", "ple"])
def test_a_mask_is_what_gradients_of_more_than_one_task_reach(trunk):
    tf.keras.utils.set_random_seed(0)
    network = build(tiny_config(trunk=trunk, head="dlen", units=(32, 16)).model, tiny_schema())
    features, _ = tiny_batch(64)
    with tf.GradientTape(persistent=True) as tape:
        logits = tf.unstack(tf.reduce_sum(network(features)["logits"], axis=0))
    by_task = [tape.gradient(each, network.trainable_variables) for each in logits]
    for v, mask, *gradients in zip(network.trainable_variables, shared_weights(network), *by_task, strict=True):
        if "experts" in v.name and "gate" not in v.name or "bottom" in v.name:
            tasks = sum((tf.convert_to_tensor(g).numpy() != 0).astype(int) for g in gradients)
            assert tasks[np.broadcast_to(mask, v.shape) == 0].max(initial=0) <= 1
            assert tasks[np.broadcast_to(mask, v.shape) == 1].max() > 1
        if "tables" in v.name:
            assert all(isinstance(g, tf.IndexedSlices) for g in gradients)


def test_an_own_expert_does_not_count_as_a_task():
    # The shared halves agree; the own expert's large gradient must not enter the norms.
    mask = np.array([[0.0], [1.0]], np.float32)
    method = MetaBalance(2, [mask], main=0, relax=1.0, beta=0.0)
    found = combined(method, [[[100.0], [1.0]]], [[[0.0], [2.0]]], [None])[0]
    assert found.tolist() == [[100], [2]]
    opposed = combined(PCGrad(2, [mask]), [[[100.0], [1.0]]], [[[0.0], [-1.0]]], [None])[0]
    assert opposed.tolist() == [[100], [0]]


# === In training ===


def test_fixed_is_no_balancer_and_an_ordinary_step():
    assert balancer(BalanceConfig(), tiny_schema(), None) is None
    ranker = make(optimizer=tf.keras.optimizers.SGD(0.1))
    with tf.GradientTape() as tape:
        loss = ranker.compute_loss(tiny_batch(), training=True)
    gradients = tape.gradient(loss, ranker.network.trainable_variables)
    found = moved(ranker)
    assert max(np.abs(m).max() for m in found.values()) > 1e-3
    for v, g in zip(ranker.network.trainable_variables, gradients, strict=True):
        np.testing.assert_allclose(found[v.name], -0.1 * tf.convert_to_tensor(g).numpy(), rtol=1e-3, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", [{"trunk": "mmoe"}, {"trunk": "ple"}, {"trunk": "mmoe", "head": "dlen"}], ids=str)
def test_every_method_trains(method, model):
    ranker = make(method, **model)
    data = tf.data.Dataset.from_tensors(tiny_batch(16))
    logs = [ranker.fit(data.repeat(n), verbose=0).history for n in (1, 15, 1)]
    before, after = (sum(each[f"loss/{task.name}"][0] for task in ranker.schema.tasks) for each in (logs[0], logs[2]))
    assert np.isfinite(after) and after < 0.9 * before
    assert int(ranker.bad_step) == -1


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_continues_bit_for_bit(method, tmp_path):
    config = BalanceConfig(method, learning_rate=0.1, decay=(0.5,))
    whole = make(config=config, trunk="ple")
    steps(whole, range(3))
    parts = tf.train.Checkpoint(network=whole.network, optimizer=whole.optimizer, balancer=whole.balancer)
    path = parts.save(tmp_path / "checkpoint")
    losses = steps(whole, range(3, 6))
    again = make(config=config, trunk="ple")
    again.network.set_weights([w * 0 for w in again.network.get_weights()])
    if method == "pcgrad":
        again.balancer.seed_and_step.assign([1, 1])
    parts = tf.train.Checkpoint(network=again.network, optimizer=again.optimizer, balancer=again.balancer)
    parts.restore(path).assert_consumed()
    assert steps(again, range(3, 6)) == losses
    for one, other in zip(whole.network.get_weights(), again.network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    state = [v.numpy() for v in whole.balancer.variables]
    for one, other, fresh in zip(state, again.balancer.variables, make(config=config, trunk="ple").balancer.variables,
                                 strict=True):
        np.testing.assert_array_equal(one, other.numpy())
        assert np.any(one != fresh.numpy())  # there is something to restore


def same_tasks(opposed=False):
    """A ranker whose two tasks have equal towers and read-outs, and equal or opposed labels; and a batch."""
    # Opposed gradients of one length would add up to nearly 0, with and without surgery.
    tasks = (Task("one", positive_rate=0.5), Task("two", positive_rate=0.5, weight=0.5 if opposed else 1.0))
    schema = dataclasses.replace(tiny_schema(), tasks=tasks)

    def ranker(method):
        made = make(method, schema, tf.keras.optimizers.SGD(0.1), trunk="shared_bottom", embedding_l2=0.1)
        for v in made.network.trainable_variables:
            if v.name.startswith(("towers", "logits")):
                v.assign(tf.repeat(tf.abs(v[:1]), 2, axis=0))  # no unit of a tower is dead
        return made

    features, labels = tiny_batch()
    return ranker, (features, {"one": labels["click"], "two": 1 - labels["click"] if opposed else labels["click"]})


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


def test_gradnorm_and_metabalance_start_as_the_sum_where_they_should():
    ranker, batch = same_tasks()
    plain = moved(ranker("fixed"), batch)
    for method in ("gradnorm", "metabalance"):  # equal tasks: equal weights and equal norms
        for name, move in moved(ranker(method), batch).items():
            np.testing.assert_allclose(move, plain[name], rtol=1e-4, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("method", [m for m in METHODS if m != "pcgrad"])
def test_compiled_steps_are_the_same(method):
    # A trunk with experts that one task alone reaches, and those that all do; XLA takes seconds for a layer more.
    model = {"trunk": "cgc", "units": (6,), "tower_units": ()}
    one, other = make(method, **model), make(method, **model, jit=True)
    assert steps(one, range(4)) == pytest.approx(steps(other, range(4)), rel=1e-4)


@pytest.mark.slow
def test_compiled_pcgrad_projects_the_same():
    """Of two tasks, as XLA draws other orders."""
    ranker, batch = same_tasks(opposed=True)
    compiled = ranker("pcgrad")
    compiled.compile(optimizer=tf.keras.optimizers.SGD(0.1), jit_compile=True)
    for one, other in zip(moved(compiled, batch).values(), moved(ranker("pcgrad"), batch).values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("config,message", [
    (BalanceConfig("decay", decay=(0.9, 0.8)), r"balance.decay must hold one .* for each of .*Received: \(0.9, 0.8\)"),
    (BalanceConfig("decay", decay=()), r"balance.decay must hold one value.*Received: \(\)"),
    (BalanceConfig("metabalance", main="like"), r"balance.main must be one of .*'click'.*Received: 'like'"),
])
def test_what_does_not_fit_the_tasks(config, message):
    with pytest.raises(UserError, match=message):
        balancer(config, tiny_schema(), build(tiny_config().model, tiny_schema()))


def test_what_fits_the_tasks():
    network = build(tiny_config().model, tiny_schema())
    assert balancer(BalanceConfig("decay", decay=(0.9,)), tiny_schema(), network).gammas == (0.9, 0.9, 0.9)
    assert balancer(BalanceConfig("metabalance", main="finish"), tiny_schema(), network).main == 2
    assert balancer(BalanceConfig("metabalance"), tiny_schema(), network).main == 0


@pytest.mark.parametrize("method", METHODS)
def test_parameter_servers_have_no_gradients_of_whole_weights(method, monkeypatch):
    network = build(tiny_config().model, tiny_schema())
    strategy = object.__new__(tf.distribute.ParameterServerStrategy)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: strategy)
    if method in ("decay", "uncertainty"):
        assert balancer(BalanceConfig(method), tiny_schema(), network) is not None
    else:
        with pytest.raises(UserError, match=f"must be 'fixed', .*Received: '{method}'"):
            balancer(BalanceConfig(method), tiny_schema(), network)


# === Two replicas ===


def trained(strategy, method):
    """Weights and state after three batches, the last uneven. (Adam would blow up rounding errors.)"""
    with strategy.scope():
        sgd = tf.keras.optimizers.SGD(0.1)
        ranker = make(method, optimizer=sgd, head="dlen", units=(6,), latent_units=(4,))
    start = ranker.network.get_weights()
    for rows_of_batch in (8, 8, 7):
        batch = tiny_batch(rows_of_batch, seed=rows_of_batch)
        ranker.fit(tf.data.Dataset.from_tensor_slices(batch).batch(8), verbose=0)
    move = np.concatenate([(a - b).ravel() for a, b in zip(ranker.network.get_weights(), start, strict=True)])
    state = np.concatenate([np.ravel(v.numpy()) for v in ranker.balancer.variables])
    return move, state


def compare_replicas():
    """Run in a process of its own, because logical devices must be set before TensorFlow starts."""
    mirrored = two_replicas()
    report = {}
    for method in METHODS:
        one, two = trained(tf.distribute.get_strategy(), method), trained(mirrored, method)
        report[method] = {
            "moved": float(np.abs(one[0]).max()), "difference": float(np.abs(one[0] - two[0]).max()),
            "state": one[1].tolist(), "other_state": two[1].tolist(),
        }
    print(json.dumps(report))


@pytest.fixture(scope="module")
def replicas():
    return reported_by("tests.training.test_balancing")


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_replicas_equal_one_device(replicas, method):
    got = replicas[method]
    assert got["moved"] > 0.01
    assert got["difference"] < 1e-5
    np.testing.assert_allclose(got["other_state"], got["state"], rtol=1e-4, atol=1e-6)


class Strange(tf.keras.layers.Dense):
    """Tells nobody that all tasks reach its weights."""


class Alone(Strange):
    def shared_weights(self):
        return []


@pytest.mark.parametrize(("layer", "method", "message"), [
    (Strange, "pcgrad", "layer 'strange', a Strange without `shared_weights`"),
    (Strange, "metabalance", "layer 'strange', a Strange without `shared_weights`"),
    (Strange, "gradnorm", "layer 'strange', a Strange without `shared_weights`"),
    (Alone, "gradnorm", "needs a trunk with a kernel that tasks share. Received: none in the layers"),
])
def test_a_trunk_whose_weights_are_not_known_to_be_shared_is_refused(monkeypatch, layer, method, message):
    def trunk(x, tasks, units):
        return tf.repeat(layer(units[-1], name="strange")(x)[:, None], tasks, axis=1)

    monkeypatch.setattr(trunks, "shared_bottom", trunk)
    with pytest.raises(UserError, match=re.escape(message)):
        make(method, trunk="shared_bottom")
