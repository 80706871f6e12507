"""MMOE (Ma et al., KDD 2018): a mixture of experts, with a gate for each task."""

import dataclasses

import tensorflow as tf

from dlen_cam2.layers import Experts, Gates
from dlen_cam2.models.context import Context
from dlen_cam2.models.trunks.shared_bottom import SharedBottom
from dlen_cam2.parts import option, trunk


@trunk("mmoe")
@dataclasses.dataclass
class MMOE(SharedBottom):
    """Multi-gate mixture of experts (Ma et al., 2018, eqs 5-7):

        f^k(x) = Σ_i g^k(x)_i f_i(x)        g^k(x) = softmax(W_k x)

    CERTAIN: linear gates without bias. Paper settings of DLEN's base: 5 experts [256, 128, 64]; Ali-CCP 2.

    Attributes:
        units: layer sizes of an expert; ReLU after each.
        experts: number of experts, which all tasks share.
    """

    experts: int = option(5, least=1, search=(2, 8))

    title = "MMOE"

    def __call__(self, x: tf.Tensor, context: Context) -> tf.Tensor:
        gates = Gates(context.tasks, self.experts, name="gates")(x)
        outputs = Experts(self.experts, self.units, name="experts")(x)
        return tf.keras.layers.Dot(axes=(2, 1), name="mixture")([gates, outputs])
