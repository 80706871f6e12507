"""ESMM (Ma et al., SIGIR 2018): tasks that follow each other, learned on all impressions."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from dlen_cam2.layers.log_space import logaddexp
from dlen_cam2.models.heads.logistic import plain


def esmm(
    towers: tf.Tensor, parents: Sequence[int | None], rates: Sequence[float] = (), joined: int = 0
) -> dict[str, tf.Tensor]:
    """The entire space multi-task model's head, for tasks of which one follows another, over any trunk.

    A conversion is learned on all impressions, through P(click and conversion) = P(click) P(conversion | click); it
    has no loss of its own on the clicked rows, so that its calibration there is to be measured.

    Args:
        towers: (B, T, h).
        parents: for each task the place of the task before it, or None, see `Schema.parents`.
        rates: the tasks' positive rates on their own rows, at which their probabilities start.
        joined: see `TaskLogits`.

    Returns:
        "logits" (B, T) of P(k | the task before), as of every head, and "joint" (B, T), the logits of `EntireSpace`,
        which are trained.

    References:
        ESMM (Ma et al., SIGIR 2018), eqs 1 and 3.
    """
    outputs = plain(towers, rates, joined)
    return {**outputs, "joint": EntireSpace(parents, name="entire_space")(outputs["logits"])}


class EntireSpace(tf.keras.layers.Layer):
    """From logits of P(k | the task before k) to logits of P(k and all tasks before k), on all impressions:

        pCTCVR = pCTR · pCVR

    CERTAIN: the equation. DESIGN: chains of any length, and the log space, so that rare tasks keep their precision:

        log p_k     = log p_before + log σ(a_k)
        log (1-p_k) = logaddexp(log (1-p_before),  log p_before + log σ(-a_k))

    with a_k the logits. A task that follows none keeps its logit.

    Args:
        parents: for each task the place of the task before it, or None. No chain may lead back to where it began.

    Input: (B, T) logits. Output: (B, T) logits, float32.

    Example:
        >>> p = tf.sigmoid(EntireSpace([None, 0])(tf.constant([[0.0, 0.0]])))
        >>> p.numpy().tolist()
        [[0.5, 0.25]]

    References:
        ESMM (Ma et al., SIGIR 2018), eq 1.
    """

    def __init__(self, parents: Sequence[int | None], **kwargs: Any):
        # The logits are float32 and must stay so under mixed precision: Keras would round them on the way in.
        super().__init__(autocast=False, **kwargs)
        self.parents = tuple(parents)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        logits = tf.unstack(inputs, axis=1)
        joint: dict[int, tuple[tf.Tensor, tf.Tensor]] = {}  # log p, log (1 - p)

        def chain(k: int) -> tuple[tf.Tensor, tf.Tensor]:
            if k not in joint:
                log_p, log_not_p = tf.math.log_sigmoid(logits[k]), tf.math.log_sigmoid(-logits[k])
                parent = self.parents[k]
                if parent is not None:
                    before, not_before = chain(parent)
                    log_p, log_not_p = before + log_p, logaddexp(not_before, before + log_not_p)
                joint[k] = log_p, log_not_p
            return joint[k]

        of_chains = [
            logits[k] if parent is None else chain(k)[0] - chain(k)[1] for k, parent in enumerate(self.parents)
        ]
        return tf.stack(of_chains, axis=1)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"parents": self.parents}
