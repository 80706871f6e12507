"""Tells counters that grow as counters do while a log goes on from those that fall or jump."""

import numpy as np

from dlen_cam2.schema import Feature

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)  # quantiles that must rise with the mean
_DAYS = 3  # two days tell no growth from a jump
_FALL = 1 / 3  # of the whole rise that a day may lie below the highest before it
_HASTE = 2.0  # times the rise of a count at a steady rate; more is a jump
_LEAST_STEP = 0.15  # in log(1 + count): what changes from day to day by who comes
_REST = 0.1  # of the rise (of a rise above 1: in absolute terms) that must be outside of its greatest step


def levels(feature: Feature, values: np.ndarray) -> np.ndarray | None:
    """The mean and quantiles of log(1 + value) on a day; None if the feature is not a count.

    A count is a numeric feature with the cause "statistical" that is not a rate (transform "logit"). Its values are at
    least 0, and whole numbers unless its transform is "log1p".
    """
    if not feature.is_numeric or feature.cause != "statistical" or feature.transform == "logit" or not len(values):
        return None
    if values.min() < 0 or (feature.transform != "log1p" and np.any(values != np.floor(values))):
        return None
    logs = np.log1p(values.astype(np.float64))
    return np.array([logs.mean(), *np.quantile(logs, LEVELS)])


def natural(day: int) -> float:
    """The rise of the mean log from day `day` - 1 to `day` of a count that starts at 0 and grows at a steady rate.

        l_k = integral of log t over (k - 1, k) = k log k - (k - 1) log(k - 1) - 1,    rise_k = l_k - l_{k-1}

    The rises are 1.39, .52, .34, .25, … from the second day on. A count that began before the log rises less.
    """
    k = np.arange(day - 2, day + 1, dtype=np.float64)
    before, last, now = k * np.log(np.maximum(k, 1))
    return float(now - 2 * last + before)


def grows(days: np.ndarray) -> bool:
    """Whether the drift of a count is nothing but growth.

    It is if, over at least 3 days, the mean m_d of log(1 + count) ends above its start by R > 0, and

    - it never falls: m_d is at most R / 3 below the highest mean before, and no quantile is below its own highest by
      more than R / 3, more than .15 and more than one count at once;
    - it does not jump: m_d - m_{d-1} is at most twice `natural(d)` or .15; on the second day it may be anything, if at
      least half of the first day's counts are 0;
    - it continues: without its greatest step, there remains a tenth of R (.1 if R is above 1).

    Args:
        days: (days, 1 + quantiles) `levels` of the reference and of the days after it.
    """
    mean = days[:, 0]
    rise = mean[-1] - mean[0]
    if len(days) < _DAYS or rise <= 0:
        return False
    highest = np.maximum.accumulate(days)
    fallen = highest - days > _FALL * rise
    fallen[:, 1:] &= (highest - days)[:, 1:] > _LEAST_STEP
    fallen[:, 1:] &= (np.expm1(highest) - np.expm1(days))[:, 1:] > 1 + 1e-6
    steps = np.diff(mean)
    most = np.array([max(_HASTE * natural(d), _LEAST_STEP) for d in range(2, len(days) + 1)])
    if days[0, 1 + LEVELS.index(0.5)] == 0:
        most[0] = np.inf
    return bool(not fallen.any() and np.all(steps <= most) and rise - steps.max() >= _REST * min(rise, 1))
