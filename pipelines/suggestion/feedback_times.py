"""Finds the columns that hold the time of feedback: of a purchase, not of the exposure."""

from collections.abc import Iterable, Mapping

from pipelines.engines import quoted
from pipelines.logs.log_files import Log
from pipelines.suggestion.log_sample import Column, Sample

_TOGETHER = 0.98  # share of the rows with a one or a time that have both


def feedback_times(
    sample: Sample, log: Log, time: str, labels: Mapping[str, Column], times: Iterable[str],
) -> dict[str, str]:
    """The column of the time of each label that has one: {label: column}.

    A column is the time of a label if all rows whose label is 1 have a time there, which is not before that of the
    exposure and has its form, and at least 98% of the rows that have a time have a label of 1. Of several labels, it is
    that of the one that agrees most.

    Args:
        sample: the sample, for what counts as a missing value.
        log: the log.
        time: the column of the time of exposure.
        labels: the columns of 0 and 1 that are tasks.
        times: columns that hold dates or times.
    """
    best: dict[str, tuple[float, str]] = {}
    for name in times:
        there, early = sample.present(name), _before(log, name, time)
        for label, column in labels.items():
            one = f"coalesce({column.number} = 1, false)"
            wrong, both, either = sample.engine.query(
                f"SELECT count(*) FILTER ({one} AND (NOT {there} OR coalesce({early}, true))), "
                f"count(*) FILTER ({one} AND {there}), count(*) FILTER ({one} OR {there}) FROM log")[0]
            if both and not wrong and both / either >= max(_TOGETHER, best.get(label, (0.0, ""))[0]):
                best[label] = (both / either, name)
    return {label: name for label, (_, name) in best.items()}


def _before(log: Log, name: str, time: str) -> str:
    """SQL for whether a time is before that of the exposure; null if they cannot be compared."""
    found = {log.types[column].split("[")[0] for column in (name, time)}
    if any(dtype.startswith(("TIMESTAMP", "DATE")) for dtype in found):
        return f"TRY_CAST({quoted(name)} AS TIMESTAMPTZ) < TRY_CAST({quoted(time)} AS TIMESTAMPTZ)"
    return (f"coalesce(TRY_CAST({quoted(name)} AS DOUBLE) < TRY_CAST({quoted(time)} AS DOUBLE), "
            f"TRY_CAST({quoted(name)} AS TIMESTAMPTZ) < TRY_CAST({quoted(time)} AS TIMESTAMPTZ))")
