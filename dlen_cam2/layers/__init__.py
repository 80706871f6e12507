"""Layers that several papers share: one public class in each file, named after the papers' word for it."""

from dlen_cam2.layers.dropout import Dropout
from dlen_cam2.layers.embeddings import Embeddings
from dlen_cam2.layers.experts import Experts
from dlen_cam2.layers.gates import Gates
from dlen_cam2.layers.repeat import Repeat
from dlen_cam2.layers.residual import Residual
from dlen_cam2.layers.task_logits import TaskLogits

__all__ = ["Dropout", "Embeddings", "Experts", "Gates", "Repeat", "Residual", "TaskLogits"]
