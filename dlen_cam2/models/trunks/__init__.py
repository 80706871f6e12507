"""Trunks: from the embedded row to one representation for each task's tower, a paper each."""

from dlen_cam2.models.trunks.cgc import cgc
from dlen_cam2.models.trunks.mmoe import mmoe
from dlen_cam2.models.trunks.ple import ple
from dlen_cam2.models.trunks.shared_bottom import shared_bottom

__all__ = ["cgc", "mmoe", "ple", "shared_bottom"]
