"""The page of `pipelines.check`: one HTML file with its pictures inside."""

import io
from typing import Any

import numpy as np

from dlen_cam2.data import suffix
from dlen_cam2.utils import page
from dlen_cam2.utils.markdown import markdown
from pipelines.checks import leaks
from pipelines.checks.distribution_shift import BINS, FLOOR, SMALL, VALUES
from pipelines.checks.findings import Report
from pipelines.checks.label_rates import RATE_CHANGE, RATE_Z
from pipelines.checks.pure_values import COVERED, LEAST, PURE

_FEATURES = 30  # that the pictures show, the worst first


def render(report: Report) -> str:
    """Render the page as HTML; every text of the data set is shown literally."""
    sections = [
        ("Label rates by day", _rates(report),
         "The rate is positives over the rows of the task's sample space, on a log scale; a rate of 0 is not drawn. A "
         f"rate is a warning if its |z| against the other days of the same suffix, pooled, is above {RATE_Z:g} and it "
         f"differs from theirs by more than {RATE_CHANGE:.0%}."),
        ("Drift from the reference day", _psi(report),
         f"Population stability index against {', '.join(report.references.values())}, the first split of each suffix. "
         f"Days with less than {SMALL:.0%} of the median split's rows are left out. A number has {BINS} bins of equal "
         f"mass on the reference day. A category, or an element of a list, has a bin for each of its {VALUES} most "
         f"frequent values there, and one for all others. A share counts as at least {FLOOR:g}. As a rule of thumb, .1 "
         f"is little and .25 is much. The picture shows the features with the greatest values, at most {_FEATURES}; "
         "those that only grow with the log, as counts do, are at the bottom. A value is a warning if it is above the "
         "limit, and above what chance explains with this number of rows."),
        ("What a single feature knows", _aucs(report),
         f"AUC of one raw feature alone on {report.sampled:,} rows, the first of each split. A number is scored by its "
         "value, in either direction, and a category by its positive rate in the other half of the rows "
         f"({leaks.SMOOTHING:g} rows at the base rate added). The picture shows the features of each task with the "
         "greatest values. A feature of any AUC is a suspect if one of its values, or a tail, has at least "
         f"{LEAST} rows of many users and items, {PURE:.0%} of them positives, and {COVERED:.2%} of all positives."),
    ]
    parts = [
        f"# Check of {page.escaped(report.directory)}",
        markdown(["status", "check", "found"],
                 ([f.status, page.escaped(f.check), page.escaped(f.found)] for f in report.findings)),
    ]
    for f in report.findings:
        if f.faults:
            parts += [f"## {f.status}: {page.escaped(f.check)}",
                      "\n".join(f"- {page.escaped(fault)}" for fault in f.faults)]
    pictures: dict[str, bytes] = {}
    for title, picture, text in sections:
        if picture is not None:
            name = f"{len(pictures)}.png"
            pictures[name] = picture
            parts += [f"## {title}", page.escaped(text), f"![{title}]({name})"]
    return page.render("\n\n".join(parts) + "\n", pictures=pictures)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _plain(text: str) -> str:
    """Text that matplotlib does not interpret as a formula."""
    return text.replace("$", r"\$")


def _days(axis: Any, days: list[str]) -> None:
    axis.set_xticks(range(len(days)), [_plain(d) for d in days], rotation=90 if len(days) > 4 else 0, fontsize=8)


def _rates(report: Report) -> bytes | None:
    splits = list(dict.fromkeys(n for days in report.rates.values() for n in days))
    groups: dict[str, list[str]] = {}
    for name in splits:
        groups.setdefault(suffix(name), []).append(name)
    if not groups:
        return None
    figure = _figure(2 + 5 * len(groups), 4)
    axes = figure.subplots(1, len(groups), squeeze=False)[0]
    for axis, names in zip(axes, groups.values(), strict=True):
        for task, days in report.rates.items():
            rates = [days[n][1] / days[n][0] if days[n][1] else np.nan for n in names]
            axis.plot(range(len(names)), rates, marker="o", markersize=3, linewidth=1, label=_plain(task))
        _days(axis, names)
        axis.set(yscale="log", ylabel="rate")
    axes[-1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return _png(figure)


def _psi(report: Report) -> bytes | None:
    days = list(dict.fromkeys(n for values in report.psi.values() for n in values))
    if not days:
        return None
    worst = sorted(report.psi, key=lambda f: -max(report.psi[f].values()))[:_FEATURES]
    worst.sort(key=report.growing.__contains__)  # stable: the worst first, and below them the worst that grow
    values = np.array([[report.psi[f].get(d, np.nan) for d in days] for f in worst])
    figure = _figure(min(16, 4.5 + 0.5 * len(days)), 1.5 + 0.24 * len(worst))
    axis = figure.subplots()
    # Above .5, twice what counts as much, colours say no more; the numbers do.
    image = axis.imshow(values, cmap="magma_r", vmin=0, vmax=0.5, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=6, color="w" if value > 0.25 else "k")
    _days(axis, days)
    axis.set_yticks(range(len(worst)), [_plain(f) + " (grows)" * (f in report.growing) for f in worst], fontsize=8)
    figure.colorbar(image, label="PSI", extend="max")
    return _png(figure)


def _aucs(report: Report) -> bytes | None:
    tasks = {t: sorted(found.items(), key=lambda x: -x[1]) for t, found in report.aucs.items() if found}
    if not tasks:
        return None
    each = max(3, _FEATURES // len(tasks))
    bars = [(f"{task}: {feature}", value) for task, found in tasks.items() for feature, value in found[:each]]
    figure = _figure(8, 1 + 0.22 * len(bars))
    axis = figure.subplots()
    places = np.arange(len(bars))[::-1]
    axis.barh(places, [value for _, value in bars], color="C0")
    axis.set_yticks(places, [_plain(name) for name, _ in bars], fontsize=7)
    for place, (_, value) in zip(places, bars, strict=True):
        axis.text(value, place, f" {value:.3f}", va="center", fontsize=7)
    axis.set(xlim=(0.5, 1.05), ylim=(-1, len(bars)), xlabel="AUC")
    return _png(figure)
