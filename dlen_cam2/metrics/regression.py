"""Metrics of regression tasks, such as watch seconds."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from dlen_cam2.metrics.binary import _interval
from dlen_cam2.utils.errors import UserError


def regression_metrics(
    labels: ArrayLike, predictions: ArrayLike, users: ArrayLike, bootstrap: int = 200, seed: int = 0
) -> dict[str, Any]:
    """Every metric of one regression task, with 95% percentile intervals from a bootstrap over users.

        MAE = mean |y - ŷ|    RMSE = √mean (y - ŷ)²    rank correlation: Spearman's ρ, ties at their mean rank

    MAE and RMSE are in the label's unit. "calibration" is Σ ŷ / Σ y, as for a binary task. A replicate draws as many
    users as there are, see `task_metrics`; an interval is None without replicates. Undefined values are None: all
    without rows, ρ if labels or predictions are all equal, the calibration if the labels sum to 0.

    Args:
        labels, predictions: (N,), finite.
        users: (N,), the user of each row.
        bootstrap: number of replicates.
        seed: seed of the draws.

    Returns:
        {"rows", "mean" (of labels), "mae", "rmse", "rank_correlation", "calibration",
        "intervals": {"mae", "rank_correlation": [low, high] or None}}: plain Python, ready for JSON.

    Raises:
        UserError: a number is not finite, or lengths differ.

    >>> found = regression_metrics([1, 2, 4], [1, 3, 3], [0, 1, 2], bootstrap=0)
    >>> round(found["mae"], 4), found["calibration"]
    (0.6667, 1.0)
    """
    y, p = (np.asarray(values, np.float64) for values in (labels, predictions))
    codes = np.unique(np.asarray(users), return_inverse=True)[1]
    if not len(y) == len(p) == len(codes):
        raise UserError(f"there must be a prediction and a user for each label. Received: {len(y)} labels, {len(p)} "
                        f"predictions, {len(codes)} users.")
    if not np.isfinite(y).all() or not np.isfinite(p).all():
        raise UserError("labels and predictions must be finite. Received: NaN or infinite values.")
    point = _metrics(y, p)
    count = int(codes.max()) + 1 if len(codes) else 0
    rng = np.random.default_rng(seed)
    order = np.argsort(codes, kind="stable")
    rows_of = np.split(order, np.cumsum(np.bincount(codes, minlength=count))[:-1]) if count else []
    replicates = []
    for _ in range(bootstrap if count > 1 else 0):
        rows = np.concatenate([rows_of[user] for user in rng.integers(count, size=count)])
        replicates.append(_metrics(y[rows], p[rows]))
    intervals = {name: _interval([each[name] for each in replicates]) for name in ("mae", "rank_correlation")}
    return {"rows": len(y), **point, "intervals": intervals}


def _metrics(y: np.ndarray, p: np.ndarray) -> dict[str, float | None]:
    if not len(y):
        return dict.fromkeys(("mean", "mae", "rmse", "rank_correlation", "calibration"))
    varied = len(y) > 1 and y.min() < y.max() and p.min() < p.max()
    return {
        "mean": float(y.mean()), "mae": float(np.abs(y - p).mean()), "rmse": float(np.sqrt(np.square(y - p).mean())),
        "rank_correlation": float(stats.spearmanr(y, p).statistic) if varied else None,
        "calibration": float(p.sum() / y.sum()) if y.sum() else None,
    }
