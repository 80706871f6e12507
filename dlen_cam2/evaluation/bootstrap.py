"""Comparison of variants with a baseline on the same rows: relative changes, paired intervals over users and seeds."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.stats import t

from dlen_cam2.metrics import Weighted, cross_entropy
from dlen_cam2.utils.markdown import markdown

Estimate = tuple[float, float, float]  # the value and its 95% interval
UNDEFINED: Estimate = (float("nan"), float("nan"), float("nan"))
MIN_USERS = 10  # an interval over fewer would say nothing


@dataclasses.dataclass(frozen=True)
class Resamples:
    """Bootstrap draws of users that every comparison shares.

    Users are drawn with replacement, with all their rows. Both arms of a comparison use the same draw, so the interval
    is that of the paired difference; for the contribution of seeds, see `interval`.

    Attributes:
        users: (rows,) the index of each row's user among the distinct users.
        times: (R + 1, users) how often each user is drawn; the first draw takes each user once.
        halves: (R + 1, users) 1 for a random half of the users, for statistics that cannot have repeated users; the
            first takes all of them.
    """

    users: np.ndarray
    times: np.ndarray
    halves: np.ndarray

    @classmethod
    def draw(cls, users: np.ndarray, resamples: int = 500, seed: int = 0) -> "Resamples":
        rng = np.random.default_rng(seed)
        distinct, code = np.unique(users, return_inverse=True)
        count = len(distinct)
        # Each user as often as it falls in as many equal draws as there are users.
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
        halves = rng.random((resamples + 1, count)).argsort(axis=1) < -(-count // 2)
        halves[0] = True
        return cls(code, np.concatenate([np.ones((1, count)), drawn]), halves)

    def of(self, rows: np.ndarray) -> "Resamples":
        """The same draws, restricted to a part of the rows."""
        return dataclasses.replace(self, users=self.users[rows])

    def change(self, variant: np.ndarray, baseline: np.ndarray) -> Estimate:
        """The relative change `Σ variant / Σ baseline - 1`, with its 95% interval; the arms are (seeds, rows).

        The result is undefined with fewer than 10 users.
        """
        return self.interval(self.changes(variant, baseline))

    def changes(self, variant: np.ndarray, baseline: np.ndarray) -> np.ndarray:
        """The values (seeds, R + 1) from which `change` computes its interval."""
        arms = []
        for arm in (variant, baseline):
            by_user = np.stack([np.bincount(self.users, row, self.times.shape[1]) for row in arm])
            arms.append(by_user @ self.times.T)
        return relative(arms[0], arms[1])

    def interval(self, values: np.ndarray) -> Estimate:
        """The `interval` of values (seeds, R + 1) in these draws; undefined with fewer than 10 users."""
        users = len(np.unique(self.users))
        return interval(values, users) if users >= MIN_USERS else UNDEFINED

    def metrics(self, labels: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
        """The metrics of one seed's model in every draw of users: {"auc", "gauc", "ne", "calibration"}, (R + 1,) each.

        Args:
            labels, probabilities: (rows,), for one task; the rows are those of the draws, see `of`.
        """
        weighted = Weighted(labels, probabilities, self.users)
        draws = [weighted(times[weighted.users]) for times in self.times]
        return {name: np.array([draw[name] for draw in draws], float) for name in draws[0]}  # None becomes NaN

    def difference(self, variant: np.ndarray, baseline: np.ndarray) -> Estimate:
        """The difference of the means over seeds, with its 95% interval.

        The result is undefined with fewer than 10 users.

        Args:
            variant, baseline: (seeds, R + 1) values of a metric in every draw, see `metrics`.
        """
        return self.interval(variant - baseline)


def relative(variant: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Each seed's contribution (seeds, R + 1) to the relative change of sums over seeds; the arms are (seeds, R + 1).

    Its mean over seeds is `Σ variant / Σ baseline - 1` in the first draw and, with the sums of that draw, in every
    other one. It is not finite where the baseline is 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = variant[:, 0].sum() / baseline[:, 0].sum() - 1
        return whole + len(variant) * (variant - (1 + whole) * baseline) / baseline.sum(axis=0)


def interval(values: np.ndarray, users: int) -> Estimate:
    """The mean over seeds of the first column, and its 95% interval over users and seeds.

        V = max(V_users - V_both, 0) + V_seeds

    V_users is the variance of the mean over draws of users, and V_seeds that over seeds. Each includes V_both, the
    noise of a user with a seed, which the difference removes once (CERTAIN, for crossed random effects). DESIGN:
    V_seeds stays whole and V_users gives way, so V is never negative. The quantile is Student's with Satterthwaite's
    degrees of freedom, in which V_seeds counts as no less than V_both, its least true value: otherwise a few seeds that
    happen to agree would promise too many degrees of freedom.

    Where there is no effect, 3% to 7% of the intervals exclude zero, for 3, 5 and 10 seeds
    (`tests/experiments/test_comparisons.py`). They are widest (97% at 3 seeds) where all noise is V_both, since
    V_users - V_both is then not 0 but its positive part, and narrowest (93% at 3 seeds) where V_both is 0 and seeds
    make up three quarters of V. With one seed, the interval is over users alone, from percentiles of the draws.

    Args:
        values: (seeds, R + 1), the value in every draw of users; the first draw is all users.
        users: the number of users.

    Returns:
        NaN if the mean, or that of most draws, is undefined.
    """
    seeds, means = len(values), values.mean(axis=0)
    value, defined = float(means[0]), np.isfinite(means[1:])
    if not np.isfinite(value) or 2 * defined.sum() < defined.size:
        return UNDEFINED
    draws, means = values[:, 1:][:, defined], means[1:][defined]
    if len(means) < 2:
        return value, value, value
    if seeds == 1:
        low, high = np.percentile(means, [2.5, 97.5])
        return value, float(low), float(high)
    of_draws = users / (users - 1)  # a drawn user is one of those there are, whose variance is less by that
    by_users = of_draws * means.var(ddof=1)
    both = of_draws * (draws - means).var(axis=1, ddof=1).sum() / (seeds * (seeds - 1))
    by_seeds = values[:, 0].var(ddof=1) / seeds
    users_alone, least = max(by_users - both, 0.0), max(by_seeds, both)
    if not users_alone + by_seeds:
        return value, value, value
    freedom = (users_alone + least) ** 2 / (
        by_users**2 / (users - 1) + least**2 / (seeds - 1) + both**2 / ((users - 1) * (seeds - 1))
    )
    reach = float(t.ppf(0.975, freedom) * (users_alone + by_seeds) ** 0.5)
    return value, value - reach, value + reach


def over_seeds(values: np.ndarray) -> Estimate:
    """The mean of one value for each seed, where each seed is a separate world, and its Student 95% interval.

    There is no interval for a single seed.
    """
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
    """The relative change of normalized entropy, `NE(variant) / NE(baseline) - 1`; below 0 is better (CAM2, table 1).

    The entropy of the base rate is the same in both arms and cancels, so the change of a task is that of its summed
    cross entropy. DESIGN: the paper does not say how "Tasks NE (Aggregated)" aggregates. Here it is the NE of all
    tasks' rows together, `Σ_t Σ_i ce / Σ_t Σ_i entropy`, in which rare tasks weigh as little as they contribute.

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
    """The relative change of a statistic that is not a sum over rows, such as a number of distinct items.

    Drawing users repeatedly would leave fewer distinct ones. Instead, each replicate takes a random half of the users
    once. The spread of the replicates is that of the whole sample; their level is not (half of the users show fewer
    items), so the replicates are shifted to have the estimate as their mean.

    Args:
        statistic: a function of (values (rows,), which rows count (rows,)).
        variant, baseline: for each seed, the values (rows,) that `statistic` takes.
        resamples: draws over these rows' users.
        limit: the largest number of draws to use.
    """
    halves = resamples.halves[: limit + 1]
    totals = [
        np.array([[statistic(row, half[resamples.users]) for half in halves] for row in arm])
        for arm in (variant, baseline)
    ]
    changes = relative(totals[0], totals[1])
    means = changes.mean(axis=0)
    defined = np.isfinite(means[1:])
    if defined.any():
        changes[:, 1:] += means[0] - means[1:][defined].mean()
    return resamples.interval(changes)


def table(rows: Mapping[str, Mapping[str, Estimate]], head: str) -> str:
    """A markdown table of estimates in percent, with one line for each key of `rows`."""
    columns = list(next(iter(rows.values())))
    return markdown([head, *columns], ([name, *(percent(cells[c]) for c in columns)] for name, cells in rows.items()))


def percent(value: Estimate) -> str:
    """The estimate as text, such as "-0.139% [-0.200, -0.080]"."""
    if not np.isfinite(value[0]):
        return "undefined"
    change, low, high = (100 * v for v in value)
    return f"{change:+.3f}% [{low:+.3f}, {high:+.3f}]"
