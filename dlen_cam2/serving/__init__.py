"""From a trained model to what a feed calls: signatures, calibration, fusion, versions, and a local server."""

from dlen_cam2.serving.export import export
from dlen_cam2.serving.signatures import Server

__all__ = ["Server", "export"]
