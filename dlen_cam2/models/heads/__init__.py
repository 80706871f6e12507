"""Heads: turn the towers' outputs into what is trained, evaluated and served; one module for each paper."""

from dlen_cam2.models.heads.dlen import DLEN
from dlen_cam2.models.heads.esmm import ESMM
from dlen_cam2.models.heads.logistic import Logistic

__all__ = ["DLEN", "ESMM", "Logistic"]
