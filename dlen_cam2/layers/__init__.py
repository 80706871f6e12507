"""The building blocks, one public class a file, named after the papers' word for it."""

from dlen_cam2.layers.capped_head import CappedHead
from dlen_cam2.layers.cause_mixture import CauseMixture
from dlen_cam2.layers.cgc import CGC
from dlen_cam2.layers.conformity import Conformity
from dlen_cam2.layers.dropout import Dropout
from dlen_cam2.layers.embeddings import Embeddings
from dlen_cam2.layers.entire_space import EntireSpace
from dlen_cam2.layers.experts import Experts
from dlen_cam2.layers.gates import Gates
from dlen_cam2.layers.latent_state import LatentState
from dlen_cam2.layers.relevance import Relevance
from dlen_cam2.layers.residual import Residual
from dlen_cam2.layers.task_logits import TaskLogits

__all__ = [
    "CGC", "CappedHead", "CauseMixture", "Conformity", "Dropout", "Embeddings", "EntireSpace", "Experts", "Gates",
    "LatentState", "Relevance", "Residual", "TaskLogits",
]
