"""PLE's public table: multi-task models against single-task ones, on Census-Income's pairs or any other log."""

from dlen_cam2.report import markdown
from dlen_cam2.suites import tables
from dlen_cam2.suites.tables import Asked

NETWORKS = ("shared bottom", "ESMM", "MMOE", "CGC", "PLE")
# Table 5 of PLE (Tang et al., 2020): AUC of income and marital status.
_TABLE_5 = {"single task": (".9445", ".9923"), "MMOE": (".9393", ".9928"), "PLE": (".9522", ".9945")}
_PAPER = (
    "## The paper's figures\n\nPLE's table 5, AUC on Census-Income (income, never married); other splits and sizes, so "
    "for orientation only. Its printed gain of MMOE on income, +.0048, has the wrong sign: the AUCs differ by -.0052."
)


def run(asked: Asked) -> None:
    """Train, compare and write the page."""
    table = tables.run(asked, NETWORKS)
    sections = [_PAPER, markdown(["table 5", "income", "marital"], ([m, *v] for m, v in _TABLE_5.items()))]
    tables.write(asked, table, f"Multi-task models on {asked.config.name}", sections, {})
