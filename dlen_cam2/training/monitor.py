"""The metric that chooses the best pass."""

from typing import Any

import numpy as np

from dlen_cam2 import evaluation
from dlen_cam2.utils.errors import UserError


def monitored(metrics: dict[str, Any], name: str) -> float:
    """The mean of a metric such as "ne" over days and tasks, or of one such as "click/ne" over days for one task.

    Raises:
        UserError: the metric is undefined on these days.
    """
    task, _, metric = name.rpartition("/")
    values = []
    for tasks in metrics.values():
        known = [t for t in tasks if t != evaluation.USER_FAVOR]
        values += [tasks[t][metric] for t in ([task] if task else known) if metric in tasks[t]]
    defined = [v for v in values if v is not None]
    if not defined:
        raise UserError(f"{name!r} is undefined on the validation days: it needs a task that has this metric, and rows "
                        f"of both classes. Received: {sorted(metrics)}.")
    return float(np.mean(defined))
