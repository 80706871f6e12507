"""Distribution shift of columns against a reference day: the population stability index."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from scipy.stats import chi2

from dlen_cam2.data import suffix
from dlen_cam2.schema import Schema
from pipelines.checks import growing_counters
from pipelines.checks.findings import PASS, SHOWN, WARN, Finding, Report
from pipelines.writer.stored_rows import Column, Split

BINS = 10  # of a number
VALUES = 20  # of a categorical column that have a bin of their own
FLOOR = 1e-4  # the least share of a bin inside the logarithm
SMALL = 0.25  # of the median split's rows, below which a day is no reference and is not compared
_CHANCE = 0.999


@dataclasses.dataclass(frozen=True)
class Bins:
    """Bins that the reference day determines.

    - A number with more than 10 distinct values has at most 10 bins (e_b-1, e_b] of equal mass, where e_b are that
    day's
      quantiles b / 10. Equal values share a bin, so heavy ties leave fewer bins; the outer bins are open.
    - Any other column has one bin for each of its 20 most frequent values (of equally frequent ones, the lesser) and
    one
      for all others. In a list, every element counts, and an empty list counts as one value with a separate bin.

    Attributes:
        edges: the inner bounds of a number's bins, ascending; None for bins by value.
        values: the values that have a bin, ascending.
    """

    edges: np.ndarray | None
    values: np.ndarray

    @classmethod
    def of(cls, first: Column) -> "Bins":
        """Bins from the rows of the reference day, of which there must be at least one."""
        values, counts = np.unique(first.values, return_counts=True)
        if first.values.dtype.kind == "f" and len(values) > BINS:
            inner = np.quantile(first.values, np.arange(1, BINS) / BINS, method="inverted_cdf")
            return cls(np.unique(inner), values[:0])
        return cls(None, np.sort(values[np.argsort(-counts, kind="stable")[:VALUES]]))

    def shares(self, column: Column) -> np.ndarray:
        """The share of the column's values in each bin, (bins,); the shares sum to 1."""
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
    """PSI = sum_b (p_b - q_b) ln(p_b / q_b) in nats; p the day's shares, q the reference's, both at least 1e-4.

    It is 0 for equal shares. By the usual rule of thumb, little has changed below .1 and much above .25. Source:
    Siddiqi 2006, "Credit Risk Scorecards", on scorecard monitoring.
    """
    p, q = np.maximum(day, FLOOR), np.maximum(first, FLOOR)
    return float(np.sum((p - q) * np.log(p / q)))


def by_chance(first: np.ndarray, day: np.ndarray, first_rows: int, day_rows: int) -> float:
    """The bound below which PSI stays in 999 of 1,000 pairs of samples of these sizes from the same distribution.

    PSI is then nearly (1/n + 1/m) times chi-squared, with one degree of freedom fewer than there are bins that are not
    empty in both. Source: Yurdakul and Naranjo 2020, "Statistical properties of the population stability index".
    """
    bins = int(np.sum((first > 0) | (day > 0)))
    return float((1 / first_rows + 1 / day_rows) * chi2.ppf(_CHANCE, bins - 1)) if bins > 1 else 0.0


@dataclasses.dataclass(frozen=True)
class Move:
    """A feature on the split where it is farthest from the reference, and on how many splits it exceeds the limit."""

    feature: str
    split: str
    psi: float
    reference: str
    first: str
    above: int
    compared: int

    @property
    def text(self) -> str:
        since = f", first on {self.first}" if self.above > 1 else ""
        return (f"{self.feature!r} on {self.split}: {self.psi:.2f} against {self.reference} "
                f"(above the limit on {self.above} of {self.compared} splits{since})")


class Tracker:
    """Tracks the drift of all features, given one split after another.

    Splits with the same suffix are compared with their reference, the first of them. A day is neither a reference nor
    compared if it has less than a quarter of the rows of the median split: in a log that starts at ten to midnight, the
    first day has a few rows, which say nothing about a day. Other splits, such as "test", may have any size.

    Args:
        schema: what the columns are.
        rows: the number of rows of every split of the data set, in order.

    Attributes:
        references: the reference of each suffix.
        small: the days that were too small, with their number of rows.
        psi: the PSI by feature and split.
    """

    def __init__(self, schema: Schema, rows: Mapping[str, int]):
        self.references: dict[str, str] = {}
        self.small: dict[str, int] = {}
        self.psi: dict[str, dict[str, float]] = {f.name: {} for f in schema.features}
        self._features = schema.features
        self._first: dict[str, tuple[int, dict[str, tuple[Bins, np.ndarray]]]] = {}
        self._chance: dict[tuple[str, str], float] = {}
        self._levels: dict[tuple[str, str], list[np.ndarray | None]] = {}
        groups: dict[str, list[int]] = {}
        for name, count in rows.items():
            groups.setdefault(suffix(name), []).extend([count] if count else [])
        self._least = {s: SMALL * float(np.median(counts)) for s, counts in groups.items() if counts}

    def add(self, name: str, split: Split) -> None:
        """Compare a split that has rows, or make it the reference of its suffix."""
        kind = suffix(name)
        if name.partition("_")[0].isdecimal() and split.rows < self._least.get(kind, 0.0):
            self.small[name] = split.rows
            return
        for feature in self._features:
            found = growing_counters.levels(feature, split.columns[feature.name].values)
            self._levels.setdefault((feature.name, kind), []).append(found)
        if kind not in self.references:
            bins = {f.name: Bins.of(split.columns[f.name]) for f in self._features}
            self.references[kind] = name
            self._first[kind] = split.rows, {n: (b, b.shares(split.columns[n])) for n, b in bins.items()}
            return
        rows, shares = self._first[kind]
        for column, (bins_of, before) in shares.items():
            now = bins_of.shares(split.columns[column])
            self.psi[column][name] = psi(before, now)
            self._chance[column, name] = by_chance(before, now, rows, split.rows)

    def moves(self, limit: float) -> tuple[list[Move], list[Move]]:
        """Features above `limit` and beyond chance, the farthest first; separately, those that only grow, as counters
        do.

        A feature that grows on the splits of one suffix and drifts on those of another is in both lists.
        """
        drifted: list[Move] = []
        growing: list[Move] = []
        for feature, values in self.psi.items():
            grown = {kind for kind in self.references if self._grows(feature, kind)}
            if "" in grown:  # then also on random exposures, of which a day has too few to show it
                grown |= {kind for kind in self.references if self._risen(feature, kind)}
            for moves, names in ((drifted, [n for n in values if suffix(n) not in grown]),
                                 (growing, [n for n in values if suffix(n) in grown])):
                above = [n for n in names if values[n] > max(limit, self._chance[feature, n])]
                if above:
                    worst = max(above, key=values.__getitem__)
                    reference = self.references[suffix(worst)]
                    moves.append(Move(feature, worst, values[worst], reference, above[0], len(above), len(names)))
        return sorted(drifted, key=lambda m: -m.psi), sorted(growing, key=lambda m: -m.psi)

    def _risen(self, feature: str, kind: str) -> bool:
        days = [d for d in self._levels[feature, kind] if d is not None]
        return len(days) == len(self._levels[feature, kind]) and days[-1][0] >= days[0][0]

    def _grows(self, feature: str, kind: str) -> bool:
        days = [d for d in self._levels[feature, kind] if d is not None]
        return len(days) == len(self._levels[feature, kind]) and growing_counters.grows(np.stack(days))


def check(report: Report, tracker: Tracker, limit: float) -> None:
    """Report features that moved, one fault each; counts that grow with the log are named separately, as no fault."""
    report.psi, report.references = {f: v for f, v in tracker.psi.items() if v}, tracker.references
    small = ""
    if tracker.small:
        names = [f"{name} ({rows:,} rows)" for name, rows in tracker.small.items()]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        small = f"; left out as too small: {', '.join(names[:SHOWN])}{more}"
    if not report.psi:
        report.unchecked("drift", f"no split has an earlier one of its suffix to compare with{small}")
        return
    drifted, growing = tracker.moves(limit)
    report.growing = tuple(sorted({m.feature for m in growing} - {m.feature for m in drifted}))
    references = ", ".join(tracker.references.values())
    report.add("drift", WARN, f"PSI of {len(report.psi)} features against {references} with the limit {limit:g}{small}",
               [m.text for m in drifted])
    if growing:
        found = f"{len(growing)} counts above the limit rise steadily, as counts do while a log grows"
        report.findings.append(Finding("growing counters", PASS, found, tuple(m.text for m in growing)))
