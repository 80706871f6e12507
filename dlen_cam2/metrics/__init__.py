"""Exact metrics over all evaluated rows, in numpy and float64."""

from dlen_cam2.metrics.binary import (
    Weighted,
    auc,
    calibration,
    calibration_curve,
    cross_entropy,
    expected_calibration_error,
    gauc,
    log_loss,
    normalized_entropy,
    task_metrics,
)
from dlen_cam2.metrics.regression import regression_metrics

__all__ = [
    "Weighted", "auc", "calibration", "calibration_curve", "cross_entropy", "expected_calibration_error", "gauc",
    "log_loss", "normalized_entropy", "regression_metrics", "task_metrics",
]
