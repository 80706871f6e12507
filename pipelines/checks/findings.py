"""The findings of the checks: `pipelines.check` fills a `Report`, and `pipelines.checks.html_page` draws it."""

import dataclasses
from collections.abc import Sequence

PASS, WARN, FAIL = "PASS", "WARN", "FAIL"
SHOWN = 3  # faults of a check on its line; the page has all


@dataclasses.dataclass(frozen=True)
class Finding:
    """The finding of one check: its name, PASS, WARN or FAIL, a sentence, every fault, and how many of them to show."""

    check: str
    status: str
    found: str
    faults: tuple[str, ...] = ()
    shown: int = SHOWN

    @property
    def line(self) -> str:
        more = f" and {len(self.faults) - self.shown} more" if len(self.faults) > self.shown else ""
        return f"{self.status}  {self.check:<17}  " + "; ".join([self.found, *self.faults[:self.shown]]) + more


@dataclasses.dataclass
class Report:
    """All findings; splits are in the order of `statistics.json`, and only those that could be read.

    Attributes:
        findings: one finding for each check.
        rates: (rows, positives) by task and split, in the task's sample space.
        psi: the PSI by feature and split, against the reference of the split's suffix.
        references: for each suffix, the split with which the others with this suffix are compared.
        growing: features whose only drift is a count's growth with the log.
        aucs: single-feature AUC by task and feature, of `sampled` rows.
    """

    directory: str
    findings: list[Finding] = dataclasses.field(default_factory=list)
    rates: dict[str, dict[str, tuple[int, int]]] = dataclasses.field(default_factory=dict)
    psi: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    references: dict[str, str] = dataclasses.field(default_factory=dict)
    growing: tuple[str, ...] = ()
    aucs: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    sampled: int = 0

    @property
    def failed(self) -> bool:
        return any(f.status == FAIL for f in self.findings)

    def add(self, check: str, status: str, found: str, faults: Sequence[str] = (), shown: int = SHOWN) -> None:
        """Record a finding; `status` applies if there are faults, and without faults the check passes."""
        self.findings.append(Finding(check, status if faults else PASS, found, tuple(faults), shown))

    def unchecked(self, check: str, why: str) -> None:
        self.findings.append(Finding(check, WARN, f"not checked: {why}"))
