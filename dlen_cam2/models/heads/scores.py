"""From the outputs of a head to what is evaluated and served."""

from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from dlen_cam2.schema import Task

# Logits (B, T) of the named tasks to calibrated logits.
Calibrate = Callable[[tf.Tensor, Sequence[str]], tf.Tensor]


def probabilities(outputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """(B, T): P(k), the probability that is trained (DLEN: eq 1). Calibrated; used by every metric."""
    return tf.sigmoid(outputs["logits"])


def serving_scores(
    outputs: Mapping[str, tf.Tensor], tasks: Sequence[Task], calibration: Calibrate | None = None
) -> dict[str, tf.Tensor]:
    """What a feed ranks by: {task: (B,)}, for DLEN also {"<task>_up", "p_up": (B,)}, for ESMM {"<task>_joint": (B,)}.

    - `<task>`: P(k), the probability that is trained, calibrated if a `calibration` is given;
    - `<task>_up`: `P(k, UP) = P(k|UP) P(UP)` (DLEN, eq 4): the ¬UP term is dropped, so it is below the training
      probability and is a score, not a calibrated probability of the behaviour. DESIGN: a negative task has none, since
      preferring the item is no part of it;
    - `p_up`: P(UP);
    - `<task>_joint` of a task that follows another: P(task and those before), of which ESMM's P(task) is the part that
      is known only through this product. Of the logits as trained: the calibration is of P(task).
    """
    logits = outputs["logits"] if calibration is None else calibration(outputs["logits"], [t.name for t in tasks])
    scores = dict(zip((t.name for t in tasks), tf.unstack(tf.sigmoid(logits), axis=1), strict=True))
    if "joint" in outputs:
        names = zip(tasks, tf.unstack(tf.sigmoid(outputs["joint"]), axis=1), strict=True)
        scores |= {f"{t.name}_joint": s for t, s in names if t.mask in [other.label for other in tasks]}
    if "latent" not in outputs:
        return scores
    joint = tf.exp(tf.math.log_sigmoid(outputs["preferred"]) + tf.math.log_sigmoid(outputs["latent"]))
    scores |= {f"{t.name}_up": s for t, s in zip(tasks, tf.unstack(joint, axis=1), strict=True) if not t.negative}
    return {**scores, "p_up": tf.sigmoid(outputs["latent"][:, 0])}
