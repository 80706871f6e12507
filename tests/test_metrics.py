import json

import numpy as np
import pytest
from sklearn import metrics as sk

from dlen_cam2.metrics import (
    auc,
    calibration,
    calibration_curve,
    expected_calibration_error,
    gauc,
    log_loss,
    normalized_entropy,
    task_metrics,
)
from dlen_cam2.utils.errors import UserError

NONE = np.array([])


def sample(rows=600, users=40, levels=None, seed=0):
    """Random (labels, probabilities, users); `levels` rounds the probabilities into few distinct values."""
    rng = np.random.default_rng(seed)
    user = rng.integers(users, size=rows)
    p = rng.uniform(0.02, 0.6, rows)
    p = p if levels is None else np.ceil(p * levels) / (levels + 1)
    return (rng.random(rows) < p).astype(int), p, user


def test_numbers_by_hand():
    assert auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 0.75  # 3 of 4 pairs in order
    assert auc([0, 1, 0, 1], [0.5, 0.5, 0.2, 0.9]) == 0.875  # 3 pairs and one tie of 4
    assert auc([1, 0], [1, 1]) == 0.5
    assert auc([0, 1, 0], [1, 2, 3], weights=[3, 1, 1]) == 0.75
    assert normalized_entropy([1, 0], [0.2, 0.3]) == pytest.approx(1.41825, abs=5e-6)
    assert log_loss([1, 0], [0.2, 0.3]) == pytest.approx(-(np.log(0.2) + np.log(0.7)) / 2, rel=1e-14)
    assert log_loss([1], [0.0]) == pytest.approx(12 * np.log(10))  # clipped, not infinite
    assert calibration([1, 0, 1], [0.5, 0.25, 0.75]) == 0.75


def test_gauc_by_hand_weighs_users_by_impressions_and_reports_the_rows_left_out():
    users = ["a", "a", "a", "b", "b", "c", "c", "c", "c"]  # AUC: a 1/2 (3 rows), b 1 (2 rows), c one class
    labels = [0, 1, 0, 1, 0, 1, 1, 1, 1]
    scores = [0.1, 0.2, 0.3, 0.9, 0.8, 0.1, 0.2, 0.3, 0.4]
    assert gauc(labels, scores, users) == (pytest.approx((3 * 0.5 + 2 * 1) / 5), pytest.approx(5 / 9))
    assert gauc([0, 1, 0, 1], [0.2, 0.5, 0.5, 0.9], [1, 1, 2, 2]) == (1.0, 1.0)  # equal scores of two users: no tie
    for kind in ("S", object):  # TensorFlow hands strings over as objects
        assert gauc(labels, scores, np.array(users, kind)) == gauc(labels, scores, users)


@pytest.mark.parametrize("levels", [None, 3])
def test_agrees_with_scikit_learn(levels):
    y, p, user = sample(levels=levels)
    weights = np.random.default_rng(1).exponential(size=len(y))
    assert auc(y, p) == pytest.approx(sk.roc_auc_score(y, p), abs=1e-12)
    assert auc(y, p, weights) == pytest.approx(sk.roc_auc_score(y, p, sample_weight=weights), abs=1e-12)
    assert log_loss(y, p) == pytest.approx(sk.log_loss(y, p), abs=1e-12)
    total = counted = 0
    for rows in (user == u for u in np.unique(user)):
        if 0 < y[rows].sum() < rows.sum():
            total, counted = total + rows.sum() * sk.roc_auc_score(y[rows], p[rows]), counted + rows.sum()
    assert gauc(y, p, user) == pytest.approx((total / counted, counted / len(y)), abs=1e-12)


def test_an_integer_weight_repeats_the_row():
    y, p, _ = sample(levels=5)
    times = np.random.default_rng(2).integers(0, 4, len(y))
    assert auc(y, p, times) == auc(np.repeat(y, times), np.repeat(p, times))
    fractions = np.random.default_rng(2).random((200, 30))
    assert max(auc(np.arange(30) > 14, np.arange(30), w) for w in fractions) == 1  # rounding stays below


def test_gauc_compares_only_within_users():
    y, p, user = sample()
    assert gauc(y, p, np.zeros_like(user)) == (auc(y, p), 1.0)
    shift = np.random.default_rng(3).normal(size=user.max() + 1)[user]
    assert gauc(y, np.exp(p) * (2 + np.tanh(shift)), user) == pytest.approx(gauc(y, p, user), abs=1e-14)
    assert gauc(y, p + shift, user) == pytest.approx(gauc(y, p, user), abs=1e-14)
    assert abs(auc(y, p + shift) - auc(y, p)) > 0.02


def test_the_base_rate_has_normalized_entropy_one():
    y, p, _ = sample()
    assert normalized_entropy(y, np.full(len(y), y.mean())) == pytest.approx(1, abs=1e-12)
    assert normalized_entropy(y, p) < 1


@pytest.mark.parametrize("levels", [None, 3])
def test_no_result_depends_on_the_order_of_the_rows(levels):
    y, p, user = sample(levels=levels)
    order = np.random.default_rng(4).permutation(len(y))
    assert calibration_curve(y[order], p[order]) == calibration_curve(y, p)
    before, after = task_metrics(y, p, user, 20), task_metrics(y[order], p[order], user[order], 20)
    assert after.pop("intervals") == {k: pytest.approx(v, abs=1e-12) for k, v in before.pop("intervals").items()}
    assert after == pytest.approx(before, abs=1e-12)


def test_calibration_bins():
    y, p, _ = sample()
    curve = calibration_curve(y, p, 7)
    for b, rows in zip(curve, np.array_split(np.argsort(p), 7), strict=False):
        assert abs(b["rows"] - len(rows)) <= 1 and b["predicted"] == pytest.approx(p[rows].mean(), rel=0.02)
    assert (len(curve), sum(b["rows"] for b in curve)) == (7, len(y))
    tied = calibration_curve([0, 1, 0, 0, 1], [0.1, 0.1, 0.1, 0.1, 0.7], 5)  # equal values share a bin
    assert tied == [{"rows": 4, "predicted": 0.1, "observed": 0.25}, {"rows": 1, "predicted": 0.7, "observed": 1.0}]
    assert [b["rows"] for b in calibration_curve([0] * 4, [0.1, 0.2, 0.2, 0.2], 2)] == [1, 3]  # by the mid-rank
    assert expected_calibration_error([0, 1, 0, 0, 1], [0.1, 0.1, 0.1, 0.1, 0.7], 5) == pytest.approx(0.18)
    assert expected_calibration_error([0, 1], [0.0, 1.0]) == 0


def test_task_metrics_collects_the_single_metrics_as_plain_json():
    y, p, user = sample()
    got = json.loads(json.dumps(task_metrics(y, p, user, bootstrap=0), allow_nan=False))
    assert got.pop("intervals") == dict.fromkeys(["auc", "gauc", "ne", "calibration"])
    group, share = gauc(y, p, user)
    assert got == pytest.approx(
        {"rows": len(y), "positives": y.sum(), "auc": auc(y, p), "gauc": group, "gauc_rows": share}
        | {"ne": normalized_entropy(y, p), "log_loss": log_loss(y, p), "calibration": calibration(y, p)}
        | {"ece": expected_calibration_error(y, p)},
        rel=1e-12,
    )


def test_replicates_are_the_metrics_of_all_rows_of_the_drawn_users():
    y, p, user = sample(levels=9)
    rng = np.random.default_rng(7)
    replicates = []
    for _ in range(5):
        rows = [np.flatnonzero(user == u) for u in rng.integers(40, size=40)]
        copies = np.repeat(np.arange(40), [len(r) for r in rows])  # a user drawn twice is two users
        rows = np.concatenate(rows)
        replicates.append((auc(y[rows], p[rows]), gauc(y[rows], p[rows], copies)[0]))
        replicates[-1] += (normalized_entropy(y[rows], p[rows]), calibration(y[rows], p[rows]))
    got = task_metrics(y, p, user, bootstrap=5, seed=7)["intervals"]
    for name, values in zip(["auc", "gauc", "ne", "calibration"], zip(*replicates, strict=True), strict=True):
        assert got[name] == pytest.approx(np.percentile(values, [2.5, 97.5]), rel=1e-12)


def test_intervals_cover_the_truth_when_rows_of_a_user_are_alike():
    covered = 0
    for seed in range(50):  # each user clicks always or never: 10 rows of a user tell no more than one
        clicks = np.random.default_rng(seed).random(100) < 0.3
        y, user = np.repeat(clicks, 10), np.repeat(np.arange(100), 10)
        low, high = task_metrics(y, np.full(1000, 0.3), user, seed=seed)["intervals"]["calibration"]
        covered += low <= 1 <= high
    assert 43 <= covered <= 50  # a bootstrap over rows covers about half


def test_intervals_shrink_with_users_and_repeat_by_seed():
    y, p, user = sample(4000, 400)
    few, many = task_metrics(*(x[user < 25] for x in (y, p, user))), task_metrics(y, p, user)
    for name in ("auc", "gauc", "ne", "calibration"):
        low, high = many["intervals"][name]
        assert low < many[name] < high and 2 * (high - low) < np.diff(few["intervals"][name])[0]
    assert task_metrics(y, p, user) == many
    assert task_metrics(y, p, user, seed=1)["intervals"] != many["intervals"]


def test_undefined_is_none():
    assert auc(NONE, NONE) is auc([1, 1], [0.1, 0.2]) is auc([0, 1], [0.1, 0.2], [1, 0]) is None
    assert normalized_entropy([0, 0], [0.1, 0.2]) is normalized_entropy([1], [0.1]) is normalized_entropy(NONE, NONE)
    assert normalized_entropy(NONE, NONE) is calibration([0], [0.5]) is log_loss(NONE, NONE) is None
    assert gauc([0, 1], [0.1, 0.2], [1, 2]) == gauc(NONE, NONE, NONE) == (None, 0.0)
    assert calibration_curve(NONE, NONE) == [] and expected_calibration_error(NONE, NONE) is None
    empty = task_metrics(NONE, NONE, NONE)
    assert set(empty.pop("intervals").values()) == {None}
    assert (empty.pop("rows"), empty.pop("positives"), set(empty.values())) == (0, 0, {None})
    assert set(task_metrics([0, 1], [0.1, 0.2], [5, 5])["intervals"].values()) == {None}  # one user
    rare = task_metrics([1] + [0] * 9, [0.5] * 10, [0, 0] + [1] * 8)["intervals"]  # 3 draws of 4 hold user 0
    assert rare["auc"] == [0.5, 0.5] and rare["calibration"] is not None
    assert task_metrics([1, 1], [0.5, 0.5], [0, 1])["intervals"]["ne"] is None


@pytest.mark.parametrize("seed", range(12))
def test_no_interval_where_more_than_half_of_the_replicates_are_undefined(seed):
    rng = np.random.default_rng(seed)
    both = sum(len(set(rng.integers(2, size=2))) == 2 for _ in range(5))  # replicates with either of the users
    interval = task_metrics([1, 0], [0.5, 0.5], [0, 1], bootstrap=5, seed=seed)["intervals"]["auc"]
    assert interval == ([0.5, 0.5] if both > 2 else None)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: auc([0, 2], [0.1, 0.2]), "`labels` must be exactly 0 or 1. Received: 2.0 at row 1"),
        (lambda: auc([[0, 1]], [0.1, 0.2]), r"`labels` must be a 1-D .* Received: shape \(1, 2\)"),
        (lambda: auc([0, 1], [0.1, np.nan]), "`scores` must be finite. Received: nan at row 1"),
        (lambda: auc([0, 1], ["a", "b"]), "`scores` must be a 1-D array of numbers"),
        (lambda: auc([0, 1], [0.1, 0.2], [1, -1]), "`weights` must be finite and not negative. Received: -1"),
        (lambda: log_loss([0, 1], [0.1]), r"`probabilities` .* as long as `labels`, 2. Received: shape \(1,\)"),
        (lambda: log_loss([0, 1], [0.1, 4.2]), r"`probabilities` .* in \[0, 1\]. Received: 4.2 at row 1"),
        (lambda: gauc([0, 1], [0.1, 0.2], [1]), r"`users` .* as long as `labels`, 2. Received: shape \(1,\)"),
        (lambda: gauc([0, 1], [0.1, 0.2], [1.5, np.nan]), "`users` must be .*integers.* Received: .*float64"),
        (lambda: gauc([0, 1], [0.1, 0.2], np.array(["a", None])), "`users` must be .*strings.* Received"),
        (lambda: calibration_curve([0], [0.1], bins=0), "`bins` .* Received: bins=0"),
        (lambda: task_metrics([0], [0.1], [1], bootstrap=-1), "`bootstrap` .* Received: bootstrap=-1"),
    ],
)
def test_bad_inputs_are_named(call, words):
    with pytest.raises(UserError, match=words):
        call()
