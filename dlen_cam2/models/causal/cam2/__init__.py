"""CAM2 (Raul et al., 2023): branches by cause, labels split by a threshold, causal losses, and the layers of these."""

from dlen_cam2.models.causal.cam2.cam2 import CAM2

__all__ = ["CAM2"]
