"""PLE (Tang et al., 2020)."""

from collections.abc import Sequence

import tensorflow as tf

from dlen_cam2.models.trunks.cgc import CGC


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
