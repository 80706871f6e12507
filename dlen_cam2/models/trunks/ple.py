"""PLE, progressive layered extraction (Tang et al., RecSys 2020)."""

import dataclasses

import tensorflow as tf

from dlen_cam2.models.context import Context
from dlen_cam2.models.trunks.cgc import CGC
from dlen_cam2.parts import option, trunk


@trunk("ple")
@dataclasses.dataclass
class PLE(CGC):
    """Progressive layered extraction: `levels` extraction layers of CGC (Tang et al., 2020, eqs 4-5).

    CERTAIN: the paper's multi-level models have two levels.

    Attributes:
        units, experts, task_experts: see `CGC`.
        levels: number of extraction layers.
    """

    levels: int = option(2, least=1, search=(1, 3))

    title = "PLE"

    def __call__(self, x: tf.Tensor, context: Context) -> tf.Tensor:
        return self.extract(x, context, self.levels)
