"""Exact ranking metrics over all evaluated rows, in numpy and float64.

Every array is 1-D with one entry for each row, shape `(rows,)`: labels are exactly 0 or 1, and probabilities are finite
and in [0, 1]. An undefined result (one class only, no positives, no rows) is None, never NaN; unusable input raises
`UserError`. No result depends on the order of the rows, except in the last bits of a floating-point sum.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlen_cam2.utils.errors import UserError

Vector = NDArray[np.float64]

_CLIP = 1e-12  # the closest to 0 or 1 that a probability comes inside a logarithm
_SLACK = 1e-6  # a float32 sum of probabilities may pass 1 by rounding; logits passed by mistake go further
_RULES: dict[str, tuple[str, Callable[[Vector], NDArray[np.bool_]]]] = {
    "labels": ("exactly 0 or 1", lambda x: (x == 0) | (x == 1)),
    "scores": ("finite", np.isfinite),
    "weights": ("finite and not negative", lambda x: np.isfinite(x) & (x >= 0)),
    "probabilities": ("finite and in [0, 1]", lambda x: (x >= -_SLACK) & (x <= 1 + _SLACK)),
}


def auc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Area under the ROC curve by rank: the chance that a positive row outscores a negative one.

        AUC = sum_{i: y=1} sum_{j: y=0} w_i w_j ([s_i > s_j] + [s_i = s_j] / 2) / (sum_{y=1} w * sum_{y=0} w)

    Scores are finite, of any scale; weights (default 1) are not negative, and an integer weight counts its row
    that many times. None if either class has no weight. Source: Mann and Whitney 1947.

    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    y = _vector("labels", labels)
    ranking = _Ranking(y, _vector("scores", scores, len(y)))
    return ranking.auc(np.ones_like(y) if weights is None else _vector("weights", weights, len(y)))


def gauc(labels: ArrayLike, scores: ArrayLike, users: ArrayLike) -> tuple[float | None, float]:
    """AUC within each user, averaged with the users' impressions as weights, and the share of rows that count.

        GAUC = sum_u n_u AUC_u / sum_u n_u     over the users with both classes, n_u = all rows of user u

    This is the variant of DIN and FuxiCTR; others weight by positives, or equally. Users (integers, strings or bytes)
    with one class are left out. The second value is the share of the rows that belong to the users counted, 0.0
    without rows. GAUC is None if no user has both classes. Source: Zhou et al. 2018, "Deep Interest Network", on
    metrics.
    """
    y = _vector("labels", labels)
    won, counted = _user_auc(y, _vector("scores", scores, len(y)), _user_codes(users, len(y))).sum(axis=1)
    return _ratio(won, counted), _ratio(counted, len(y)) or 0.0


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Mean cross entropy in nats, -mean(y log p + (1 - y) log(1 - p)); p clipped by 1e-12. None without rows."""
    return _totals(labels, probabilities).log_loss()


def normalized_entropy(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Log loss divided by that of the constant prediction q, the base rate of the same rows; below 1 is better.

        NE = -mean(y log p + (1 - y) log(1 - p)) / -(q log q + (1 - q) log(1 - q))

    None if q is 0 or 1. Source: He et al. 2014, "Practical Lessons from Predicting Clicks on Ads", equation 1.

    >>> round(normalized_entropy([1, 0], [0.2, 0.3]), 5)
    1.41825
    """
    return _totals(labels, probabilities).normalized_entropy()


def calibration(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Expected over observed positives, sum(p) / sum(y) (He et al. 2014); None without positives."""
    return _totals(labels, probabilities).calibration()


def calibration_curve(labels: ArrayLike, probabilities: ArrayLike, bins: int = 15) -> list[dict[str, Any]]:
    """The mean prediction and the observed rate in (near) equal-mass bins, lowest predictions first.

    Rows with the same probability always share a bin, so the order of the rows cannot matter: a distinct value v goes,
    by its mid-rank, to bin floor(bins * (#{p < v} + #{p = v} / 2) / rows). Without ties, the bins differ by at most one
    row. A heavily tied value may fill several bins' worth, and empty bins are not listed.

    Returns: a list of {"rows": int, "predicted": mean p, "observed": mean y}; empty without rows.
    """
    y = _vector("labels", labels)
    p = _vector("probabilities", probabilities, len(y))
    if bins < 1:
        raise UserError(f"`bins` must be a positive integer. Received: bins={bins}")
    values, inverse, rows = np.unique(p, return_inverse=True, return_counts=True)
    twice_mid_rank = 2 * np.cumsum(rows) - rows  # integers, so that no boundary is decided by rounding
    places = twice_mid_rank * bins // max(2 * len(y), 1)
    columns = (rows, values * rows, np.bincount(inverse, y, len(values)))
    sums = np.stack([np.bincount(places, column) for column in columns], axis=1).tolist()
    return [{"rows": int(n), "predicted": p_sum / n, "observed": y_sum / n} for n, p_sum, y_sum in sums if n]


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike, bins: int = 15) -> float | None:
    """ECE = sum_b (n_b / rows) |observed_b - predicted_b| over the bins of `calibration_curve`. None without rows.

    Source: Naeini et al. 2015 (equal-width bins there; equal mass here, as rare labels crowd near 0).
    """
    curve = calibration_curve(labels, probabilities, bins)
    gaps = [b["rows"] * abs(b["observed"] - b["predicted"]) for b in curve]
    return _ratio(sum(gaps), sum(b["rows"] for b in curve))


def task_metrics(
    labels: ArrayLike, probabilities: ArrayLike, users: ArrayLike, bootstrap: int = 200, seed: int = 0
) -> dict[str, Any]:
    """Every metric of one task, with 95% percentile intervals from a bootstrap over users.

    A replicate draws as many users as there are, with replacement (`default_rng(seed).integers(U, size=U)` into
    the sorted distinct users); all rows of a user come along, so what a user's rows share stays in the interval.
    Replicates in which a metric is undefined are left out. The interval is None if they are more than half, with
    `bootstrap=0`, or with fewer than two users (nothing to resample).

    Returns: {"rows", "positives", "auc", "gauc", "gauc_rows", "ne", "log_loss", "calibration", "ece",
    "intervals": {"auc", "gauc", "ne", "calibration": [low, high] or None}}: plain Python, ready for JSON.
    "gauc_rows" is the share of rows whose user has both classes, None without rows.
    """
    measured = Weighted(labels, probabilities, users)
    if bootstrap < 0:
        raise UserError(f"`bootstrap` must be an integer, 0 or more. Received: bootstrap={bootstrap}")
    count = len(measured.users)
    rng = np.random.default_rng(seed)
    draws = (rng.integers(count, size=count) for _ in range(bootstrap if count > 1 else 0))
    replicates = [measured(np.bincount(draw, minlength=count).astype(np.float64)) for draw in draws]
    point = measured(np.ones(count))
    return {
        "rows": len(measured.labels),
        "positives": int(measured.labels.sum()),
        **point,
        "gauc_rows": measured.gauc_rows(),
        "log_loss": log_loss(labels, probabilities),
        "ece": expected_calibration_error(labels, probabilities),
        "intervals": {name: _interval([replicate[name] for replicate in replicates]) for name in point},
    }


class Weighted:
    """Metrics of one task in which each user's rows count any number of times, as in a bootstrap over users.

    Args:
        labels, probabilities: (rows,).
        users: (rows,), the user of each row.

    Attributes:
        users: the distinct users, sorted.
    """

    def __init__(self, labels: ArrayLike, probabilities: ArrayLike, users: ArrayLike):
        self.labels = _vector("labels", labels)
        p = _vector("probabilities", probabilities, len(self.labels))
        self._codes = _user_codes(users, len(self.labels))
        self.users = np.unique(np.asarray(users))
        self._ranking = _Ranking(self.labels, p)
        # All but AUC are ratios of sums over users, shape (6, users), which a draw only has to weigh.
        sums = (np.bincount(self._codes, column) for column in _columns(self.labels, p))
        self._by_user = np.stack([*sums, *_user_auc(self.labels, p, self._codes)])

    def __call__(self, times: Vector) -> dict[str, float | None]:
        """The metrics {"auc", "gauc", "ne", "calibration"} with each user counted `times` times; None if undefined."""
        *sums, won, counted = (self._by_user * times).sum(axis=1)
        ne, ratio = _Totals(*sums).normalized_entropy(), _Totals(*sums).calibration()
        return {"auc": self._ranking.auc(times[self._codes]), "gauc": _ratio(won, counted), "ne": ne,
                "calibration": ratio}

    def gauc_rows(self) -> float | None:
        """The share of rows whose user has both classes; None without rows."""
        return _ratio(self._by_user[-1].sum(), len(self.labels))


class _Ranking:
    """Rows sorted once by (group, score), so that the AUC of every group takes one pass for any row weights."""

    def __init__(self, labels: Vector, scores: Vector, groups: NDArray[np.int64] | None = None):
        groups = np.zeros(len(labels), np.int64) if groups is None else groups
        self.order = np.lexsort((scores, groups))
        self.labels = labels[self.order]
        new_group = np.diff(groups[self.order], prepend=-1) > 0
        new_score = np.diff(scores[self.order], prepend=-np.inf) != 0
        self.ties = np.flatnonzero(new_group | new_score)  # where rows of equal group and score begin
        self.groups = np.flatnonzero(new_group[self.ties])  # which of these begin a group

    def pairs(self, weights: Vector) -> tuple[Vector, Vector]:
        """For each group, the weight of (positive, negative) pairs in the right order, ties half, and of all pairs."""
        weights = weights[self.order]
        positive = np.add.reduceat(weights * self.labels, self.ties)
        negative = np.add.reduceat(weights * (1 - self.labels), self.ties)
        positives, negatives = np.add.reduceat(positive, self.groups), np.add.reduceat(negative, self.groups)
        below = np.cumsum(negative) - negative  # over all groups: what lies below a group is taken off again
        won = np.add.reduceat(positive * (below + negative / 2), self.groups) - positives * below[self.groups]
        return np.minimum(won, positives * negatives), positives * negatives

    def auc(self, weights: Vector) -> float | None:
        won, pairs = self.pairs(weights)
        return _ratio(won.sum(), pairs.sum())  # of the one group, or of none when there are no rows


class _Totals(NamedTuple):
    """Sums over rows, weighted or not, from which the probability metrics are computed."""

    rows: float
    positives: float
    predicted: float
    cross_entropy: float

    def log_loss(self) -> float | None:
        return _ratio(self.cross_entropy, self.rows)

    def normalized_entropy(self) -> float | None:
        if not 0 < self.positives < self.rows:
            return None
        q = self.positives / self.rows
        return _ratio(self.cross_entropy, -self.rows * (q * math.log(q) + (1 - q) * math.log1p(-q)))

    def calibration(self) -> float | None:
        return _ratio(self.predicted, self.positives)


def cross_entropy(labels: NDArray[Any], probabilities: NDArray[Any]) -> NDArray[np.float64]:
    """-(y log p + (1 - y) log(1 - p)) of each element, broadcast; p clipped by 1e-12."""
    chance = np.clip(np.asarray(probabilities, np.float64), _CLIP, 1 - _CLIP)
    return -np.where(labels == 1, np.log(chance), np.log1p(-chance))


def _columns(y: Vector, p: Vector) -> tuple[Vector, Vector, Vector, Vector]:
    """The contribution of each row to each field of `_Totals`."""
    return np.ones_like(y), y, p, cross_entropy(y, p)


def _totals(labels: ArrayLike, probabilities: ArrayLike) -> _Totals:
    y = _vector("labels", labels)
    return _Totals(*(column.sum() for column in _columns(y, _vector("probabilities", probabilities, len(y)))))


def _user_auc(y: Vector, s: Vector, codes: NDArray[np.int64]) -> Vector:
    """Numerator n_u AUC_u and denominator n_u of GAUC by user, shape (2, users); both 0 for one-class users."""
    won, pairs = _Ranking(y, s, codes).pairs(np.ones_like(y))
    impressions = np.where(pairs > 0, np.bincount(codes), 0)
    return np.stack([impressions * won / np.maximum(pairs, 1), impressions])


def _interval(values: list[float | None]) -> list[float] | None:
    defined = [value for value in values if value is not None]
    if not defined or 2 * len(defined) < len(values):
        return None
    return [float(bound) for bound in np.percentile(defined, [2.5, 97.5])]


def _ratio(numerator: float, denominator: float) -> float | None:
    return float(numerator / denominator) if denominator > 0 else None


def _vector(name: str, values: ArrayLike, rows: int | None = None) -> Vector:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "biuf" or rows not in (None, len(array)):
        like = "" if rows is None else f" as long as `labels`, {rows}"
        raise UserError(f"`{name}` must be a 1-D array of numbers{like}. Received: shape {array.shape}, {array.dtype}")
    array = array.astype(np.float64)
    rule, allowed = _RULES[name]
    wrong = np.flatnonzero(~allowed(array))
    if wrong.size:
        raise UserError(f"`{name}` must be {rule}. Received: {array[wrong[0]]} at row {wrong[0]}")
    return array


def _user_codes(users: ArrayLike, rows: int) -> NDArray[np.int64]:
    """The index of each row's user among the sorted distinct users."""
    array = np.asarray(users)
    try:
        if array.shape != (rows,) or (rows and array.dtype.kind not in "iuSUO"):  # a float cannot hold every 64-bit id
            raise TypeError
        return np.unique(array, return_inverse=True)[1].astype(np.int64)
    except TypeError:  # also where Python objects cannot be sorted
        rule = f"`users` must be a 1-D array of integers, strings or bytes as long as `labels`, {rows}"
        raise UserError(f"{rule}. Received: shape {array.shape}, {array.dtype}, {array[:3]}") from None
