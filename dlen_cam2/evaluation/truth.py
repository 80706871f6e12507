"""Measure models against the known truth of simulated data.

- mean |p̂ - p|: the mean distance of a task's probability from the true one;
- P(UP): AUC of the latent state against the true preference, and the share of the way from 0.5 to the AUC of
  the oracle (the true P(UP)) that it covers.
"""

import pathlib
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from dlen_cam2 import data
from dlen_cam2.evaluation import Predictions
from dlen_cam2.metrics import auc
from dlen_cam2.schema import Schema
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.markdown import markdown


def truth_at(directory: str, times: np.ndarray) -> dict[str, np.ndarray]:
    """The truth columns of the rows with these times, which are unique in a simulated log.

    Raises:
        UserError: the data set has no truth file, or a row is not in it.
    """
    path = pathlib.Path(directory) / data.TRUTH
    if not path.is_file():
        raise UserError(f"{path} does not exist: only data sets of pipelines.simulate have a known truth.")
    stored = pq.read_table(path)
    table = {name: stored.column(name).to_numpy() for name in stored.column_names if name != "split"}
    rows = np.searchsorted(table["time_ms"], times)
    rows = np.minimum(rows, len(table["time_ms"]) - 1)
    if not np.array_equal(table["time_ms"][rows], times):
        raise UserError(f"{path} must have all rows of the day. Received: the truth of another data set.")
    return {name: column[rows] for name, column in table.items()}


def recovery(predictions: Predictions, schema: Schema, truth: dict[str, np.ndarray]) -> dict[str, Any]:
    """`error`: {task: mean |p̂ - p|} and its mean over tasks. With a latent state, also `p_up`, `oracle` and `way`."""
    error = {
        task: float(np.mean(np.abs(predictions.probabilities[:, i] - truth[f"p_{task}"])))
        for i, task in enumerate(schema.task_names)
    }
    result: dict[str, Any] = {"error": error, "mean_error": float(np.mean(list(error.values())))}
    if predictions.p_up is not None:
        oracle = auc(truth["preferred"], truth["p_up"])
        found = auc(truth["preferred"], predictions.p_up)
        if oracle is not None and found is not None:
            result |= {"p_up": found, "oracle": oracle, "way": (found - 0.5) / (oracle - 0.5)}
    return result


def table(results: dict[str, dict[str, Any]]) -> str:
    """A markdown table of the results, one row for each model; "error" is the mean |p̂ - p|."""
    tasks = list(next(iter(results.values()))["error"])
    # No bars in a head: markdown would read them as columns.
    head = ["model", *[f"error {t}" for t in tasks], "mean", "AUC P(UP)", "oracle", "share of the way"]
    lines = []
    for name, r in results.items():
        latent = [f"{r['p_up']:.4f}", f"{r['oracle']:.4f}", f"{r['way']:.1%}"] if "way" in r else ["", "", ""]
        lines.append([name, *[f"{r['error'][t]:.4f}" for t in tasks], f"{r['mean_error']:.4f}", *latent])
    return markdown(head, lines)
