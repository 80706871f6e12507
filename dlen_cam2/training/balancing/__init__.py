"""Multi-task loss balancing: what a training step does about tasks that pull in different directions, a method each."""

from dlen_cam2.training.balancing.balancer import Balancer
from dlen_cam2.training.balancing.build import balancer
from dlen_cam2.training.balancing.decay import Decay
from dlen_cam2.training.balancing.gradnorm import GradNorm
from dlen_cam2.training.balancing.metabalance import MetaBalance
from dlen_cam2.training.balancing.pcgrad import PCGrad, projected
from dlen_cam2.training.balancing.uncertainty import Uncertainty

__all__ = ["Balancer", "Decay", "GradNorm", "MetaBalance", "PCGrad", "Uncertainty", "balancer", "projected"]
