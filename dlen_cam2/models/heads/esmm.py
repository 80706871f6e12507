"""ESMM (Ma et al., SIGIR 2018): tasks that follow each other, learned on all impressions."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from dlen_cam2.labels.kind import Calibrate, binary, kind_of, targets
from dlen_cam2.layers import TaskLogits
from dlen_cam2.layers.log_space import logaddexp
from dlen_cam2.models.context import Context
from dlen_cam2.models.parts import Head, Outputs
from dlen_cam2.parts import head
from dlen_cam2.schema import Schema
from dlen_cam2.utils.errors import UserError


@head("esmm")
@dataclasses.dataclass
class ESMM(Head):
    """The head of the entire space multi-task model, for tasks that follow each other, over any trunk:

        P(click and conversion) = P(click) P(conversion | click)

    A conversion is learned on all impressions, through that product. It has no loss on the clicked rows alone, so its
    calibration there must be measured. A task follows the task whose label is its mask.

    References:
        ESMM (Ma et al., SIGIR 2018), eqs 1 and 3.
    """

    needs_binary = True
    title = "ESMM"
    compared_on = ("shared_bottom",)

    @classmethod
    def name_on(cls, trunk: str) -> str:
        return cls.title  # the paper's own has that trunk, or nearly

    def outputs(self, towers: tf.Tensor, x: tf.Tensor, context: Context) -> dict[str, tf.Tensor]:
        """"logits" of P(k | the task before), and "joint", the logits of `EntireSpace`, which are trained."""
        schema = context.schema
        if all(parent is None for parent in schema.parents):
            raise UserError(
                "config.model.head='esmm' needs a task whose mask is the label of another task of the model. Received: "
                f"the masks {dict((t.name, t.mask) for t in schema.tasks)}."
            )
        rates = [task.positive_rate for task in schema.tasks]
        logits = TaskLogits(rates, context.joined, context.places, name="logits")(towers)
        return {"logits": logits, "joint": EntireSpace(schema.parents, name="entire_space")(logits)}

    def start_rates(self, schema: Schema) -> list[float]:
        rates = [task.positive_rate for task in schema.tasks]
        return [rate * math.prod(rates[a] for a in chain) for rate, chain in zip(rates, chains(schema), strict=True)]

    def targets(self, labels: Mapping[str, tf.Tensor], schema: Schema) -> tuple[tf.Tensor, tf.Tensor]:
        """The label of a task that follows another is 1 where it and all before it are 1 (click and conversion); its
        sample space is that of the first of them (all impressions)."""
        y, mask = targets(labels, schema)
        own, spaces = tf.unstack(y, axis=1), tf.unstack(mask, axis=1)
        joint, wide = list(own), list(spaces)
        for k, before in enumerate(chains(schema)):
            for ancestor in before:
                joint[k], wide[k] = joint[k] * own[ancestor], spaces[ancestor]
        return tf.stack(joint, axis=1), tf.stack(wide, axis=1)

    def trained(self, outputs: Outputs, schema: Schema) -> tf.Tensor:
        place = {k: n for n, k in enumerate(binary(schema))}
        if len(place) == len(schema.tasks):
            return outputs["joint"]
        return tf.stack([
            outputs["joint"][:, place[k]] if k in place else outputs["logits"][:, k] for k in range(len(schema.tasks))
        ], axis=1)

    def scores(self, outputs: Outputs, schema: Schema, calibrate: Calibrate | None = None) -> dict[str, tf.Tensor]:
        """`<task>_joint` of a task that follows another is P(task and those before); ESMM learns P(task) only through
        this product. It is computed from the logits as trained: calibration applies to P(task)."""
        joint = tf.unstack(tf.sigmoid(self.trained(outputs, schema)), axis=1)
        names = zip(schema.task_names, joint, chains(schema), strict=True)
        return super().scores(outputs, schema, calibrate) | {f"{task}_joint": p for task, p, chain in names if chain}

    def score_names(self, schema: Schema) -> list[str]:
        names = zip(schema.task_names, chains(schema), strict=True)
        return super().score_names(schema) + [f"{task}_joint" for task, chain in names if chain]


def chains(schema: Schema) -> list[tuple[int, ...]]:
    """`schema.ancestors` among binary tasks; a regression task follows none."""
    return [
        chain if kind_of(task).binary else () for task, chain in zip(schema.tasks, schema.ancestors, strict=True)
    ]


@tf.keras.utils.register_keras_serializable(package="dlen_cam2")
class EntireSpace(tf.keras.layers.Layer):
    """Turns logits of P(k | the task before k) into logits of P(k and all tasks before k), on all impressions:

        pCTCVR = pCTR · pCVR

    CERTAIN: the equation. DESIGN: chains of any length, and log space, so that rare tasks keep their precision:

        log p_k     = log p_before + log σ(a_k)
        log (1-p_k) = logaddexp(log (1-p_before),  log p_before + log σ(-a_k))

    with a_k the logits. A task that follows none keeps its logit.

    Args:
        parents: for each task, the index of the task before it, or None. The chains must not form a cycle.

    Input: logits (B, T). Output: logits (B, T), float32.

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
