"""Encoders: turn a list of events into a vector; one module for each paper."""

from dlen_cam2.models.sequence.mean import Mean

__all__ = ["Mean"]
