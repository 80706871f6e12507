"""Arithmetic on the logarithms of probabilities."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf


def logaddexp(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Compute log(e^x + e^y)."""
    # Not max + softplus(-|x - y|): its gradient is wrong where x = y.
    return y + tf.math.softplus(x - y)


def log_not_capped(b: tf.Tensor, alphas: Sequence[float]) -> tf.Tensor:
    """Compute log(1 - α_k σ(b)) at any magnitude; the relative error of its gradient is at most 1e-5.

    The result is -softplus(c), where c is the logit of α σ(b):

        c = log α + b - softplus(t) = log (α / (1 - α)) + log σ(t),        t = b + log(1 - α)

    The first form is used for t <= 0 (with α = 1: always) and the second for t > 0, where the first's terms cancel.
    """
    alpha = np.asarray(alphas, np.float32)
    log_alpha = np.log(alpha)
    with np.errstate(divide="ignore"):
        log_rest = np.maximum(np.log1p(-alpha), -1e4)  # finite also where α = 1
    t = b + log_rest
    c = tf.where(t > 0, log_alpha - log_rest + tf.math.log_sigmoid(t), log_alpha + b - tf.math.softplus(t))
    return -tf.math.softplus(c)
