"""Serving: from a trained model to scores for a feed, with signatures, calibration, fusion, versions and a server."""

from dlen_cam2.serving.export import export
from dlen_cam2.serving.signatures import Server

__all__ = ["Server", "export"]
