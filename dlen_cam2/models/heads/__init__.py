"""Heads: from the towers' outputs to what is trained, evaluated and served, a paper each."""

from dlen_cam2.models.heads.dlen import DLEN
from dlen_cam2.models.heads.esmm import ESMM
from dlen_cam2.models.heads.logistic import Logistic

__all__ = ["DLEN", "ESMM", "Logistic"]
