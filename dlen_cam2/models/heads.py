"""Heads: from the towers' outputs to logits, and from logits to what is evaluated and served."""

from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from dlen_cam2.layers import CappedHead, EntireSpace, LatentState, TaskLogits
from dlen_cam2.schema import Task

# Logits (B, T) of the named tasks to calibrated logits.
Calibrate = Callable[[tf.Tensor, Sequence[str]], tf.Tensor]


def plain(towers: tf.Tensor, rates: Sequence[float] = (), joined: int = 0) -> dict[str, tf.Tensor]:
    """One logit for each task, which starts at the task's positive rate. (B, T, h) -> {"logits": (B, T)}.

    `joined` of the h columns come from another network, see `TaskLogits`.
    """
    return {"logits": TaskLogits(rates, joined, name="logits")(towers)}


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


def dlen(
    towers: tf.Tensor, x: tf.Tensor, alphas: Sequence[float], latent_units: Sequence[int],
    rates: Sequence[float] = (), joined: int = 0,
) -> dict[str, tf.Tensor]:
    """The deep latent emotion network's head, over any trunk (DLEN, section 3).

    Args:
        towers: (B, T, h).
        x: (B, d), the shared input, which the hidden state network reads.
        alphas: the caps of P(k|¬UP), see `CappedHead`.
        latent_units: layer sizes of the hidden state network.
        rates: the tasks' positive rates, at which P(k) starts where it can, see `CappedHead`.
        joined: columns of the towers that come from another network (CAM2's embeddings). DESIGN: P(UP) reads the
            trunk's input only.

    Returns:
        What `CappedHead` returns, and "latent": (B, 1), the logit of P(UP).
    """
    # DESIGN: users prefer at least what they most often respond to, so P(UP) starts a little above that rate, and
    # P(k|UP) of that task near its end, where the latent state has to explain the differences between rows.
    capped = [rate for rate, alpha in zip(rates, alphas, strict=True) if alpha < 1] if rates else []
    start = min(max(capped, default=0.45) / 0.9, 0.9)
    latent = LatentState(latent_units, start, name="latent_state")(x)
    return {**CappedHead(alphas, rates, start, joined, name="capped_head")([towers, latent]), "latent": latent}


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
