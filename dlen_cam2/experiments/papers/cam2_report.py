"""CAM2's tables and pictures, from the results of its suite."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from dlen_cam2.evaluation.bootstrap import Estimate, Resamples, percent, table
from dlen_cam2.experiments import daily_protocol, pages, zoo
from dlen_cam2.experiments.baselines.dice import PASSES
from dlen_cam2.experiments.papers import cam2_measures as measures
from dlen_cam2.experiments.papers.cam2 import BASELINE, PROPOSED, VARIANTS, Results
from dlen_cam2.experiments.recurring import LOGGED
from dlen_cam2.utils import page
from dlen_cam2.utils.files import write_json
from dlen_cam2.utils.markdown import markdown

# What each kind of exposure is, as a reader of the page should know it.
_KINDS = {
    "logged": "next day, as logged",
    "random": "next day, uniformly random exposures",
    "intervened": "next day, exposures sampled against popularity (DICE's intervened test)",
}
# CAM2's own Table 1, aggregated NE change in percent.
_PAPER = {"task_arch": -0.060, "joint_loss": -0.016, "all_features": 0.029, "proposed": -0.139}


def write(results: Results, output: pathlib.Path) -> None:
    """Write `report.md`, `results.json`, `ne_change.png`, `engagement_by_age.png` and `causes.png` into `output`."""
    draws = {kind: Resamples.draw(rows.users) for kind, rows in results.kinds.items()}
    changes = {kind: measures.ne_changes(results, rows, draws[kind]) for kind, rows in results.kinds.items()}
    by_age = {kind: measures.engagement_by_age(results, rows, draws[kind]) for kind, rows in results.kinds.items()}
    against = {kind: measures.causes_to_compare(results, rows) for kind, rows in results.kinds.items()}
    correlations = {kind: measures.correlations(results, rows, against[kind]) for kind, rows in results.kinds.items()}
    masks = {kind: measures.row_slices(results, rows) for kind, rows in results.kinds.items()}
    slices = {
        kind: {family: measures.slice_changes(results, rows, draws[kind], m) for family, m in masks[kind].items()}
        for kind, rows in results.kinds.items()
    }
    slice_levels = {
        kind: {
            family: {name: measures.levels(results, rows, mask) for name, mask in m.items() if mask.any()}
            for family, m in masks[kind].items()
        }
        for kind, rows in results.kinds.items()
    }
    dice = {
        kind: measures.against_dice(
            results, rows, draws[kind], masks[kind][f"popularity ({results.popularity})"]
        )
        for kind, rows in results.kinds.items()
    }
    items = {
        kind: [measures.items_of_engagement(results, rows, draws[kind], observed) for observed in (False, True)]
        for kind, rows in results.kinds.items()
    }

    parts = [_head(results)]
    for kind, rows in results.kinds.items():
        parts += [
            f"## {_KINDS[kind]}: {len(rows.labels):,} rows",
            "Change of NE relative to production, mean over seeds; below 0 is better. Brackets are 95% paired "
            f"intervals {'over users and seeds' if results.seeds > 1 else 'over users, not over seeds'}. "
            f"{pages.MANY_NOTE}",
            _with_paper(table(changes[kind], "variant")),
            f"The models below the variants have no branches. {zoo.NOTE} {daily_protocol.NOTE}",
            "NE and AUC, mean over seeds:", _levels(measures.levels(results, rows)),
        ]
        for family, estimates in slices[kind].items():
            named = {f"{n} ({masks[kind][family][n].sum():,} rows)": e for n, e in estimates.items()}
            parts += [f"Change of aggregated NE by {family} (NE and AUC of every task: `results.json`):",
                      table(named, family)]
        parts += [
            "Rank correlation of the causal scores, mean over seeds (least to greatest), beside that of the statistic "
            "X itself and of production's expected engagement:",
            _correlations(correlations[kind]),
            f"Observed engagement on the {results.top_k} rows of each user that a variant ranks highest, relative to "
            "production, by the item's age:",
            table(by_age[kind], "age"),
            f"AUC with which production, the proposed variant and DICE (from ids alone, {PASSES} passes over pairs) "
            f"order the rows by engagement ({results.causal.engagement}), for all rows, for rows of the same user, and "
            "by tenths of popularity. Values are means over seeds, and brackets the difference from production. DICE's "
            "scores are not probabilities, so it has no NE.",
            _dice(dice[kind]),
            "Number of items that make up a share of the predicted engagement of these rows; a larger number is less "
            "concentrated:",
            _items(items[kind][0]),
            "The same for the logged engagement on the rows that each variant ranks highest:",
            _items(items[kind][1]),
        ]
    parts.append("![NE change](ne_change.png)\n![engagement by age](engagement_by_age.png)\n![causes](causes.png)")
    of_variants = {kind: {v: c for v, c in found.items() if v in VARIANTS} for kind, found in changes.items()}
    _draw_changes(output / "ne_change.png", of_variants)
    turned = {kind: _transposed(found) for kind, found in by_age.items()}
    _draw_changes(output / "engagement_by_age.png", turned, "engagement on top-k rows")
    _draw_causes(output / "causes.png", results)
    write_json(output / pages.RESULTS, pages.plain({
        "ne_change": changes, "slices": slices, "ne_and_auc_of_slices": slice_levels, "engagement_by_age": by_age,
        "items": items, "correlations": correlations, "against_dice": dice,
    }))
    page.write(output / pages.REPORT, "\n\n".join(parts) + "\n")


def _head(results: Results) -> str:
    seeds = "one seed" if results.seeds == 1 else f"{results.seeds} seeds"
    return (
        f"# CAM2 on {results.config.name}\n\n"
        f"Recurring training: the models are first trained on {results.warm[0]}..{results.warm[-1]}. Then each day of "
        f"{results.days[0]}..{results.days[-1]} is measured with the model of the day before, and trained on "
        f"({seeds}). The aggregated NE is the NE of all tasks' rows together; the paper does not say how it "
        "aggregates. `production` is the same network without branches, from the same initial weights. `joint_loss` "
        "is our reading of one sentence of the paper. Low-activity users have 1 or 2 active days among the "
        f"{min(len(results.warm), 28)} days before the first measured one (in the paper, among 28)."
    )


def _with_paper(text: str) -> str:
    """The table with the paper's figures beside the aggregated column."""
    lines = text.splitlines()
    extra = ["| paper's Table 1 ", "|---"]
    extra += [f"| {_PAPER[v]:+.3f}% " for v in VARIANTS if v != BASELINE]
    extra += ["| "] * (len(lines) - len(extra))
    return "\n".join(f"{line[:-1]}{more}|" for line, more in zip(lines, extra, strict=True))


def _levels(levels: Mapping[str, Mapping[str, tuple[float, float]]]) -> str:
    tasks = list(levels[BASELINE])
    rows = ([variant, *("{:.4f}, {:.4f}".format(*values[t]) for t in tasks)] for variant, values in levels.items())
    return markdown(["variant", *tasks], rows)


def _correlations(found: Mapping[str, Mapping[str, list[float]]]) -> str:
    causes = list(next(iter(found.values())))
    return markdown(["score", *causes], ([n, *(measures.summary(row[c]) for c in causes)] for n, row in found.items()))


def _dice(found: Mapping[str, Mapping[str, Any]]) -> str:
    slices = [name for name in found[BASELINE] if name not in ("auc", "gauc", "auc_change", "gauc_change")]
    rows = (
        [model, *(f"{v[metric]:.4f} {pages.signed(v[metric + '_change'])}" for metric in ("auc", "gauc")),
         *(f"{v[name]:.4f}" for name in slices)]
        for model, v in found.items()
    )
    return markdown(["model", "AUC", "GAUC", *slices], rows)


def _items(found: Mapping[str, Mapping[str, tuple[float, Estimate]]]) -> str:
    rows = (
        [variant, *(cell for mean, change in shares.values() for cell in (f"{mean:.1f}", percent(change)))]
        for variant, shares in found.items()
    )
    return markdown(["variant", "50%", "change", "75%", "change"], rows)


def _transposed(found: Mapping[str, Mapping[str, Estimate]]) -> dict[str, dict[str, Estimate]]:
    return {v: {name: row[v] for name, row in found.items()} for v in next(iter(found.values()))}


def _draw_changes(
    path: pathlib.Path, changes: Mapping[str, Mapping[str, Mapping[str, Estimate]]], what: str = "NE"
) -> None:
    """One panel for each kind of exposure."""
    pages.draw(path, {_KINDS[kind]: found for kind, found in changes.items()},
              f"change of {what} against production, %", scale=100)


def _draw_causes(path: pathlib.Path, results: Results) -> None:
    """Of the proposed variant: median conformity and relevance scores by popularity and by true interest.

    One line a seed, over twentieths of the rows, on a logarithmic axis, since joint heads give conformity next to
    nothing far below the threshold. A real log has no true interest: there both scores stand against popularity.
    """
    from matplotlib.figure import Figure

    kind = results.kinds.get("random", results.kinds[LOGGED])
    causes = measures.causes_to_compare(results, kind)
    shown = [name for name in causes if name != measures.TRUE_CONFORMITY]
    panels = [(score, name, causes[name]) for score in ("conformity", "relevance") for name in shown]
    figure = Figure(figsize=(4.3 * len(panels), 3.9), layout="constrained")
    for axis, (score, cause, values) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for seed, row in enumerate(kind.causes[PROPOSED][score]):
            parts = np.array_split(np.argsort(values, kind="stable"), 20)
            axis.plot([values[p].mean() for p in parts], [np.median(row[p]) for p in parts], marker="o", markersize=3,
                      linewidth=1, label=f"seed {seed}")
        axis.set(xlabel=f"{cause} (means of twentieths)", ylabel=f"median {score} score", yscale="log")
        axis.set_title(f"{score} by {cause}", fontsize=10)
    figure.savefig(path, dpi=110)
