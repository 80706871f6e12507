"""Row-sparse Adagrad for the embedding tables, Adam for everything else."""

from dlen_cam2.training.optimizers.composite import composite, set_rates
from dlen_cam2.training.optimizers.row_adagrad import RowAdagrad

__all__ = ["RowAdagrad", "composite", "set_rates"]
