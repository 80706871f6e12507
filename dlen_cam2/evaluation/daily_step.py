"""The effect of a daily step: the model before and after it, on the same rows that it was not trained on."""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from dlen_cam2.evaluation import Predictions
from dlen_cam2.evaluation.bootstrap import MIN_USERS
from dlen_cam2.labels.kind import binary
from dlen_cam2.metrics import calibration, cross_entropy, normalized_entropy
from dlen_cam2.schema import Schema
from dlen_cam2.utils import console
from dlen_cam2.utils.markdown import markdown

Change = dict[str, Any]
# A warning is due for a task whose NE rose beyond this probability of a chance rise, and by this share at least, below
# which it does not matter; of fewer positives or negatives than this no probability could be told.
CHANCE, LEAST, ENOUGH = 0.001, 0.001, 30


def changes(before: Predictions, after: Predictions, schema: Schema) -> dict[str, Change]:
    """Compare each task's NE and calibration before and after, on its own sample space, and say whether NE got worse.

        z = Σ_u d_u / √((Σ_u d_u² - (Σ_u d_u)² / U) U / (U - 1)),    d_u the change of user u's summed cross entropy

    The rows are the same, so the entropy of their base rate cancels; the rows of a user count together. NE became worse
    if z is beyond Student's quantile of 1 - `CHANCE` with U - 1 degrees of freedom. Sums over few positives are skewed,
    so for rare tasks a warning occurs by chance more often, about one time in 200 at 60 positives.

    Args:
        before, after: the predictions for the same rows.
        schema: the tasks.

    Returns:
        `{task: {"ne": [before, after], "calibration": [before, after], "errors": z, "worse": bool}}`; z is None where
        it is undefined. Tasks without rows of both classes and regression tasks are left out.
    """
    from scipy.stats import t as student  # half a second, which few commands need

    users, found = before.users, {}
    for k in binary(schema):
        task = schema.task_names[k]
        rows = before.mask[:, k] == 1
        y, arms = before.labels[rows, k], [p.probabilities[rows, k] for p in (before, after)]
        ne = [normalized_entropy(y, p) for p in arms]
        if None in ne:
            continue
        d = np.bincount(users[rows], cross_entropy(y, arms[1]) - cross_entropy(y, arms[0]))[np.unique(users[rows])]
        n = len(d)
        spread = float(np.sqrt(max(np.sum(d**2) - d.sum() ** 2 / n, 0.0) * n / (n - 1))) if n > 1 else 0.0
        errors = float(d.sum() / spread) if spread > 0 else None
        enough = n >= MIN_USERS and min(y.sum(), len(y) - y.sum()) >= ENOUGH
        worse = bool(enough and errors is not None and errors > student.ppf(1 - CHANCE, n - 1)
                     and ne[1] > (1 + LEAST) * ne[0])  # type: ignore[operator]
        found[task] = {"ne": ne, "calibration": [calibration(y, p) for p in arms], "errors": errors, "worse": worse}
    return found


def warnings(day: str, found: Mapping[str, Change]) -> list[str]:
    """A line of warning for each task that the step made worse on `day`."""
    return [
        f"the step made {task} worse on {day}: NE {c['ne'][0]:.4f} -> {c['ne'][1]:.4f} "
        f"({c['errors']:.1f} standard errors), predicted over observed positives {c['calibration'][0]:.2f} -> "
        f"{c['calibration'][1]:.2f}; lower config.train.daily.rates, or train on several days together"
        for task, c in found.items() if c["worse"]
    ]


def table(days: Mapping[str, Mapping[str, Change]]) -> str:
    """A markdown table of every task on every day, before → after the step."""
    def line(day: str, task: str, change: Change) -> Iterable[str]:
        pairs = (" → ".join(f"{v:.4f}" for v in change[name]) for name in ("ne", "calibration"))
        errors = "" if change["errors"] is None else f"{change['errors']:+.1f}"
        return [day, task, *pairs, errors, "worse" if change["worse"] else ""]

    lines = [list(line(day, task, c)) for day, found in days.items() for task, c in found.items()]
    return markdown(["day", "task", "NE", "predicted / observed", "standard errors", ""], lines)


class DailySteps:
    """The daily steps of a run: the predictions before each step, and what it changed.

    Args:
        directory: where the predictions from before a step are kept.
        schema: the tasks.

    Attributes:
        found: {"DAY after DAY": the result of `changes`}.
    """

    def __init__(self, directory: pathlib.Path, schema: Schema):
        self.directory = directory
        self.schema = schema
        self.found: dict[str, dict[str, Change]] = {}

    def look_ahead(self, day: str, before: Predictions) -> None:
        """Keep the predictions for `day` from before a step."""
        before.save(self.directory / f"{day}.npz")

    def compare(self, day: str, trained: str, after: Predictions) -> dict[str, Change]:
        """Compare the predictions for `day` with those from before the step on `trained`; print what got worse."""
        found = changes(Predictions.load(self.directory / f"{day}.npz"), after, self.schema)
        self.found[f"{day} after {trained}"] = found
        for warning in warnings(day, found):
            console.warn(warning)
        return found

    def section(self) -> str:
        """The section of a report about these steps; "" if there are none."""
        if not self.found:
            return ""
        return ("This table shows what each daily step changed, measured on the same rows before and after it. The "
                "change of NE is given in standard errors over users, and above 0 it is worse.\n\n"
                f"{table(self.found)}")

