"""Hard sharing (Caruana, 1997)."""

from collections.abc import Sequence

import tensorflow as tf

from dlen_cam2.layers import Experts


def shared_bottom(x: tf.Tensor, tasks: int, units: Sequence[int]) -> tf.Tensor:
    """Hard sharing: one network, the same for all tasks (Caruana, 1997). (B, d) -> (B, T, units[-1])."""
    bottom = Experts(1, units, name="shared_bottom")(x)
    return tf.keras.layers.Lambda(lambda t: tf.repeat(t, tasks, axis=1), name="to_tasks")(bottom)
