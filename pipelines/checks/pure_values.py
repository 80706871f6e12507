"""Finds values that give a label away in few rows: a flag that is 1 for some buyers and for no one else."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from scipy.stats import beta

from dlen_cam2.schema import Feature, Schema, Task
from pipelines.checks.coded_column import Coded
from pipelines.writer.stored_rows import Column

LEAST = 20  # rows of a value
PURE = 0.98  # the share of its rows that have the same label
COVERED = 0.0025  # the share of all rows with this label that have the value
ODDS = 3.0  # times the odds of the base rate
ERROR = 0.001  # chance of naming a feature by accident
CODES = 20  # distinct values up to which a number may stand for a category
EDGE = 0.1  # of a tail's rows, on either side of its end
EDGE_PURE = 0.95
SPREAD = 10  # users, and items; half of them where there are fewer than 20
# A label that is this common says little where it is pure: for positives and for negatives.
COMMON = {True: 2 / 3, False: 1 / 2}
_Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]
_Found = tuple[str, int, int, int]  # words for the rows, how many other values, rows, hits


@dataclasses.dataclass(frozen=True)
class Pure:
    """A value, or a tail of a number, whose rows have one label.

    Attributes:
        feature, task: the feature that gives the task away.
        values: the rows, in words: "= 1", "> 0", "with 'x'".
        others: the number of further values of the feature that are as pure.
        rows: the number of these rows, among `total` rows of the task's sample space.
        share: the share of these rows that are positives (negatives if not `positive`); `base` is that of all rows.
        covered: the share of the positives (negatives) that are among these rows.
    """

    feature: str
    task: Task
    values: str
    others: int
    rows: int
    total: int
    share: float
    base: float
    covered: float
    positive: bool

    @property
    def text(self) -> str:
        more = f" (and {self.others} other value{'s' if self.others > 1 else ''} like it)" if self.others else ""
        where = f" where {self.task.mask!r} is 1" if self.task.mask else ""
        return (
            f"{self.feature!r} {self.values}{more} in {self.rows:,} rows ({percent(self.rows / self.total)}), "
            f"{percent(self.share)} of them {'positives' if self.positive else 'negatives'} of {self.task.name!r} "
            f"({percent(self.base)} in all rows{where})"
        )


class Spread:
    """The users and items of rows. What a few of them, or exactly these, always do is their habit, not a leak."""

    def __init__(self, schema: Schema, sample: Mapping[str, Column]):
        self._keys = []
        for role in ("user", "item"):
            if role in schema.keys:
                known, codes = np.unique(sample[schema.keys[role]].values, return_inverse=True)
                self._keys.append((codes, len(known), min(SPREAD, -(-len(known) // 2))))

    def wide(self, rows: np.ndarray, groups: np.ndarray, count: int, hit: np.ndarray, use: np.ndarray) -> np.ndarray:
        """Which groups of rows, (count,), belong to many users and items that otherwise behave like the others.

        Args:
            rows, groups: (pairs,), a row and its group; a row may be in several groups.
            count: the number of groups, which are numbered 0 to count - 1.
            hit: (all rows,), the rows with the label that the groups give away.
            use: (all rows,), the rows to examine.
        """
        result = np.ones(count, bool)
        base = hit[use].mean()
        for codes, size, least in self._keys:
            pairs, places, n = np.unique(groups * size + codes[rows], return_inverse=True, return_counts=True)
            group, key = pairs // size, pairs % size
            result &= np.bincount(group, minlength=count) >= least
            others = np.bincount(codes[use], minlength=size)[key] - n
            others_hit = np.bincount(codes[use & hit], minlength=size)[key] - np.bincount(places, hit[rows])
            known = np.flatnonzero(others)
            weights = np.bincount(group[known], n[known], count)
            habit = np.bincount(group[known], n[known] * others_hit[known] / others[known], count)
            result &= (weights < LEAST) | (habit <= weights * (1 + base) / 2)
        return result


def pure(feature: Feature, coded: Coded, task: Task, labels: np.ndarray, use: np.ndarray,
         spread: Spread) -> Pure | None:
    """The value or tail of a feature that gives most of a task's positives (or negatives) away, if there is one.

    The candidates are each value with at least 20 rows (for numbers, if there are at most 20 values), all rows without
    the most frequent value (for a list, all that are not empty), and for numbers and ids the rows above, and below,
    each value. Labels choose none of them, so it is enough to correct the bound below for their number m. Rows, n with
    k positives, give the label away if

        k / n >= .98,    k >= .0025 K,    odds(l) >= 3 odds(base),    l = Beta^-1(.001 / m; k, n - k + 1)

    where K is the number of positives of all rows and l the Clopper-Pearson lower bound of k / n at confidence
    1 - .001 / m. Also:

    - A tail must end sharply. Of n / 10 rows (at least 20) on the inner side of its end, at least 95% must be
    positives,
      and of as many on the outer side, at most (1 + base) / 2. The end of a good feature is pure too, but fades out.
    - The rows must be those of 10 users and 10 items whose other rows are positives at a mean rate of at most
      (1 + base) / 2. Some users and items have one label only, and many columns identify them or count what they do.
      (Users who click on everything and call themselves "bot" are reported: they are no leak, but good to know.)

    The same applies to negatives. Positives are tried where at most two thirds of the rows are positives, negatives
    only where they are the minority: that something never happens mostly means that it could not happen, such as a
    click where there is nothing to click on.

    Args:
        feature: the feature.
        coded: its values.
        task: the task.
        labels: (rows,) 0 or 1.
        use: (rows,), the task's sample space.
        spread: users and items of the rows.
    """
    total, positives = int(use.sum()), int(labels[use].sum())
    found = []
    for positive, among in ((True, positives), (False, total - positives)):
        base = among / total
        if 0 < base <= COMMON[positive]:
            for words, others, rows, hits in _candidates(feature, coded, labels == positive, use, base, spread):
                found.append(Pure(feature.name, task, words, others, rows, total, hits / rows, base, hits / among,
                                  positive))
    return max(found, key=lambda p: p.covered, default=None)


def _candidates(feature: Feature, coded: Coded, hit: np.ndarray, use: np.ndarray, base: float,
                spread: Spread) -> Iterator[_Found]:
    """The candidates: the value, the tails and the rest that give `hit` away."""
    rows, codes = coded.distinct
    inside = use[rows]
    rows, codes = rows[inside], codes[inside]
    n = np.bincount(codes, minlength=coded.size)
    k = np.bincount(codes[hit[rows]], minlength=coded.size)
    total, hits = int(use.sum()), int(hit[use].sum())
    top = coded.empty if coded.is_list else int(n.argmax())
    tails = feature.dtype != "string" and not coded.is_list
    tried = int(np.sum(n >= LEAST)) + 1 + 2 * tails * int(np.sum(n > 0))

    def passes(n: np.ndarray, k: np.ndarray) -> np.ndarray:
        passed = (n >= LEAST) & (k >= PURE * n) & (k >= COVERED * hits)
        lower = beta.ppf(ERROR / tried, k[passed], n[passed] - k[passed] + 1)
        passed[passed] = lower * (1 - base) >= ODDS * base * (1 - lower)
        return passed

    values = np.flatnonzero(passes(n, k)) if not feature.is_numeric or np.sum(n > 0) <= CODES else np.zeros(0, int)
    if len(values):
        of_them = np.isin(codes, values)
        values = values[spread.wide(rows[of_them], np.searchsorted(values, codes[of_them]), len(values),
                                    hit, use)]
    if len(values):
        best = values[k[values].argmax()]
        yield _value(coded, best), len(values) - 1, int(n[best]), int(k[best])
    if tails:
        held = np.flatnonzero(n)
        for sign, order in ((">", held[::-1]), ("<", held)):
            ends, found = np.cumsum(n[order]), np.cumsum(k[order])
            sharp = [i for i in np.flatnonzero(passes(ends, found)).tolist() if _sharp(ends, found, i, base)]
            for i in sharp[-1:]:
                tail = rows[np.isin(codes, order[: i + 1])]
                if spread.wide(tail, np.zeros_like(tail), 1, hit, use)[0]:
                    yield f"{sign} {_shown(coded.known[order[i + 1]])}", 0, int(ends[i]), int(found[i])
    if n[top] and passes(np.array([total - n[top]]), np.array([hits - k[top]]))[0]:
        rest = use.copy()
        rest[rows[codes == top]] = False
        rest_rows = np.flatnonzero(rest)
        if spread.wide(rest_rows, np.zeros_like(rest_rows), 1, hit, use)[0]:
            words = "not empty" if coded.is_list else f"other than {_shown(coded.known[top])}"
            yield words, 0, len(rest_rows), int(hits - k[top])


def _sharp(ends: np.ndarray, hits: np.ndarray, i: int, base: float) -> bool:
    """Whether purity ends with the tail of the first i + 1 values; `ends` and `hits` count rows up to each value."""
    wide = max(LEAST, EDGE * ends[i])
    before = np.searchsorted(ends, ends[i] - wide, side="right") - 1  # the last value inside of the inner edge; or -1
    after = min(np.searchsorted(ends, ends[i] + wide), len(ends) - 1)
    if after <= i:
        return False
    inner_rows, inner_hits = (ends[i] - ends[before], hits[i] - hits[before]) if before >= 0 else (ends[i], hits[i])
    outer = (hits[after] - hits[i]) / (ends[after] - ends[i])
    return bool(inner_hits >= EDGE_PURE * inner_rows and outer <= (1 + base) / 2)


def _value(coded: Coded, code: int) -> str:
    if code == coded.empty:
        return "empty"
    return f"{'with' if coded.is_list else '='} {_shown(coded.known[code])}"


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        text = value.decode("utf-8", "replace")
        return repr(text if len(text) <= 40 else text[:39] + "…")
    return f"{value:.6g}" if isinstance(value, np.floating) else str(value)


def percent(share: float) -> str:
    """A share as a percentage, with two digits where it is below a tenth of a percent."""
    return f"{share:.1%}" if share >= 0.001 or not share else f"{100 * share:.2g}%"
