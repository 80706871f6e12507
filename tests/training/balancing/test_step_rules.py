"""All step rules in training: on real networks, through a checkpoint, compiled, and where there is none."""

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.models import build
from dlen_cam2.training.balancing import Fixed
from dlen_cam2.utils.errors import UserError
from tests.support.balancing import FEW, METHODS, make, moved, same_tasks, step_rule, steps
from tests.support.builders import tiny_batch, tiny_config, tiny_schema


def test_fixed_is_no_balancer_and_an_ordinary_step():
    assert Fixed()(tiny_schema(), None, None) is None
    ranker = make(optimizer=tf.keras.optimizers.SGD(0.1), eagerly=True)
    with tf.GradientTape() as tape:
        loss = ranker.compute_loss(tiny_batch(), training=True)
    gradients = tape.gradient(loss, ranker.network.trainable_variables)
    found = moved(ranker)
    assert max(np.abs(m).max() for m in found.values()) > 1e-3
    for v, g in zip(ranker.network.trainable_variables, gradients, strict=True):
        np.testing.assert_allclose(found[v.name], -0.1 * tf.convert_to_tensor(g).numpy(), rtol=1e-3, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains(method):
    """PLE and DLEN have weights of one task, of several and of all."""
    ranker = make(method, trunk="ple", head="dlen")
    data = tf.data.Dataset.from_tensors(tiny_batch(16))
    logs = [ranker.fit(data.repeat(n), verbose=0).history for n in (1, 15, 1)]
    before, after = (sum(each[f"loss/{task.name}"][0] for task in ranker.schema.tasks) for each in (logs[0], logs[2]))
    assert np.isfinite(after) and after < 0.9 * before
    assert int(ranker.bad_step) == -1


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_continues_bit_for_bit(method, tmp_path):
    """Eagerly; that a graph's state is restored, too, is in the contract of parts."""
    rule = step_rule(method, learning_rate=0.1, gammas=(0.5,))
    model = {"trunk": "cgc", "eagerly": True}
    whole = make(rule, **model)
    steps(whole, range(3))
    parts = tf.train.Checkpoint(network=whole.network, optimizer=whole.optimizer, balancer=whole.balancer)
    path = parts.save(tmp_path / "checkpoint")
    losses = steps(whole, range(3, 6))
    again = make(rule, **model)
    again.network.set_weights([w * 0 for w in again.network.get_weights()])
    if method == "pcgrad":
        again.balancer.seed_and_step.assign([1, 1])
    parts = tf.train.Checkpoint(network=again.network, optimizer=again.optimizer, balancer=again.balancer)
    parts.restore(path).assert_consumed()
    assert steps(again, range(3, 6)) == losses
    for one, other in zip(whole.network.get_weights(), again.network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    state = [v.numpy() for v in whole.balancer.variables]
    for one, other, fresh in zip(state, again.balancer.variables, make(rule, **model).balancer.variables,
                                 strict=True):
        np.testing.assert_array_equal(one, other.numpy())
        assert np.any(one != fresh.numpy())  # there is something to restore


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
    model = {"trunk": "cgc", "units": (6,), "tower_units": (), "schema": FEW}
    one, other = make(method, **model, eagerly=True), make(method, **model, jit=True)
    assert steps(one, range(4)) == pytest.approx(steps(other, range(4)), rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_parameter_servers_have_no_gradients_of_whole_weights(method, monkeypatch):
    network = build(tiny_config().model, tiny_schema())
    strategy = object.__new__(tf.distribute.ParameterServerStrategy)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: strategy)
    if method in ("decay", "uncertainty"):
        assert step_rule(method)(tiny_schema(), network, None) is not None
    else:
        with pytest.raises(UserError) as error:
            step_rule(method)(tiny_schema(), network, None)
        assert str(error.value) == (
            "config.train.step_rule must not need the gradient of each task with --strategy=parameter_server, which "
            f"shards the weights. Received: {method!r}."
        )
