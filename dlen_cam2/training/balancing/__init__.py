"""Step rules: what a training step does about tasks that pull in different directions; one module for each method."""

from dlen_cam2.training.balancing.balancer import Balancer
from dlen_cam2.training.balancing.decay import Decay
from dlen_cam2.training.balancing.fixed import Fixed
from dlen_cam2.training.balancing.gradnorm import GradNorm
from dlen_cam2.training.balancing.metabalance import MetaBalance
from dlen_cam2.training.balancing.pcgrad import PCGrad
from dlen_cam2.training.balancing.step_rule import StepRule
from dlen_cam2.training.balancing.uncertainty import Uncertainty

__all__ = ["Balancer", "Decay", "Fixed", "GradNorm", "MetaBalance", "PCGrad", "StepRule", "Uncertainty"]
