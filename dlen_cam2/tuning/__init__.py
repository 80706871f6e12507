"""Hyperparameter search: the same budget for every model, and a record of what the search took."""

from dlen_cam2.tuning.report import write
from dlen_cam2.tuning.result import Found, Trial
from dlen_cam2.tuning.tuner import TUNERS, search

__all__ = ["TUNERS", "Found", "Trial", "search", "write"]
