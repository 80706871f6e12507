"""Builders: `model = trunk x head x (causal branches or none)`, every combination."""

from dlen_cam2.models.build import build, functional
from dlen_cam2.models.causal.cam2.branches import branches, cause_scores, join
from dlen_cam2.models.heads import dlen, esmm, plain, probabilities, serving_scores
from dlen_cam2.models.trunks import cgc, mmoe, ple, shared_bottom

__all__ = [
    "branches", "build", "cause_scores", "cgc", "dlen", "esmm", "functional", "join", "mmoe", "plain", "ple",
    "probabilities", "serving_scores", "shared_bottom",
]
