"""Sums over the replicas of a `tf.distribute` strategy."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def global_sum(value: tf.Tensor) -> tf.Tensor:
    """The sum of `value` over all replicas; `value` itself outside a replica, or with a single one."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def reduced(gradients: Sequence[Any]) -> list[Any]:
    """The gradients summed over all replicas; None stays None."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return list(gradients)
    present = [g for g in gradients if g is not None]
    summed = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, present) if present else ())
    return [None if g is None else next(summed) for g in gradients]
