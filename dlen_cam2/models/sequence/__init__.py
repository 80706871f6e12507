"""Encoders: what becomes of a list of events, a paper each."""

from dlen_cam2.models.sequence.mean import Mean

__all__ = ["Mean"]
