"""The training step: parts of a batch, clipping, precision, XLA, several steps in a call."""

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.config import ModelConfig, TrainConfig
from dlen_cam2.models import ReadOut, build
from dlen_cam2.training import jobs, model_directory
from dlen_cam2.training.balancing import GradNorm, MetaBalance
from dlen_cam2.training.step import Ranker
from tests.support.builders import tiny_batch, tiny_config, tiny_schema, train
from tests.support.jobs import DAY, DAYS, config

pytestmark = pytest.mark.slow


def step(batch, heads="dlen", l2=0.1, **settings):
    """One step of plain SGD at rate 1, eager but for XLA: how the weights moved (so the gradient), and the logs."""
    tf.keras.utils.set_random_seed(3)
    # Few layers: XLA takes seconds for one more.
    model = tiny_config(trunk="shared_bottom", head=heads, units=(6,), tower_units=(), embedding_l2=l2).model
    network = build(model, tiny_schema())
    how = TrainConfig(**settings)
    rule = how.step_rule(tiny_schema(), network, None)
    ranker = Ranker(network, ReadOut(model, tiny_schema()), balancer=rule, train=how)
    optimizer = tf.keras.optimizers.SGD(1.0)
    optimizer.build(network.trainable_variables)
    ranker.compile(optimizer=optimizer, jit_compile=how.jit, run_eagerly=not how.jit)
    before = network.get_weights()
    logs = ranker.train_on_batch(*batch, return_dict=True)
    return [b - a for a, b in zip(network.get_weights(), before, strict=True)], logs


def flat(arrays):
    return np.concatenate([a.ravel() for a in arrays])


@pytest.mark.parametrize(("parts", "side_by_side"), [(3, 1), (8, 1), (1, 3), (2, 3)])
def test_parts_of_a_batch_give_the_gradient_of_the_whole(parts, side_by_side):
    """Also with parts of unequal size, masks, and a regulariser that is a mean over rows."""
    batch = tiny_batch(16)
    whole, logs = step(batch)
    cut, cut_logs = step(batch, accumulate=parts, microbatches=side_by_side)
    np.testing.assert_allclose(flat(cut), flat(whole), atol=1e-6)
    for name, value in logs.items():
        np.testing.assert_allclose(cut_logs[name], value, rtol=1e-5, err_msg=name)


def test_more_parts_than_rows():
    whole, _ = step(tiny_batch(3))
    cut, _ = step(tiny_batch(3), accumulate=5)
    np.testing.assert_allclose(flat(cut), flat(whole), atol=1e-6)


def test_logged_losses_add_up():
    _, logs = step(tiny_batch(16), l2=0.0)
    assert logs["loss"] == pytest.approx(sum(v for k, v in logs.items() if k.startswith("loss/")), rel=1e-6)


# Ways to the same gradient: with MetaBalance's relax 0 all factors are 1, as GradNorm's are in its first step.
WAYS = {
    "fixed": {}, "parts": {"accumulate": 3}, "jit": {"jit": True}, "gradnorm": {"step_rule": GradNorm()},
    "metabalance": {"step_rule": MetaBalance(relax=0.0)},
}


@pytest.mark.parametrize("way", WAYS)
def test_clipping_keeps_the_direction_and_bounds_the_norm(way):
    """The norm is that of the gradient as a dense array: 64 lookups share the 9 videos of a table."""
    batch = tiny_batch(16)
    free = flat(step(batch)[0])
    norm = np.linalg.norm(free)
    for bound, kept in ((norm / 4, 1 / 4), (norm * 2, 1)):
        clipped, logs = step(batch, clip_norm=bound, **WAYS[way])
        assert logs["gradient_norm"] == pytest.approx(norm, rel=1e-5)
        np.testing.assert_allclose(flat(clipped), free * kept, atol=1e-6)


def test_a_scaled_loss_gives_the_same_gradient():
    free, _ = step(tiny_batch(8))
    scaled, _ = step(tiny_batch(8), precision="mixed_float16", loss_scale=512.0)  # the network stays float32
    np.testing.assert_allclose(flat(scaled), flat(free), atol=1e-7)


def test_the_first_step_that_is_not_finite_is_remembered():
    network = build(tiny_config().model, tiny_schema())
    ranker = Ranker(network, ReadOut(ModelConfig(), tiny_schema()))
    ranker.compile(optimizer=tf.keras.optimizers.SGD(0.1))
    features, labels = tiny_batch(8)
    ranker.train_on_batch(features, labels)
    assert int(ranker.bad_step) == -1
    for _ in range(2):
        ranker.train_on_batch(features, labels | {"hate": labels["hate"] * np.nan})
    assert int(ranker.bad_step) == 1
    assert [bool(np.isfinite(v)) for v in ranker.bad_losses.numpy()] == [True, False, True]


@pytest.fixture(scope="module")
def plain(log, tmp_path_factory):  # noqa: F811
    """A model trained in the plain way, and what it measures."""
    directory = tmp_path_factory.mktemp("plain") / "m"
    return directory, train(config(dropout=0.0), log, directory, DAYS, DAY)[DAY]


@pytest.mark.parametrize("settings", [
    {"precision": "mixed_bfloat16"}, {"precision": "mixed_float16"}, {"jit": True},
    {"accumulate": 3, "microbatches": 2, "clip_norm": 0.5},
], ids=str)
def test_every_way_to_train_gives_a_model_like_the_plain_one(log, plain, tmp_path, settings):  # noqa: F811
    """The data set is small: NE within a few hundredths. Weights are float32, and so is what is measured and served."""
    found = train(config(dropout=0.0, **settings), log, tmp_path / "m", DAYS, DAY)[DAY]
    for task in ("click", "like"):
        assert found[task]["ne"] == pytest.approx(plain[1][task]["ne"], abs=0.03)
    assert {w.dtype for w in model_directory.load(tmp_path / "m").network.get_weights()} == {np.dtype("float32")}


def test_steps_in_one_call_are_the_same_steps(log, plain, tmp_path):  # noqa: F811
    train(config(dropout=0.0, steps_per_execution=7), log, tmp_path / "seven", DAYS, DAY)
    one, seven = (model_directory.load(path).network.get_weights() for path in (plain[0], tmp_path / "seven"))
    np.testing.assert_array_equal(flat(seven), flat(one))


def test_layers_compute_in_the_precision_that_was_asked_for(log):  # noqa: F811
    job = jobs.start(config(precision="mixed_bfloat16"), log, ["20240101"])
    assert job.network.get_layer("experts").compute_dtype == "bfloat16"
    assert job.scored.get_layer("experts").compute_dtype == "float32" and job.scored is not job.network
    assert tf.keras.mixed_precision.global_policy().name == "float32"
