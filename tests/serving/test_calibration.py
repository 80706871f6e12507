"""Calibration: fits against closed forms and scikit-learn."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from dlen_cam2.metrics import auc, calibration, log_loss
from dlen_cam2.serving.calibration import ENOUGH, KNOTS, fit
from tests.support.builders import numpy_sigmoid
from tests.support.calibrations import DAY, SCHEMA, drawn, rows


def logit(p):
    return np.log(p) - np.log1p(-np.asarray(p, np.float64))


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
