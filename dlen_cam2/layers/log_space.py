"""Probabilities by their logarithms."""

import tensorflow as tf


def logaddexp(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """log(e^x + e^y)."""
    # Not max + softplus(-|x - y|): its gradient is wrong where x = y.
    return y + tf.math.softplus(x - y)
