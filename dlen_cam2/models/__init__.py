"""Builders: `model = trunk x head`, every combination."""

from dlen_cam2.models.build import build
from dlen_cam2.models.heads import dlen, plain, probabilities, serving_scores
from dlen_cam2.models.trunks import cgc, mmoe, ple, shared_bottom

__all__ = ["build", "cgc", "dlen", "mmoe", "plain", "ple", "probabilities", "serving_scores", "shared_bottom"]
