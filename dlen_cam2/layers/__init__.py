"""The building blocks, one public class a file, named after the papers' word for it."""

from dlen_cam2.layers.capped_head import CappedHead
from dlen_cam2.layers.cgc import CGC
from dlen_cam2.layers.embeddings import Embeddings
from dlen_cam2.layers.experts import Experts
from dlen_cam2.layers.gates import Gates
from dlen_cam2.layers.latent_state import LatentState
from dlen_cam2.layers.task_logits import TaskLogits

__all__ = ["CGC", "CappedHead", "Embeddings", "Experts", "Gates", "LatentState", "TaskLogits"]
