"""PLE's public table: multi-task models against single-task ones, on Census-Income's pairs or any other log."""

from collections.abc import Sequence

from dlen_cam2.experiments import tables, zoo
from dlen_cam2.experiments.tables import Asked
from dlen_cam2.utils.markdown import markdown

_MMOE, _PLE = "MMOE (Ma et al., 2018), mean of 400 runs", "PLE (Tang et al., 2020), table 5"
# REPORTED: (source, model, AUC of each task) by the tasks of `pipelines.census`.
_PAPERS: dict[tuple[str, ...], tuple[tuple[str, ...], ...]] = {
    ("income_50k", "never_married"): (
        (_MMOE, "single task", ".9337", ".9922"),
        (_MMOE, "shared bottom", ".9295", ".9921"),
        (_MMOE, "one gate (OMoE)", ".9319", ".9923"),
        (_MMOE, "MMOE", ".9359", ".9927"),
        (_PLE, "single task", ".9445", ".9923"),
        (_PLE, "MMOE", ".9393", ".9928"),
        (_PLE, "PLE", ".9522", ".9945"),
    ),
    ("college", "never_married"): ((_MMOE, "MMOE", ".8826", ".9924"),),
}


def run(asked: Asked) -> None:
    """Train, compare and write the page."""
    table = tables.run(asked, zoo.without("dlen"))
    tasks = table.compared.measured.tasks
    tables.write(asked, table, f"Multi-task models on {asked.config.name}", papers(tasks), {})


def papers(tasks: Sequence[str]) -> list[str]:
    """What the papers report for these tasks; nothing if they are none of Census-Income's pairs."""
    reported = _PAPERS.get(tuple(tasks), ())
    if not reported:
        return []
    parts = [
        "## The papers' figures", "AUC, for orientation only: splits and sizes differ.",
        markdown(["paper", "model", *tasks], reported),
    ]
    if any(source == _PLE for source, *_ in reported):
        parts.append("PLE's printed gain of MMOE on income, +.0048, has the wrong sign: the AUCs differ by -.0052.")
    return parts
