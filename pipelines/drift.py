"""How far a column's distribution has moved from another day's: the population stability index."""

import dataclasses

import numpy as np
from scipy.stats import chi2

from pipelines.raw import Column

BINS = 10  # of a number
VALUES = 20  # of a categorical column that have a bin of their own
FLOOR = 1e-4  # the least share of a bin inside the logarithm
_CHANCE = 0.999


@dataclasses.dataclass(frozen=True)
class Bins:
    """Bins that the first day sets.

    - A number with more than 10 distinct values: at most 10 bins (e_b-1, e_b] of equal mass, e_b the first day's
      quantiles b / 10. Equal values share a bin, so heavy ties leave fewer bins; the outer ones are open.
    - Any other column: the 20 most frequent values (of equally frequent ones the lesser), one bin each, and a bin for
      all others. In a list every element counts, and an empty list counts as one value with a bin of its own.

    Attributes:
        edges: the inner bounds of a number's bins, ascending; None for bins by value.
        values: the values that have a bin, ascending.
    """

    edges: np.ndarray | None
    values: np.ndarray

    @classmethod
    def of(cls, first: Column) -> "Bins":
        """Bins from the first day's rows, of which there is at least one."""
        values, counts = np.unique(first.values, return_counts=True)
        if first.values.dtype.kind == "f" and len(values) > BINS:
            inner = np.quantile(first.values, np.arange(1, BINS) / BINS, method="inverted_cdf")
            return cls(np.unique(inner), values[:0])
        return cls(None, np.sort(values[np.argsort(-counts, kind="stable")[:VALUES]]))

    def shares(self, column: Column) -> np.ndarray:
        """(bins,) share of the column's values in each bin; they sum to 1."""
        if self.edges is not None:
            inside = np.bincount(np.searchsorted(self.edges, column.values), minlength=len(self.edges) + 1)
            return inside / inside.sum()
        counts = np.zeros(len(self.values) + 2)  # the frequent values, others, empty lists
        if len(self.values):
            places = np.minimum(np.searchsorted(self.values, column.values), len(self.values) - 1)
            places = np.where(self.values[places] == column.values, places, len(self.values))
            counts += np.bincount(places, minlength=len(counts))
        else:
            counts[0] = len(column.values)
        if column.lengths is not None:
            counts[-1] = np.sum(column.lengths == 0)
        return counts / counts.sum()


def psi(first: np.ndarray, day: np.ndarray) -> float:
    """PSI = sum_b (p_b - q_b) ln(p_b / q_b) in nats; p the day's shares, q the first day's, both at least 1e-4.

    0 for equal shares; by the usual rule of thumb little has changed below .1 and much above .25. Source: Siddiqi
    2006, "Credit Risk Scorecards", on scorecard monitoring.
    """
    p, q = np.maximum(day, FLOOR), np.maximum(first, FLOOR)
    return float(np.sum((p - q) * np.log(p / q)))


def by_chance(first: np.ndarray, day: np.ndarray, first_rows: int, day_rows: int) -> float:
    """What PSI stays below in 999 of 1,000 pairs of samples from one distribution, with these rows.

    PSI is then nearly (1/n + 1/m) times chi-squared with one degree of freedom less than there are bins that are not
    empty in both. Source: Yurdakul and Naranjo 2020, "Statistical properties of the population stability index".
    """
    bins = int(np.sum((first > 0) | (day > 0)))
    return float((1 / first_rows + 1 / day_rows) * chi2.ppf(_CHANCE, bins - 1)) if bins > 1 else 0.0
