"""Calibration: fits against closed forms and scikit-learn, the graph against numpy, files, and the command."""

import dataclasses
import json
import re

import numpy as np
import pytest
import tensorflow as tf
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from dlen_cam2 import evaluation
from dlen_cam2.config import Config, ModelConfig, TrainConfig
from dlen_cam2.evaluation import Predictions
from dlen_cam2.evaluation.metrics import auc, calibration, log_loss
from dlen_cam2.schema import Schema, Task
from dlen_cam2.serving.calibration import ENOUGH, KNOTS, Calibration, fit
from dlen_cam2.training import model_directory
from dlen_cam2.utils.errors import UserError
from pipelines import simulate
from tests.support import builders
from tests.support.builders import FEW, numpy_sigmoid, train

DAY, NEXT = "20240103", "20240104"
SCHEMA = Schema("one", (), (Task("click"),))
CURVE = ((-2.0, 0.0, 1.0), (-1.0, -0.5, 3.0))
LINE = ((0.0, 1.0), (0.25, 0.75))


def logit(p):
    return np.log(p) - np.log1p(-np.asarray(p, np.float64))


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


def groups(*counts):
    """Rows in groups of one probability each: (probability, positives, negatives)."""
    labels = np.concatenate([np.repeat([1, 0], (positives, negatives)) for _, positives, negatives in counts])
    return rows(labels, np.concatenate([np.full(up + down, p) for p, up, down in counts]))


def fitted(predictions, method="isotonic"):
    """The knots of the one task."""
    return np.array(fit(predictions, SCHEMA, method, DAY).knots["click"])


def calibrated(predictions, method="isotonic"):
    return fit(predictions, SCHEMA, method, DAY).apply(predictions, ["click"]).probabilities[:, 0]


def test_platt_finds_the_line_that_the_labels_were_drawn_from():
    (x0, x1), (y0, y1) = fitted(drawn(200_000, 0.6, 0.8), "platt")
    assert (x0, x1) == (0, 1)
    assert y0 == pytest.approx(0.8, abs=0.02)  # three standard errors: 1 / sqrt(200,000 * 0.2) = 0.005, doubled by x
    assert y1 - y0 == pytest.approx(0.6, abs=0.02)


def test_platt_of_two_groups_is_the_line_through_their_rates():
    _, (y0, y1) = fitted(groups((0.2, 30, 70), (0.6, 160, 40)), "platt")
    slope = (logit(0.8) - logit(0.3)) / (logit(0.6) - logit(0.2))
    assert y1 - y0 == pytest.approx(slope, rel=1e-5)
    assert y0 == pytest.approx(logit(0.3) - slope * logit(0.2), rel=1e-5)


def test_platt_agrees_with_scikit_learn():
    shown = drawn(5000, 1.4, -3.0, centre=0.0)
    x = logit(shown.probabilities)
    wanted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(x, shown.labels[:, 0])
    _, (y0, y1) = fitted(shown, "platt")
    assert y0 == pytest.approx(wanted.intercept_[0], abs=1e-5)
    assert y1 - y0 == pytest.approx(wanted.coef_[0, 0], abs=1e-5)


def test_platt_of_a_perfect_score_is_finite():
    perfect = groups((0.4, 0, 50), (0.6, 50, 0))
    _, (y0, y1) = fitted(perfect, "platt")
    assert 10 < y1 - y0 <= 100
    assert log_loss(perfect.labels[:, 0], calibrated(perfect, "platt")) < 1e-6


def test_platt_of_a_backward_score_still_increases():
    _, (y0, y1) = fitted(groups((0.4, 50, 20), (0.6, 20, 50)), "platt")
    assert y1 - y0 == pytest.approx(0.01)
    assert y0 == pytest.approx(0, abs=1e-6)


def test_isotonic_of_hand_computed_blocks():
    # The middle two rank backwards: 30 of 60 and 30 of 100 pool to 60 of 160.
    xs, ys = fitted(groups((0.1, 20, 80), (0.2, 30, 30), (0.4, 30, 70), (0.8, 90, 30)))
    middle = logit((60 * 0.2 + 100 * 0.4) / 160)
    inner = [logit(0.1), middle, logit(0.8)]
    np.testing.assert_allclose(xs, [inner[0] - 1, *inner, inner[-1] + 1], rtol=1e-6)
    rates = np.log([20 / 80, 60 / 100, 90 / 30])
    np.testing.assert_allclose(ys, [rates[0] - 1, *rates, rates[-1] + 1], rtol=1e-12)


def test_isotonic_pools_what_is_too_few_to_be_a_step():
    # 0 of 50 waits for company; 20 of 20 has no negatives and joins the block below.
    xs, ys = fitted(groups((0.01, 0, 50), (0.1, 25, 75), (0.5, 30, 30), (0.9, 20, 0)))
    inner = [logit((50 * 0.01 + 100 * 0.1) / 150), logit((60 * 0.5 + 20 * 0.9) / 80)]
    np.testing.assert_allclose(xs[1:-1], inner, rtol=1e-6)
    np.testing.assert_allclose(ys[1:-1], np.log([25 / 125, 50 / 30]), rtol=1e-12)


def test_isotonic_of_few_positives_is_a_shift():
    shown = groups((0.01, 8, 900), (0.02, 12, 80), (0.05, 15, 100))
    xs, ys = fitted(shown)
    shift = np.log(35 / 1080) - logit(np.mean(shown.probabilities, dtype=np.float64))
    np.testing.assert_allclose(ys - xs, shift, rtol=1e-6)


def test_isotonic_agrees_with_scikit_learn_at_the_centre_of_every_block():
    rng = np.random.default_rng(4)
    x = np.clip(np.round(rng.normal(-1, 1.5, 20_000) * 8) / 8, -3, 1)  # 33 scores, many rows each: no block is small
    shown = rows(rng.random(len(x)) < numpy_sigmoid(0.2 * x - 0.5), numpy_sigmoid(x))
    p = shown.probabilities[:, 0].astype(np.float64)
    wanted = IsotonicRegression().fit_transform(p, shown.labels[:, 0])
    rates, block = np.unique(np.round(wanted, 9), return_inverse=True)
    centres = [p[block == i].mean() for i in range(len(rates))]
    assert 5 < len(rates) < 33  # some were pooled
    xs, ys = fitted(shown)
    np.testing.assert_allclose(xs[1:-1], logit(centres), rtol=1e-9)
    np.testing.assert_allclose(numpy_sigmoid(ys[1:-1]), rates, rtol=1e-6)


def test_a_calibrated_score_stays_where_it_is():
    for seed, centre in ((1, -1.0), (2, -5.0)):  # common labels, rare labels
        shown = drawn(100_000, 1.0, 0.0, seed, centre)
        change = logit(calibrated(shown)) - logit(shown.probabilities[:, 0])
        positives = shown.labels.sum()
        assert abs(np.mean(change)) < 4 / np.sqrt(positives)
        assert np.max(np.abs(change)) < 4 / np.sqrt(ENOUGH)


def test_knots_are_not_too_many():
    # A step at every group of rows, 200 in all, each large enough.
    steps = groups(*((0.1 + 0.004 * i, 30 + i, 400 - i) for i in range(200)))
    xs, ys = fitted(steps)
    assert KNOTS / 2 < len(xs) <= KNOTS
    assert (np.diff(xs) > 0).all() and (np.diff(ys) > 0).all()


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_the_loss_is_less_the_sum_is_right_and_the_order_is_kept(method):
    shown = drawn(20_000, 0.5, 1.0)
    y, before, after = shown.labels[:, 0], shown.probabilities[:, 0], calibrated(shown, method)
    assert calibration(y, before) < 0.7
    assert calibration(y, after) == pytest.approx(1, abs=0.01)
    assert log_loss(y, after) < log_loss(y, before) - 0.05
    assert auc(y, after) == auc(y, before)


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_probabilities_of_nought_and_one_have_a_place(method):
    p = calibrated(groups((0.0, 1, 40), (1e-40, 5, 40), (0.5, 30, 30), (1.0, 40, 2)), method)
    assert np.isfinite(p).all()
    assert (np.diff(np.unique(p)) > 0).all() and len(np.unique(p)) == 4


def test_a_task_is_fitted_on_its_own_sample_space():
    inside = groups((0.2, 30, 70), (0.6, 160, 40))
    outside = groups((0.2, 500, 0), (0.9, 0, 500))
    both = rows(
        np.concatenate([inside.labels[:, 0], outside.labels[:, 0]]),
        np.concatenate([inside.probabilities[:, 0], outside.probabilities[:, 0]]),
        np.repeat([1, 0], (300, 1000)),
    )
    for method in ("isotonic", "platt"):
        np.testing.assert_array_equal(fitted(both, method), fitted(inside, method))


@pytest.mark.parametrize("positives, negatives", [(ENOUGH - 1, 500), (500, ENOUGH - 1), (0, 0)])
def test_a_task_with_too_few_rows_is_left_as_it_is(positives, negatives):
    shown = groups((0.3, positives, negatives))
    found = fit(shown, SCHEMA, "isotonic", DAY)
    assert found.knots == {}
    np.testing.assert_allclose(found.apply(shown, ["click"]).probabilities, shown.probabilities, rtol=1e-6)


def expected(x, knots):
    """numpy's interpolation, with the first and the last segment drawn out."""
    xs, ys = map(np.array, knots)
    slopes = np.diff(ys) / np.diff(xs)
    beyond = np.where(x < xs[0], slopes[0] * (x - xs[0]), np.maximum(x - xs[-1], 0) * slopes[-1])
    return np.interp(x, xs, ys) + beyond


def test_the_graph_of_tasks_with_different_knots_is_numpys_interpolation():
    rng = np.random.default_rng(3)
    long = tuple(tuple(np.cumsum(rng.uniform(0.05, 1, 9)).tolist()) for _ in range(2))
    found = Calibration("isotonic", DAY, {"b": CURVE, "c": LINE, "e": long})
    tasks = ["a", "b", "c", "d", "e"]
    x = rng.uniform(-6, 12, (300, 5)).astype(np.float32)
    knots = {"a": ((0, 1), (0, 1)), "d": ((0, 1), (0, 1)), **found.knots}
    wanted = np.stack([expected(x[:, i].astype(np.float64), knots[task]) for i, task in enumerate(tasks)], axis=1)
    for jit in (False, True):
        mapped = tf.function(lambda logits: found(logits, tasks), jit_compile=jit)(tf.constant(x))
        assert mapped.dtype == tf.float32
        np.testing.assert_allclose(mapped, wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(mapped.numpy()[:, [0, 3]], x[:, [0, 3]])


def test_the_graph_is_exact_at_knots_continuous_and_increasing():
    many = tuple(map(tuple, np.cumsum(np.random.default_rng(5).uniform(0.05, 1, (2, 40)), axis=1).tolist()))
    at_knots = Calibration("isotonic", DAY, {"click": many})(tf.constant(many[0], tf.float32)[:, None], ["click"])
    np.testing.assert_array_equal(at_knots[:, 0], np.float32(many[1]))
    found = Calibration("isotonic", DAY, {"click": CURVE})
    x = np.arange(-5, 5, 1e-3, np.float32)
    steps = np.diff(found(tf.constant(x)[:, None], ["click"])[:, 0])
    assert steps.min() > 0.2 * 1e-3 and steps.max() < 3.6 * 1e-3  # slopes are 0.25 and 3.5


def test_extreme_logits_stay_finite_and_in_order_and_nan_spoils_no_other_row():
    found = Calibration("isotonic", DAY, {"click": CURVE})
    mapped = found(tf.constant([-1e30, -1e4, 0.0, 1e4, 1e30])[:, None], ["click"])[:, 0].numpy()
    np.testing.assert_allclose(mapped[[1, 3]], [-1 - 0.25 * 9998, 3 + 3.5 * 9999], rtol=1e-6)
    assert np.isfinite(mapped).all() and (np.diff(mapped) > 0).all()
    spoilt = found(tf.constant([np.nan, np.inf, 1.0])[:, None], ["click"])[:, 0].numpy()
    assert np.isnan(spoilt[0]) and spoilt[1] == np.inf and spoilt[2] == 3


def test_without_knots_of_the_models_tasks_the_input_is_returned():
    logits = tf.ones((2, 1))
    assert Calibration("platt", DAY, {"other": LINE})(logits, ["click"]) is logits


def test_what_was_saved_is_loaded(tmp_path):
    found = fit(drawn(5000, 0.5, 0.3), SCHEMA, "isotonic", DAY)
    found.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == found


GOOD = {"method": "isotonic", "day": DAY, "knots": {"click": CURVE}}


@pytest.mark.parametrize("content, message", [
    ("[", "must be a JSON file"),
    ([], "must be an object with the keys"),
    ({"method": "isotonic", "day": DAY}, "must be an object with the keys"),
    (GOOD | {"more": 1}, "must be an object with the keys"),
    (GOOD | {"knots": [1]}, "knots an object"),
    (GOOD | {"method": "magic"}, "method must be one of ['isotonic', 'platt']. Received: 'magic'"),
    (GOOD | {"method": ["platt"]}, "method must be one of"),
    (GOOD | {"day": 20240103}, "day must be a string. Received: 20240103"),
    *((GOOD | {"knots": {"click": CURVE, "like": knots}}, "knots of task 'like' must be") for knots in (
        3, [], [1, 2], ["ab", "cd"], [[0, 1]], [[0, 1], [0, 1], [0, 1]], [[0], [0]], [[0, 1, 2], [0, 1]],
        [[0, 0], [0, 1]], [[0, 1], [1, 1]], [[1, 0], [0, 1]], [[0, 1], [1, 0]],
        [[0, True], [0, 1]], [[0, "1"], [0, 1]], [[0, None], [0, 1]],
        [[0, float("nan")], [0, 1]], [[0, float("inf")], [0, 1]], [[0, 10**400], [0, 1]], [[0, 1e-300], [0, 1]],
    )),
])
def test_a_file_that_cannot_be_used_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "c.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        Calibration.load(path)
    assert str(path) in str(caught.value)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(UserError, match="c.json does not exist"):
        Calibration.load(tmp_path / "c.json")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small DLEN, trained on two of four simulated days: (data directory, model directory)."""
    home = tmp_path_factory.mktemp("trained")
    simulate.write(simulate.World(rows=3000, seed=2, days=4), str(home / "data"))
    sizes = {"features": FEW, "experts": 2, "expert_units": (8,), "tower_units": (4,), "latent_units": (4,)}
    config = Config("small", ModelConfig("mmoe", head="dlen", **sizes), TrainConfig(batch_size=128, bootstrap=0))
    train(config, home / "data", home / "model", "20240101..20240102", DAY)
    return home / "data", home / "model"


def command(trained, output, day=DAY, **flags):
    names = {"data_dir": trained[0], "model_dir": trained[1], "day": day, "output": output, **flags}
    return builders.command("dlen_cam2.cli.calibrate", *(f"--{name}={value}" for name, value in names.items()))


def test_the_command_fits_measures_and_draws(trained, tmp_path):
    done = command(trained, tmp_path / "new" / "c.json", measure_day=NEXT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["c.json", "c.png"]
    found = Calibration.load(tmp_path / "new" / "c.json")
    model = model_directory.load(trained[1])
    tasks = model.schema.task_names
    score = evaluation.scorer(model.network, model.schema)
    shown = {day: evaluation.predict(score, model.schema, trained[0], day) for day in (DAY, NEXT)}
    again = fit(shown[DAY], model.schema, "isotonic", DAY)
    assert found.knots.keys() == again.knots.keys()
    assert set(found.knots) < set(tasks), "this world has a task with too few positives: what follows tests that too"
    for task in tasks:
        told = f"{task} is left as it is: fewer than 20 positives or 20 negatives on {DAY}." in done.stdout
        assert told == (task not in found.knots)
    lines = {tuple(line.split(" | ")[:2]): line for line in done.stdout.splitlines() if line.startswith("| 2024")}
    assert list(lines) == [(f"| {day}", task) for day in (DAY, NEXT) for task in tasks]
    for day, predictions in shown.items():
        after = evaluation.evaluate(found.apply(predictions, tasks), model.schema, 0)
        before = evaluation.evaluate(predictions, model.schema, 0)
        for task in tasks:
            assert after[task]["auc"] == pytest.approx(before[task]["auc"], abs=1e-9)
            for name in ("auc", "ne", "calibration", "ece"):
                assert f"{before[task][name]:.4f} → {after[task][name]:.4f}" in lines[f"| {day}", task]
            if day == DAY and task in found.knots:
                assert after[task]["log_loss"] <= before[task]["log_loss"]
                assert after[task]["calibration"] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("flags, message", [
    ({"measure_day": "20240101"}, f"Received: ['{DAY}', '20240101']; trained on: ['20240101', '20240102']."),
    ({"measure_day": DAY}, f"Received: ['{DAY}', '{DAY}']"),
    ({"day": "20250101"}, "20250101"),
])
def test_the_command_refuses_days_and_writes_nothing(trained, tmp_path, flags, message):
    done = command(trained, tmp_path / "c.json", **flags)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_command_refuses_an_output_that_is_no_json(trained, tmp_path):
    done = command(trained, tmp_path / "c.png")
    assert done.returncode == 1 and "must end in .json. Received:" in done.stderr
    assert not list(tmp_path.iterdir())


def test_calibrated_predictions_keep_all_else():
    shown = drawn(500, 1.0, 0.0)
    after = fit(shown, SCHEMA, "platt", DAY).apply(shown, ["click"])
    for field in dataclasses.fields(shown):
        if field.name != "probabilities":
            assert getattr(after, field.name) is getattr(shown, field.name)
