"""Trunks: turn the embedded row into a representation for each task's tower; one module for each paper."""

from dlen_cam2.models.trunks.cgc import CGC
from dlen_cam2.models.trunks.mmoe import MMOE
from dlen_cam2.models.trunks.ple import PLE
from dlen_cam2.models.trunks.shared_bottom import SharedBottom

__all__ = ["CGC", "MMOE", "PLE", "SharedBottom"]
