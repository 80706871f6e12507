"""Slices of the evaluated rows by item age, popularity and user activity, and measures of what a ranking shows."""

from collections.abc import Mapping

import numpy as np

AGE_EDGES = (0.0, 1.0, 3.0, 10.0)  # days since upload (CAM2, table 2)
LOW_ACTIVITY = (1, 2)  # active days of the last 28 (CAM2, section 3.3)


def by_age(age: np.ndarray) -> dict[str, np.ndarray]:
    """Masks of rows by the item's age in days: [0, 1), [1, 3), [3, 10), [10, inf) (CAM2, table 2). `{name: mask}`."""
    place = np.searchsorted(AGE_EDGES, age, side="right") - 1
    names = [f"[{low:g}, {high:g}) d" for low, high in zip(AGE_EDGES[:-1], AGE_EDGES[1:], strict=True)]
    return {name: place == i for i, name in enumerate([*names, f">= {AGE_EDGES[-1]:g} d"])}


def by_decile(popularity: np.ndarray) -> dict[str, np.ndarray]:
    """Masks of rows by decile of item popularity, least first; equal popularity shares a decile. `{name: mask}`."""
    _, inverse, rows = np.unique(popularity, return_inverse=True, return_counts=True)
    twice_mid_rank = 2 * np.cumsum(rows) - rows
    place = (twice_mid_rank * 10 // (2 * max(len(popularity), 1)))[inverse]
    return {f"decile {i + 1}": place == i for i in range(10)}


def by_activity(users: np.ndarray, active: Mapping[int, int]) -> dict[str, np.ndarray]:
    """Masks of the rows of low-activity users (1 or 2 active days before the measured ones) and of all other users.

    CERTAIN (CAM2, section 3.3): 1 to 2 active days of the last 28, frozen before the test. `{name: mask}`.
    """
    days = np.array([active.get(user, 0) for user in users])
    low = (days >= LOW_ACTIVITY[0]) & (days <= LOW_ACTIVITY[1])
    return {"low-activity users": low, "not seen before": days == 0, "active users": days > LOW_ACTIVITY[1]}


def top_k(users: np.ndarray, scores: np.ndarray, k: int) -> np.ndarray:
    """A mask of the `k` rows with the highest score of each user; ties go to the earlier row."""
    order = np.lexsort((np.arange(len(users)), -scores, users))
    sorted_users = users[order]
    start = np.flatnonzero(np.r_[True, sorted_users[1:] != sorted_users[:-1]]) if len(users) else np.zeros(0, int)
    rank = np.arange(len(users)) - np.repeat(start, np.diff(np.r_[start, len(users)]))
    mask = np.zeros(len(users), bool)
    mask[order] = rank < k
    return mask


def concentration(items: np.ndarray, engagement: np.ndarray, share: float) -> int:
    """The smallest number of items that make up `share` of the engagement (CAM2, section 3.3); 0 without engagement.

    >>> concentration(np.array([7, 8, 7, 9]), np.array([1.0, 1.0, 2.0, 1.0]), 0.5)
    1
    """
    totals = np.sort(np.bincount(np.unique(items, return_inverse=True)[1], engagement))[::-1]
    total = totals.sum()
    # A share of the very total may miss it by rounding.
    return int(np.searchsorted(np.cumsum(totals), share * total * (1 - 1e-12)) + 1) if total > 0 else 0
