"""Comparison of a candidate version with the live one: send both the same requests and see how far the scores move."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from dlen_cam2.serving import request_log
from dlen_cam2.serving.signatures import FUSED, ORDER
from dlen_cam2.serving.versions import Loaded
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.markdown import markdown

# How many of the first ranks are compared.
TOP = 10
# Scores that differ by less than this, relative to their size, differ by rounding.
_EQUAL = 1e-6


class Replay(NamedTuple):
    """The answers of a version.

    Attributes:
        scores: {score: (N,)}, all float outputs of all requests, concatenated.
        orders: the `order` of each `rank` request, (N,).
    """

    scores: dict[str, np.ndarray]
    orders: list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Drift:
    """The drift of one score over N rows, with live s and candidate c. Undefined values are None.

    Attributes:
        live, candidate: the means of s and of c.
        drift: `(mean c - mean s) / |mean s|`, the relative change of the level.
        mean_difference, max_difference: the mean and the maximum of |c - s|.
        moved: share of rows with |c - s| > |s| / 2.
        agreement: Spearman's rank correlation of s and c; 0 if only c is the same for all rows, None if s is.
        broken: number of c that are not finite. All else is over rows where both are finite, NaN if there are none.
    """

    live: float
    candidate: float
    drift: float
    mean_difference: float
    max_difference: float
    moved: float
    agreement: float | None
    broken: int


def changes(live: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[str]:
    """The changes, in words, that a client of the `live` signatures would notice; additional outputs are no change.

    A server refuses requests with too few or too many inputs (`predict_util.cc`), so the inputs must be equal.
    """
    found = [f"signature {name} is missing" for name in live if name not in candidate]
    for name in sorted(set(live) & set(candidate)):
        old, new = live[name], candidate[name]
        if old.method_name != new.method_name:
            found.append(f"{name}: method {new.method_name} instead of {old.method_name}")
        for side, mapping, other in (("input", old.inputs, new.inputs), ("output", old.outputs, new.outputs)):
            for key in sorted(mapping):
                if key not in other:
                    found.append(f"{name}: {side} {key} is missing")
                elif _kind(mapping[key]) != _kind(other[key]):
                    found.append(f"{name}: {side} {key} is {_kind(other[key])} instead of {_kind(mapping[key])}")
        found += [f"{name}: input {key} is new" for key in sorted(new.inputs) if key not in old.inputs]
    return found


def _kind(info: Any) -> str:
    return f"{tf.as_dtype(info.dtype).name} {tf.TensorShape(info.tensor_shape)}"


def replay(version: Loaded, logs: Sequence[PredictionLog], where: str) -> Replay:
    """Send every request to `version`.

    Raises:
        UserError: a request cannot be answered; `where` names the version in the message.
    """
    scores: dict[str, list[np.ndarray]] = {}
    orders: list[np.ndarray] = []
    for index, log in enumerate(logs):
        signature, values = request_log.inputs(log)
        if signature not in version.signatures:
            raise UserError(f"request {index} must be for a signature of {where}, one of {sorted(version.signatures)}. "
                            f"Received: {signature!r}.")
        if missing := set(version.signatures[signature].inputs) ^ set(values):
            raise UserError(f"request {index} must have exactly the inputs of {signature} of {where}. "
                            f"Received: missing or unknown inputs {sorted(missing)}.")
        try:
            outputs = version.run(signature, values)
        except (tf.errors.OpError, TypeError, ValueError) as error:
            raise UserError(f"request {index} ({signature}) cannot be answered by {where}. "
                            f"Received: {str(error).splitlines()[0]}") from error
        for name, output in outputs.items():
            if output.dtype.kind == "f":
                scores.setdefault(name, []).append(output.ravel())
            elif name == ORDER:
                orders.append(output)
    return Replay({name: np.concatenate(parts).astype(np.float64) for name, parts in scores.items()}, orders)


def compare(live: Replay, candidate: Replay) -> dict[str, Drift]:
    """The drift of every score of the live version."""
    return {name: _drift(values, candidate.scores[name]) for name, values in live.scores.items()}


def _drift(live: np.ndarray, candidate: np.ndarray) -> Drift:
    broken = int((~np.isfinite(candidate)).sum())
    both = np.isfinite(live) & np.isfinite(candidate)
    if not both.any():
        return Drift(np.nan, np.nan, np.nan, np.nan, np.nan, 1.0, None, broken)
    s, c = live[both], candidate[both]
    difference = np.abs(c - s)
    level, change = abs(s.mean()), c.mean() - s.mean()
    relative = change / level if level else np.copysign(np.inf, change) if change else 0.0
    return Drift(
        float(s.mean()), float(c.mean()), float(relative),
        float(difference.mean()), float(difference.max()), float((difference > np.abs(s) / 2).mean()),
        _agreement(s, c), broken,
    )


def _agreement(live: np.ndarray, candidate: np.ndarray) -> float | None:
    from scipy.stats import spearmanr

    if _constant(live):
        return None
    return 0.0 if _constant(candidate) else float(spearmanr(live, candidate).statistic)


def _constant(values: np.ndarray) -> bool:
    return bool(np.ptp(values) <= _EQUAL * np.abs(values).max())


def overlap(live: Replay, candidate: Replay) -> float | None:
    """The mean share of a request's first `TOP` items that both versions have there; None without such requests."""
    shares = [
        len(set(a[:TOP]) & set(b[:TOP])) / TOP
        for a, b in zip(live.orders, candidate.orders, strict=True) if len(a) > TOP
    ]
    return float(np.mean(shares)) if shares else None


def failures(drifts: Mapping[str, Drift], max_drift: float, min_agreement: float) -> list[str]:
    """The faults of the candidate, in words. For "fused", only the order of rows matters, not the level."""
    found = []
    for name, d in drifts.items():
        if d.broken:
            found.append(f"{name} is not finite for {d.broken} rows")
        elif abs(d.drift) > max_drift and name != FUSED:
            found.append(f"{name} drifted by {d.drift:+.1%}, more than {max_drift:.0%}")
        elif d.agreement is not None and d.agreement < min_agreement:
            found.append(f"{name} orders rows with an agreement of {d.agreement:.3f}, less than {min_agreement:g}")
    return found


def table(drifts: Mapping[str, Drift]) -> str:
    """A markdown table of the drifts, one row for each score; "fused" has no drift, since its level means nothing."""
    head = ["score", "mean live", "mean candidate", "drift", "mean move", "greatest move", "moved by half", "agreement",
            "not finite"]
    return markdown(head, [
        [name, f"{d.live:.4g}", f"{d.candidate:.4g}", "" if name == FUSED else f"{d.drift:+.1%}",
         f"{d.mean_difference:.4g}", f"{d.max_difference:.4g}", f"{d.moved:.1%}",
         "undefined" if d.agreement is None else f"{d.agreement:.4f}", str(d.broken)]
        for name, d in drifts.items()
    ])


def draw(path: pathlib.Path, live: Replay, candidate: Replay) -> None:
    """Plot the rows of each score, live against candidate; on the diagonal, nothing moved."""
    from matplotlib.figure import Figure

    across = min(4, len(live.scores))
    down = -(-len(live.scores) // across)
    figure = Figure(figsize=(3.4 * across, 3.3 * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis, (name, values) in zip(axes, live.scores.items(), strict=False):
        rows = np.stack([values, candidate.scores[name]])
        rows = rows[:, np.isfinite(rows).all(axis=0)]
        if rows.size:
            axis.plot(*rows, linestyle="", marker=".", markersize=3, alpha=0.3)
            axis.plot([rows.min(), rows.max()], [rows.min(), rows.max()], color="grey", linewidth=0.8, linestyle=":")
            if rows.min() > 0:  # small probabilities matter as much as large ones
                axis.set(xscale="log", yscale="log")
        axis.set(xlabel="live", ylabel="candidate")
        axis.set_title(name, fontsize=10)
    for axis in axes[len(live.scores):]:
        axis.remove()
    figure.savefig(path, dpi=110)
