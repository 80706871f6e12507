"""Calibration in the graph against numpy, its files, and the command."""

import dataclasses
import json
import re

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2 import evaluation
from dlen_cam2.serving.calibration import Calibration, fit
from dlen_cam2.training import model_directory
from dlen_cam2.utils.errors import UserError
from tests.support import builders
from tests.support.calibrations import DAY, NEXT, SCHEMA, drawn

CURVE = ((-2.0, 0.0, 1.0), (-1.0, -0.5, 3.0))
LINE = ((0.0, 1.0), (0.25, 0.75))


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
    (GOOD | {"knots": [1]}, "of which knots is an object"),
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


def command(trained, output, day=DAY, **flags):
    names = {"data_dir": trained[0], "model_dir": trained[1], "day": day, "output": output, **flags}
    return builders.command("dlen_cam2.cli.calibrate", *(f"--{name}={value}" for name, value in names.items()))


@pytest.mark.slow
def test_the_command_fits_measures_and_draws(trained, tmp_path, drawn):
    done = command(trained, tmp_path / "new" / "c.json", measure_day=NEXT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["c.json", "c.png"]
    found = Calibration.load(tmp_path / "new" / "c.json")
    model = model_directory.load(trained[1])
    tasks = model.schema.task_names
    score = evaluation.scorer(model.network, model.read_out)
    shown = {day: evaluation.predict(score, model.schema, trained[0], day) for day in (DAY, NEXT)}
    again = fit(shown[DAY], model.schema, "isotonic", DAY)
    assert found.knots.keys() == again.knots.keys()
    assert set(found.knots) < set(tasks), "this world has a task with too few positives: what follows tests that too"
    for task in tasks:
        told = f"{task} is left uncalibrated: it has fewer than 20 positives or 20 negatives on {DAY}" in done.stdout
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


@pytest.mark.slow
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


@pytest.mark.slow
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
