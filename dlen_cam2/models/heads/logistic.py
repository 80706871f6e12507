"""The logistic head: one logit for each task."""

import dataclasses

import tensorflow as tf

from dlen_cam2.layers import TaskLogits
from dlen_cam2.models.context import Context
from dlen_cam2.models.parts import Head
from dlen_cam2.parts import head


@head("logistic")
@dataclasses.dataclass
class Logistic(Head):
    """A logit for each task: `P(k) = σ(w_k · X^k + b_k)` starts at the positive rate (DESIGN, see `TaskLogits`)."""

    def outputs(self, towers: tf.Tensor, x: tf.Tensor, context: Context) -> dict[str, tf.Tensor]:
        rates = [task.positive_rate for task in context.schema.tasks]
        return {"logits": TaskLogits(rates, context.joined, context.places, name="logits")(towers)}
