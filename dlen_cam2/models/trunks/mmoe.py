"""MMOE (Ma et al., 2018)."""

from collections.abc import Sequence

import tensorflow as tf

from dlen_cam2.layers import Experts, Gates


def mmoe(x: tf.Tensor, tasks: int, experts: int, units: Sequence[int]) -> tf.Tensor:
    """Multi-gate mixture of experts: `f^k(x) = Σ_i g^k(x)_i f_i(x)` (Ma et al., 2018, eqs 5-7).

    CERTAIN: linear gates without bias. Paper settings of DLEN's base: 5 experts [256, 128, 64]; Ali-CCP 2.
    (B, d) -> (B, T, units[-1]).
    """
    gates = Gates(tasks, experts, name="gates")(x)
    outputs = Experts(experts, units, name="experts")(x)
    return tf.keras.layers.Dot(axes=(2, 1), name="mixture")([gates, outputs])
