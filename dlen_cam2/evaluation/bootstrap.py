"""Variants against a baseline on the same rows: relative change with paired bootstrap intervals."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dlen_cam2.metrics import Weighted, cross_entropy
from dlen_cam2.utils.markdown import markdown

Estimate = tuple[float, float, float]  # the value and its 95% interval
UNDEFINED: Estimate = (float("nan"), float("nan"), float("nan"))
MIN_USERS = 10  # an interval over fewer would say nothing


@dataclasses.dataclass(frozen=True)
class Resamples:
    """Draws of users and of seeds that every comparison shares.

    Users are drawn with replacement and bring all their rows; seeds are drawn with replacement too. Both arms of a
    comparison use the same draw, which is what makes the interval that of the paired difference. Few seeds drawn with
    replacement vary too little, so their departure from equal weight is widened by the ratio of Student's quantile to
    the normal one, and by sqrt(S / (S - 1)). With one seed the interval is over users alone.

    Attributes:
        users: (rows,) the place of each row's user among the distinct users.
        times: (R + 1, users) how often each is drawn; the first draw takes each once.
        halves: (R + 1, users) 1 for a random half of the users, for statistics that do not bear repeated users; the
            first takes all.
        seeds: (R + 1, seeds) the weight of each seed, which add up to their number.
    """

    users: np.ndarray
    times: np.ndarray
    halves: np.ndarray
    seeds: np.ndarray

    @classmethod
    def draw(cls, users: np.ndarray, seeds: int, resamples: int = 500, seed: int = 0) -> "Resamples":
        from scipy.stats import norm, t

        rng = np.random.default_rng(seed)
        distinct, code = np.unique(users, return_inverse=True)

        def draws(count: int, widen: float = 1.0) -> np.ndarray:
            # Each of `count` units as often as it falls in `count` equal draws.
            drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
            return np.concatenate([np.ones((1, count)), 1 + widen * (drawn - 1)])

        few = t.ppf(0.975, seeds - 1) / norm.ppf(0.975) * (seeds / (seeds - 1)) ** 0.5 if seeds > 1 else 1.0
        users_drawn, seeds_drawn = draws(len(distinct)), draws(seeds, few)
        halves = rng.random((resamples + 1, len(distinct))).argsort(axis=1) < -(-len(distinct) // 2)
        halves[0] = True
        return cls(code, users_drawn, halves, seeds_drawn)

    def of(self, rows: np.ndarray) -> "Resamples":
        """The same draws, for a part of the rows."""
        return dataclasses.replace(self, users=self.users[rows])

    def change(self, variant: np.ndarray, baseline: np.ndarray) -> Estimate:
        """`Σ variant / Σ baseline - 1`, the arms (seeds, rows), with its 95% percentile interval.

        Undefined with fewer than 10 users.
        """
        return with_interval(self.changes(variant, baseline))

    def changes(self, variant: np.ndarray, baseline: np.ndarray) -> np.ndarray:
        """(R + 1,): what `change` is an estimate of, in each draw; NaN with fewer than 10 users."""
        if len(np.unique(self.users)) < MIN_USERS:
            return np.full(len(self.times), np.nan)
        arms = []
        for arm in (variant, baseline):
            by_user = np.stack([np.bincount(self.users, row, self.times.shape[1]) for row in arm])
            arms.append(((self.times @ by_user.T) * self.seeds).sum(axis=1))
        return relative(arms[0], arms[1])

    def metrics(self, labels: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
        """{"auc", "gauc", "ne", "calibration"}: (R + 1,) values of one seed's model in every draw of users.

        Args:
            labels, probabilities: (rows,) of one task; the rows are those of the draws, see `of`.
        """
        weighted = Weighted(labels, probabilities, self.users)
        draws = [weighted(times[weighted.users]) for times in self.times]
        return {name: np.array([draw[name] for draw in draws], float) for name in draws[0]}  # None becomes NaN

    def difference(self, variant: np.ndarray, baseline: np.ndarray) -> Estimate:
        """The difference of the means over seeds, with its 95% percentile interval.

        Undefined with fewer than 10 users.

        Args:
            variant, baseline: (seeds, R + 1) values of a metric in every draw, see `metrics`.
        """
        if len(np.unique(self.users)) < MIN_USERS:
            return UNDEFINED
        arms = [(arm.T * self.seeds).sum(axis=1) / len(arm) for arm in (variant, baseline)]
        return with_interval(arms[0] - arms[1])


def estimate(variant: np.ndarray, baseline: np.ndarray) -> Estimate:
    """The relative change of the first entries, and the 95% percentile interval over the others; NaN of nothing."""
    return with_interval(relative(variant, baseline))


def relative(variant: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """`variant / baseline - 1`, not finite where the baseline is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return variant / baseline - 1


def with_interval(values: np.ndarray) -> Estimate:
    """The first entry, and the 95% percentile interval over the others; NaN if it or most of them are undefined."""
    replicates = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]) or 2 * len(replicates) < len(values) - 1:
        return UNDEFINED
    low, high = np.percentile(replicates, [2.5, 97.5]) if len(replicates) else (values[0], values[0])
    return float(values[0]), float(low), float(high)


def over_seeds(values: np.ndarray) -> Estimate:
    """The mean of one value a seed, each of a world of its own, and Student's 95% interval of it; none of one seed."""
    from scipy.stats import t

    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    reach = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return mean, mean - reach, mean + reach


def ne_change(
    labels: np.ndarray, mask: np.ndarray, variant: np.ndarray, baseline: np.ndarray, resamples: Resamples,
    tasks: Sequence[str],
) -> dict[str, Estimate]:
    """Relative change of normalized entropy, `NE(variant) / NE(baseline) - 1`, below 0 is better (CAM2, table 1).

    The entropy of the base rate is that of the same rows and cancels, so a task's change is that of its summed cross
    entropy. DESIGN: the paper does not say how "Tasks NE (Aggregated)" aggregates; here it is the NE of all tasks' rows
    together, `Σ_t Σ_i ce / Σ_t Σ_i entropy`, in which rare tasks weigh as little as they carry.

    Args:
        labels, mask: (rows, T).
        variant, baseline: (seeds, rows, T) probabilities.
        resamples: draws over these rows' users.
        tasks: the T names.

    Returns:
        `{"aggregated": estimate, task: estimate, …}`.
    """
    arms = [cross_entropy(labels, p) * mask for p in (variant, baseline)]
    result = {"aggregated": resamples.change(*(arm.sum(axis=2) for arm in arms))}
    return result | {t: resamples.change(*(arm[:, :, k] for arm in arms)) for k, t in enumerate(tasks)}


def over_rows(
    statistic: Callable[[np.ndarray, np.ndarray], float], variant: Sequence[np.ndarray],
    baseline: Sequence[np.ndarray], resamples: Resamples, limit: int = 200,
) -> Estimate:
    """Relative change of a statistic that is no sum over rows, such as a number of distinct items.

    Drawing users twice would make them fewer, so each replicate takes a random half of the users once, whose spread is
    that of the whole sample; its level is not (half the users show fewer items), so the replicates are moved to have
    the estimate as their mean.

    Args:
        statistic: of (values (rows,), which rows count (rows,)).
        variant, baseline: for each seed the values (rows,) that `statistic` takes.
        resamples: draws over these rows' users.
        limit: at most so many of the draws are used.
    """
    halves = resamples.halves[: limit + 1]
    totals = []
    for arm in (variant, baseline):
        values = np.array([[statistic(row, half[resamples.users]) for row in arm] for half in halves])
        totals.append((values * resamples.seeds[: len(halves)]).sum(axis=1))
    value, low, high = estimate(*totals)
    with np.errstate(divide="ignore", invalid="ignore"):
        replicates = (totals[0] / totals[1] - 1)[1:]
    shift = value - float(np.mean(replicates[np.isfinite(replicates)])) if np.isfinite(value) else 0.0
    return value, low + shift, high + shift


def table(rows: Mapping[str, Mapping[str, Estimate]], head: str) -> str:
    """Estimates in percent as a markdown table, one line for each key of `rows`."""
    columns = list(next(iter(rows.values())))
    return markdown([head, *columns], ([name, *(percent(cells[c]) for c in columns)] for name, cells in rows.items()))


def percent(value: Estimate) -> str:
    """-0.139% [-0.200, -0.080]"""
    if not np.isfinite(value[0]):
        return "undefined"
    change, low, high = (100 * v for v in value)
    return f"{change:+.3f}% [{low:+.3f}, {high:+.3f}]"
