"""One logit for each task."""

from collections.abc import Sequence

import tensorflow as tf

from dlen_cam2.layers import TaskLogits


def plain(towers: tf.Tensor, rates: Sequence[float] = (), joined: int = 0) -> dict[str, tf.Tensor]:
    """One logit for each task, which starts at the task's positive rate. (B, T, h) -> {"logits": (B, T)}.

    `joined` of the h columns come from another network, see `TaskLogits`.
    """
    return {"logits": TaskLogits(rates, joined, name="logits")(towers)}
