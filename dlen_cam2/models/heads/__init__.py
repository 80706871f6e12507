"""Heads: from the towers' outputs to logits, a paper each."""

from dlen_cam2.models.heads.dlen import dlen
from dlen_cam2.models.heads.esmm import esmm
from dlen_cam2.models.heads.logistic import plain
from dlen_cam2.models.heads.scores import Calibrate, probabilities, serving_scores

__all__ = ["Calibrate", "dlen", "esmm", "plain", "probabilities", "serving_scores"]
