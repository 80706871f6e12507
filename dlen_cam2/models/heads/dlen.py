"""DLEN (Zhang et al., Tencent): a latent "user prefers this" state and capped conditional heads.

    P(k) = P(k|UP) P(UP) + P(k|¬UP) P(¬UP)                (eq 1)
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2.labels.kind import Calibrate, binary
from dlen_cam2.layers.axes import Axes, Axis, Reached
from dlen_cam2.layers.experts import Experts
from dlen_cam2.layers.log_space import log_not_capped, logaddexp
from dlen_cam2.layers.task_logits import TaskLogits
from dlen_cam2.models.context import Context
from dlen_cam2.models.parts import Head, Outputs
from dlen_cam2.parts import head, option
from dlen_cam2.schema import Feature, Schema
from dlen_cam2.utils.errors import UserError


@head("dlen")
@dataclasses.dataclass
class DLEN(Head):
    """The deep latent emotion network's head, over any trunk (DLEN, section 3): `LatentState` and `CappedHead`.

    DESIGN: P(UP) reads the embedded row, but not the columns that causal branches join to the towers.

    Attributes:
        alpha: the cap factor c: α_k = c * positive rate of task k. The paper uses 0.1 to 0.5.
        alpha_constant: above 0, the literal cap α of every task that is not negative, instead of c * positive rate.
        latent_units: layer sizes of the hidden state network.
        masked: how a task that follows another (a purchase among clicks) is computed. "exposure": eq 1 as printed, with
            the exposure's P(UP). "parent": P(UP | the tasks before it happened), `P(UP|j) = P(j|UP) P(UP) / P(j)`.
            DESIGN: the paper is silent. With P(UP) = .5, click .8 and .05, buy .2 and .02, the true P(buy|click) is
            .189, while eq 1 gives .11.
    """

    alpha: float = option(0.3, above=0, most=1, search=[0.1, 0.2, 0.3, 0.4, 0.5])
    alpha_constant: float = option(0.0, least=0, most=1)
    latent_units: tuple[int, ...] = option((256, 128, 64), least=1, some=True, search=["64", "128 64", "256 128 64"])
    masked: str = option("exposure", choices=("exposure", "parent"))

    title = "DLEN"
    compared_on = ("mmoe", "ple")
    needs_binary = True
    captions = {"cap_use": (
        "Cap use: P(k|¬UP) over its cap α", "b = P(k|¬UP) is at most the cap α (eq 10). Near 1, the cap limits the "
        "task. A task without a cap has α = 1.",
    )}

    def outputs(self, towers: tf.Tensor, x: tf.Tensor, context: Context) -> dict[str, tf.Tensor]:
        """The outputs of `CappedHead`, and "latent": (B, 1), the logit of P(UP)."""
        alphas = self.caps(context.schema)
        rates = [task.positive_rate for task in context.schema.tasks]
        # DESIGN: users prefer at least what they most often respond to, so P(UP) starts a little above that rate, and
        # P(k|UP) of that task near its end, where the latent state has to explain the differences between rows.
        capped = [rate for rate, alpha in zip(rates, alphas, strict=True) if alpha < 1]
        start = min(max(capped, default=0.45) / 0.9, 0.9)
        latent = LatentState(self.latent_units, start, name="latent_state")(x)
        follows = any(parent is not None for parent in context.schema.parents)
        parents = context.schema.parents if self.masked == "parent" and follows else ()
        capped_head = CappedHead(alphas, rates, start, context.joined, context.places, parents, name="capped_head")
        return {**capped_head([towers, latent]), "latent": latent}

    def caps(self, schema: Schema) -> list[float]:
        """The cap α of each binary task: `alpha_constant`, or `alpha * positive rate`.

        DESIGN: eq 7 bounds P(k|¬UP) by the task's marginal rate, and the text finds 0.1 to 0.5 times "the
        corresponding task" best, so the factor multiplies that rate. A negative task ("hate") is no sign of
        preference, so the bound does not hold for it and its α is 1 (uncapped).

        Raises:
            UserError: a task has no positives to put a cap on.
        """
        alphas = []
        for task in (schema.tasks[k] for k in binary(schema)):
            if not (task.positive_rate or task.negative or self.alpha_constant):
                raise UserError(
                    f"task {task.name!r} has no positives on the training days, so DLEN's cap alpha * positive rate "
                    "would be 0. Leave the task out (config.model.tasks) or set config.model.head.alpha_constant."
                )
            alphas.append(1.0 if task.negative else self.alpha_constant or self.alpha * task.positive_rate)
        return alphas

    def check_grown(self, before: Schema, now: Schema, stored: Sequence[Feature], fitted: Mapping[str, Any]) -> None:
        """With `masked="parent"`, P(k) is conditional on the task before k, which must not change."""
        old, new = before.follows, now.follows
        changed = sorted(task for task in old.keys() & new.keys() if old[task] != new[task])
        if changed and self.masked == "parent":
            raise UserError(f"config.model.head.masked='parent' must have {changed} follow the same tasks as before. "
                            f"Received: {[new[t] for t in changed]} in place of {[old[t] for t in changed]}.")

    def scores(self, outputs: Outputs, schema: Schema, calibrate: Calibrate | None = None) -> dict[str, tf.Tensor]:
        """`<task>` is P(k), the probability that is trained, calibrated if `calibrate` is given; `p_up` is P(UP).

        `<task>_up` is `P(k, UP) = P(k|UP) P(UP)` (eq 4): the ¬UP term is dropped, so it is below the training
        probability and is a score, not a calibrated probability of the behaviour. DESIGN: a negative task has none,
        since preferring the item is no part of it. With `masked="parent"`, both are given the task before k.
        """
        state = outputs.get("latent_given", outputs["latent"])
        joint = tf.exp(tf.math.log_sigmoid(outputs["preferred"]) + tf.math.log_sigmoid(state))
        tasks = [schema.tasks[k] for k in binary(schema)]
        scores = super().scores(outputs, schema, calibrate)
        scores |= {f"{t.name}_up": s for t, s in zip(tasks, tf.unstack(joint, axis=1), strict=True) if not t.negative}
        return {**scores, "p_up": tf.sigmoid(outputs["latent"][:, 0])}

    def score_names(self, schema: Schema) -> list[str]:
        tasks = [schema.tasks[k] for k in binary(schema)]
        return [*super().score_names(schema), *(f"{t.name}_up" for t in tasks if not t.negative), "p_up"]

    def preference(self, outputs: Outputs) -> tf.Tensor:
        return tf.sigmoid(outputs["latent"][:, 0])

    def telemetry(self, outputs: Outputs, schema: Schema) -> dict[str, tf.Tensor]:
        """"cap_use": b/α, how near P(k|¬UP) is to its cap (eq 10); near 1 the cap holds the task down."""
        return {"cap_use": tf.exp(outputs["not_preferred"] - np.log(np.asarray(self.caps(schema), np.float32)))}

    def notes(self, schema: Schema) -> dict[str, dict[str, str]]:
        names = [schema.task_names[k] for k in binary(schema)]
        caps = [f"α = {a:.4g}" if a < 1 else "no cap" for a in self.caps(schema)]
        return {"cap_use": dict(zip(names, caps, strict=True))}


@tf.keras.utils.register_keras_serializable(package="dlen_cam2")
class CappedHead(tf.keras.layers.Layer):
    """Each tower has two outputs, one for a user who prefers the item and one for a user who does not:

        a_k = P(k|UP)  = σ(w_a · X^k)                    (eq 9)
        b_k = P(k|¬UP) = α_k · σ(w_b · X^k) <= α_k       (eq 10)
        p_k = a_k P(UP) + b_k P(¬UP)                     (eq 1, the probability that is trained)

    CERTAIN: the equations (eq 5 prints the same fraction twice and eq 6 has corrupted denominators; the text
    around them says that P(k|¬UP) is below the marginal rate of k, which is below P(k|UP)); cross-entropy of p_k
    for every task, nothing on P(UP). DESIGN: the sigmoid in eqs 9-10 (implied by calling them probabilities), one
    constant α_k for each task, and the log space:

        log p     = logaddexp(log σ(a) + log σ(u),  log α + log σ(b) + log σ(-u))
        log (1-p) = logaddexp(log σ(-a) + log σ(u), log(1 - α σ(b)) + log σ(-u))

    with a, b, u the logits, so that rare tasks keep their precision. The output is the logit log p - log(1-p).

    Args:
        alphas: the caps α_k in (0, 1], one for each task. 1 means uncapped.
        rates: the tasks' positive rates r_k, at which p_k starts where it can (DESIGN, see `TaskLogits`). For towers of
            0 and P(UP) = π = `preferred_rate`, the b_k of a capped task starts at α_k / 2 and a_k at the remainder,
            (r_k - (1 - π) α_k / 2) / π. If that lies within [1e-4, 1 - 1e-4], p_k starts at r_k. If it is less (r_k far
            below π, or α_k above about 2 r_k / (1 - π)), p_k starts above r_k, at 1e-4 π + (1 - π) α_k / 2. If it is
            more (π too small for r_k), p_k starts below r_k, at (1 - 1e-4) π + (1 - π) α_k / 2. For an uncapped task,
            a_k, b_k and hence p_k start at r_k, clipped to that range. With `parents`, π is the initial P(UP) after the
            task before k. Empty: a_k starts at one half and b_k at α_k / 2.
        preferred_rate: π, the initial value of P(UP), see `LatentState`.
        joined: number of the towers' last columns that are joined from another network, see `Experts`.
        places: indices of the head's tasks among the model's tasks; empty: all of them.
        parents: for each task, the index of the task before it, or None, for the exact form; empty: eq 1 as printed.

    Input: towers (B, T, h) and the logit of P(UP) (B, 1). Output: a dictionary of float32 tensors (B, T):
    "logits" of p_k, "preferred", the logits of a_k, and "not_preferred", log b_k.

    Raises:
        ValueError: a cap is outside (0, 1] in float32, or there is not one for each task.

    References:
        DLEN (Zhang et al., Tencent), eqs 1, 7, 9, 10; `Schema.fit` and config.model.head.alpha give α.
    """

    def __init__(
        self, alphas: Sequence[float], rates: Sequence[float] = (), preferred_rate: float = 0.5, joined: int = 0,
        places: Sequence[int] = (), parents: Sequence[int | None] = (), **kwargs: Any,
    ):
        # The logits are float32 and must stay so under mixed precision: Keras would round them on the way in.
        super().__init__(autocast=False, **kwargs)
        self.alphas = tuple(float(a) for a in alphas)
        if not all(0 < np.float32(a) <= 1 for a in self.alphas):
            raise ValueError(f"alphas must be in (0, 1]. Received: alphas={self.alphas}.")
        self.rates = tuple(float(r) for r in rates)
        self.preferred_rate = preferred_rate
        self.joined = joined
        self.places = tuple(places)
        self.parents = tuple(parents)
        starts = list(zip(self.alphas, self.rates, strict=True)) if rates else []
        self.preferred = TaskLogits(self._starts(), joined, places, name="preferred", dtype=self.dtype_policy)
        self.not_preferred = TaskLogits(
            [r if alpha == 1 else 0.5 for alpha, r in starts], joined, places, name="not_preferred",
            dtype=self.dtype_policy,
        )

    def _starts(self) -> list[float]:
        """The a_k for which p_k is the rate when b_k is α_k / 2."""
        found: dict[int, tuple[float, float]] = {}  # a_k and P(UP) of the rows of task k

        def start(k: int) -> tuple[float, float]:
            if k not in found:
                u = self.preferred_rate
                if self.parents and (parent := self.parents[k]) is not None:
                    a, before = start(parent)
                    a = min(max(a, 1e-4), 1 - 1e-4)
                    b = a if self.alphas[parent] == 1 else self.alphas[parent] / 2
                    u = a * before / (a * before + b * (1 - before))
                alpha, r = self.alphas[k], self.rates[k]
                found[k] = r if alpha == 1 else (r - (1 - u) * alpha / 2) / u, u
            return found[k]

        return [start(k)[0] for k in range(len(self.rates))]

    def build(self, input_shape: Any) -> None:
        towers, _ = input_shape
        if towers[1] != len(self.alphas):
            raise ValueError(f"alphas must hold one cap for each of {towers[1]} tasks. Received: {self.alphas}.")
        super().build(input_shape)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        towers, latent = inputs
        return capped_probability(self.preferred(towers), self.not_preferred(towers), latent, self.alphas, self.parents)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "alphas": self.alphas, "rates": self.rates, "preferred_rate": self.preferred_rate,
            "joined": self.joined, "places": self.places, "parents": self.parents,
        }

    def axes(self, read: Axis | None, tasks: Axis) -> Axes:
        return [*self.preferred.axes(read, tasks), *self.not_preferred.axes(read, tasks)]

    def shared_weights(self) -> Reached:
        return []


def capped_probability(
    a: tf.Tensor, b: tf.Tensor, u: tf.Tensor, alphas: Sequence[float], parents: Sequence[int | None] = ()
) -> dict[str, tf.Tensor]:
    """Compute the equations of `CappedHead` from logits a, b (B, T) and u (B, 1)."""
    log_a = tf.math.log_sigmoid(a)
    log_b = np.log(np.asarray(alphas, np.float32)) + tf.math.log_sigmoid(b)
    given = {} if not parents else {"latent_given": _given_those_before(log_a, log_b, u, parents)}
    state = given.get("latent_given", u)
    log_u, log_not_u = tf.math.log_sigmoid(state), tf.math.log_sigmoid(-state)
    log_p = logaddexp(log_a + log_u, log_b + log_not_u)
    log_not_p = logaddexp(tf.math.log_sigmoid(-a) + log_u, log_not_capped(b, alphas) + log_not_u)
    return {"logits": log_p - log_not_p, "preferred": a, "not_preferred": log_b, **given}


def _given_those_before(
    log_a: tf.Tensor, log_b: tf.Tensor, u: tf.Tensor, parents: Sequence[int | None]
) -> tf.Tensor:
    """(B, T): the logits of P(UP) in the rows of each task, where all tasks before it happened.

        logit P(UP | k) = logit P(UP) + log a_k - log b_k        (Bayes)
    """
    ratio = log_a - log_b
    found: dict[int, tf.Tensor] = {}

    def state(k: int) -> tf.Tensor:
        if k not in found:
            parent = parents[k]
            found[k] = u[:, 0] if parent is None else state(parent) + ratio[:, parent]
        return found[k]

    return tf.stack([state(k) for k in range(len(parents))], axis=1)


@tf.keras.utils.register_keras_serializable(package="dlen_cam2")
class LatentState(tf.keras.layers.Layer):
    """The latent "user prefers this" state: `P(UP) = σ(w · mlp(x) + b)`, shared by all tasks.

    It is a separate ReLU network on the shared input and has no label: it learns only through the tasks' losses.
    CERTAIN (DLEN, section 3.2 and 4.1.1): three layers [256, 128, 64], ReLU, one output.

    Args:
        units: layer sizes.
        rate: the initial value of P(UP).

    Input: (B, d). Output: (B, 1), the logit of P(UP).

    References:
        DLEN (Zhang et al., Tencent), figure 2, eqs 1-2.
    """

    def __init__(self, units: Sequence[int] = (256, 128, 64), rate: float = 0.5, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = tuple(units)
        self.rate = rate
        self.network = Experts(1, units, name="network", dtype=self.dtype_policy)
        self.logit = TaskLogits([rate], name="logit", dtype=self.dtype_policy)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.logit(self.network(inputs))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"units": self.units, "rate": self.rate}

    def axes(self, read: Axis | None, tasks: Axis) -> Axes:
        return [*self.network.axes_along(None, read), (self.logit.kernel, (None, None)), (self.logit.bias, (None,))]

    def shared_weights(self) -> Reached:
        """No weights. DESIGN: balancing concerns the trunk; gradients of the latent state are added unchanged."""
        return []
