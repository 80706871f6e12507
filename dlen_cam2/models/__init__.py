"""Networks: how parts are put together, and what the outputs mean."""

from dlen_cam2.models.build import Network, build, functional
from dlen_cam2.models.causal.cam2 import CAM2
from dlen_cam2.models.heads import DLEN, ESMM, Logistic
from dlen_cam2.models.read_out import ReadOut, network_parts
from dlen_cam2.models.sequence import Mean
from dlen_cam2.models.trunks import CGC, MMOE, PLE, SharedBottom

__all__ = [
    "CAM2", "CGC", "DLEN", "ESMM", "MMOE", "PLE", "Logistic", "Mean", "Network", "ReadOut", "SharedBottom", "build",
    "functional", "network_parts",
]
