"""What CAM2's tables say of the trained variants: changes, slices, rankings, and what the causal scores follow."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from dlen_cam2.evaluation import entire_space, slices
from dlen_cam2.evaluation.bootstrap import Estimate, Resamples, ne_change, over_rows
from dlen_cam2.evaluation.report import in_entire_space
from dlen_cam2.experiments.baselines import dice
from dlen_cam2.experiments.papers.cam2 import BASELINE, DICE, PROPOSED, VARIANTS, Kind, Results
from dlen_cam2.metrics import auc, cross_entropy, normalized_entropy
from dlen_cam2.models.causal.cam2.threshold import ANY_POSITIVE

TRUE_CONFORMITY = "true conformity (user x popularity)"


def ne_changes(results: Results, kind: Kind, resamples: Resamples) -> dict[str, dict[str, Estimate]]:
    """{variant, or another model: {"aggregated" or task: change of NE against production}} (CAM2, table 1).

    Tasks that follow others are also measured in their entire space, which does not count in "aggregated".
    """
    production = kind.probabilities[BASELINE]
    usual = entire_space(results.schema, kind.labels, kind.mask, production)
    found: dict[str, dict[str, Estimate]] = {}
    for name, p in (kind.probabilities | kind.others).items():
        if name == BASELINE:
            continue
        found[name] = ne_change(kind.labels, kind.mask, p, production, resamples, results.tasks)
        for task, (y, mask, chance) in entire_space(results.schema, kind.labels, kind.mask, p).items():
            arms = (cross_entropy(y, each) * mask for each in (chance, usual[task][2]))
            found[name][in_entire_space(task)] = resamples.change(*arms)
    return found


def levels(
    results: Results, kind: Kind, among: np.ndarray | None = None
) -> dict[str, dict[str, tuple[float, float]]]:
    """{model: {task: (mean NE, mean AUC) over seeds}} of the rows, or of those `among`; NaN where undefined."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for variant, probabilities in (kind.probabilities | kind.others).items():
        found[variant] = {}
        spaces = {t: (kind.labels[:, k], kind.mask[:, k], probabilities[..., k]) for k, t in enumerate(results.tasks)}
        entire = entire_space(results.schema, kind.labels, kind.mask, probabilities)
        for task, (labels, mask, chances) in (spaces | {in_entire_space(t): s for t, s in entire.items()}).items():
            rows = (mask == 1) & (True if among is None else among)
            y = labels[rows]
            values = [(normalized_entropy(y, p[rows]), auc(y, p[rows])) for p in chances]
            ne, area = np.mean(np.array(values, float), axis=0)  # None becomes NaN
            found[variant][task] = (float(ne), float(area))
    return found


def row_slices(results: Results, kind: Kind) -> dict[str, dict[str, np.ndarray]]:
    """{family: {slice: mask}} of the rows."""
    return {
        "item age since upload": slices.by_age(kind.columns[results.age]),
        f"popularity ({results.popularity})": slices.by_decile(kind.columns[results.popularity]),
        "user activity": slices.by_activity(kind.users, results.active),
    }


def slice_changes(
    results: Results, kind: Kind, resamples: Resamples, masks: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Estimate]]:
    """{slice: {variant: change of aggregated NE}}; slices without rows are left out."""
    return {
        name: {
            v: ne_change(
                kind.labels[rows], kind.mask[rows], kind.probabilities[v][:, rows],
                kind.probabilities[BASELINE][:, rows], resamples.of(rows), results.tasks,
            )["aggregated"]
            for v in VARIANTS if v != BASELINE
        }
        for name, rows in masks.items() if rows.any()
    }


def expected_engagement(results: Results, kind: Kind, variant: str) -> np.ndarray:
    """(seeds, rows): Σ_t P(t) over the tasks of engagement, which a ranking maximises."""
    return kind.probabilities[variant][:, :, results.positive].sum(axis=2)


def shown(results: Results, kind: Kind, variant: str) -> np.ndarray:
    """(seeds, rows): 1 for the rows among their user's top k by expected engagement, of all measured days together."""
    scores = expected_engagement(results, kind, variant)
    return np.stack([slices.top_k(kind.users, row, results.top_k) for row in scores]).astype(float)


def engagement_by_age(results: Results, kind: Kind, resamples: Resamples) -> dict[str, dict[str, Estimate]]:
    """{age: {variant: change against production of the engagement observed on top-k rows}}.

    An offline reading of CAM2's table 2, which measured it online: a variant is credited with the logged engagement
    of the rows that it ranks among a user's top k.
    """
    observed = kind.labels[:, results.positive].sum(axis=1)
    arms = {v: shown(results, kind, v) * observed for v in VARIANTS}
    masks = {"all ages": np.ones(len(observed), bool), **slices.by_age(kind.columns[results.age])}
    return {
        name: {
            v: resamples.of(rows).change(arms[v][:, rows], arms[BASELINE][:, rows]) for v in VARIANTS if v != BASELINE
        }
        for name, rows in masks.items() if rows.any()
    }


def items_of_engagement(
    results: Results, kind: Kind, resamples: Resamples, observed: bool = False
) -> dict[str, dict[str, Any]]:
    """{variant: {"50%", "75%": (mean number of items, change against production)}} of the engagement of top-k rows.

    CAM2, section 3.3, reports the number of videos that make up 50% and 75% of engagement; more is less concentrated.
    The engagement is what a variant predicts of the rows that it ranks on top, or, with `observed`, what the log says
    of them, which no variant can raise by predicting more evenly.
    """
    items = np.unique(kind.items, return_inverse=True)[1]
    labels = kind.labels[:, results.positive].sum(axis=1)
    arms = {
        v: shown(results, kind, v) * (labels if observed else expected_engagement(results, kind, v)) for v in VARIANTS
    }
    found: dict[str, dict[str, Any]] = {v: {} for v in VARIANTS}
    for share in (0.5, 0.75):
        def count(values: np.ndarray, rows: np.ndarray, share: float = share) -> float:
            return slices.concentration(items, values * rows, share)

        for v in VARIANTS:
            mean = float(np.mean([count(row, np.ones(len(items), bool)) for row in arms[v]]))
            found[v][f"{share:.0%}"] = (mean, over_rows(count, arms[v], arms[BASELINE], resamples))
    return found


def correlations(
    results: Results, kind: Kind, against: Mapping[str, np.ndarray]
) -> dict[str, dict[str, list[float]]]:
    """{score: {cause: Spearman correlation for each seed}}, the scores "variant, cause" and two to compare them with.

    X stands in the labels of the causes and among the features of conformity: what matters is what a score has beyond
    X itself, and beyond what production already predicts.
    """
    statistic = results.causal.statistic
    scores = {f"X ({statistic})": kind.columns[statistic][None]}
    scores["production, expected engagement"] = expected_engagement(results, kind, BASELINE)
    scores |= {f"{v}, {score}": rows for v, found in kind.causes.items() for score, rows in found.items()}
    scores |= {f"{DICE}, {score}": kind.dice[score] for score in dice.CAUSES}
    return {
        name: {c: [float(spearmanr(row, cause).statistic) for row in rows] for c, cause in against.items()}
        for name, rows in scores.items()
    }


def against_dice(
    results: Results, kind: Kind, resamples: Resamples, masks: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """How production, the proposed variant and DICE order the rows by the engagement that DICE was trained on.

    DICE's scores are no probabilities, so there is no NE of them. The networks' score is the probability of the task
    that is the engagement, or `expected_engagement` where it is any positive one.

    Args:
        results, kind, resamples: the measured rows and their draws.
        masks: {slice: mask} of the rows.

    Returns:
        {model: {"auc", "gauc": mean over seeds, "auc_change", "gauc_change": the difference from production, and each
        slice: AUC, mean over seeds}}.
    """
    space, engaged = kind.dice["space"] == 1, kind.dice["engaged"]
    draws = resamples.of(space)
    task = results.causal.engagement
    scores = {
        v: expected_engagement(results, kind, v) if task == ANY_POSITIVE
        else kind.probabilities[v][:, :, results.tasks.index(task)]
        for v in (BASELINE, PROPOSED)
    }
    scores[DICE] = kind.dice["relevance"] + kind.dice["conformity"]
    values: dict[str, dict[str, np.ndarray]] = {}
    found: dict[str, dict[str, Any]] = {}
    for model, by_seed in scores.items():
        by_seed = np.stack([_as_shares(row) for row in by_seed])
        measured = [draws.metrics(engaged[space], row[space]) for row in by_seed]
        values[model] = {name: np.stack([m[name] for m in measured]) for name in ("auc", "gauc")}
        found[model] = {name: float(v[:, 0].mean()) for name, v in values[model].items()}
        found[model] |= {f"{n}_change": draws.difference(v, values[BASELINE][n]) for n, v in values[model].items()}
        for name, mask in masks.items():
            rows = space & mask
            areas = np.array([auc(engaged[rows], row[rows]) for row in by_seed], float)  # None becomes NaN
            found[model][name] = float(areas.mean())
    return found


def _as_shares(scores: np.ndarray) -> np.ndarray:
    """Scores in the same order, strictly between 0 and 1: what is measured here is the order alone."""
    distinct, places = np.unique(scores, return_inverse=True)
    return (places + 1) / (len(distinct) + 1)


def causes_to_compare(results: Results, kind: Kind) -> dict[str, np.ndarray]:
    """What the scores are compared with: the simulator's true causes, or the popularity column of a real log."""
    if not kind.truth:
        return {results.popularity: kind.columns[results.popularity]}
    return {
        "true popularity": kind.truth["popularity"],
        TRUE_CONFORMITY: kind.truth["conformity"],
        "true interest": kind.truth["relevance"],
    }


def summary(values: Sequence[float]) -> str:
    """Mean over seeds, and the least and the greatest."""
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
