"""Trunks: from the embedded row x (B, d) to one representation for each task's tower, (B, T, h)."""

from collections.abc import Sequence

import tensorflow as tf

from dlen_cam2.layers import CGC, Experts, Gates


def shared_bottom(x: tf.Tensor, tasks: int, units: Sequence[int]) -> tf.Tensor:
    """Hard sharing: one network, the same for all tasks (Caruana, 1997). (B, d) -> (B, T, units[-1])."""
    bottom = Experts(1, units, name="shared_bottom")(x)
    return tf.keras.layers.Lambda(lambda t: tf.repeat(t, tasks, axis=1), name="to_tasks")(bottom)


def mmoe(x: tf.Tensor, tasks: int, experts: int, units: Sequence[int]) -> tf.Tensor:
    """Multi-gate mixture of experts: `f^k(x) = Σ_i g^k(x)_i f_i(x)` (Ma et al., 2018, eqs 5-7).

    CERTAIN: linear gates without bias. Paper settings of DLEN's base: 5 experts [256, 128, 64]; Ali-CCP 2.
    (B, d) -> (B, T, units[-1]).
    """
    gates = Gates(tasks, experts, name="gates")(x)
    outputs = Experts(experts, units, name="experts")(x)
    return tf.keras.layers.Dot(axes=(2, 1), name="mixture")([gates, outputs])


def cgc(x: tf.Tensor, tasks: int, task_experts: int, shared_experts: int, units: Sequence[int]) -> tf.Tensor:
    """Customized gate control, one extraction layer (Tang et al., 2020, eqs 1-3). (B, d) -> (B, T, units[-1])."""
    return ple(x, tasks, task_experts, shared_experts, units, levels=1)


def ple(
    x: tf.Tensor, tasks: int, task_experts: int, shared_experts: int, units: Sequence[int], levels: int
) -> tf.Tensor:
    """Progressive layered extraction: `levels` CGC layers (Tang et al., 2020, eqs 4-5).

    CERTAIN: the paper's multi-level models have two levels; DLEN's base has 5 shared experts and 2 for each
    task (Ali-CCP: 2 and 1). (B, d) -> (B, T, units[-1]).
    """
    for level in range(1, levels + 1):
        x = CGC(tasks, task_experts, shared_experts, units, last=level == levels, name=f"cgc_{level}")(x)
    return x
