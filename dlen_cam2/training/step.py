"""`Ranker`: a network with its loss and its training step, on TFRS's model and task."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs

from dlen_cam2.config import TrainConfig
from dlen_cam2.models import ReadOut
from dlen_cam2.models.parts import Loss
from dlen_cam2.schema import Schema
from dlen_cam2.training.balancing import Balancer
from dlen_cam2.training.balancing.gradients import total
from dlen_cam2.training.optimizers.rows import clipped, once
from dlen_cam2.utils.all_reduce import global_sum, reduced

Batch = tuple[Mapping[str, Any], Mapping[str, tf.Tensor]]
Gradients = list[Any]


class Ranker(tfrs.Model):
    """Trains `network` on batches `(features, labels)` from `dlen_cam2.data.read`.

        L = Σ_k ω_k L_k + w_C L_C + w_R L_R + regularisers

    Args:
        network: the network that `dlen_cam2.models.build` returned.
        read_out: the interpretation of its outputs, and its tasks.
        extra: losses that parts add, such as CAM2's w_C L_C + w_R L_R (CAM2, section 2.3).
        balancer: how the tasks are balanced against each other; None: by the schema's weights.
        train: settings for the parts of a batch, clipping and the loss scale; None: none of these.

    Attributes:
        bad_step: the first step whose loss or gradients were not finite, or -1.
        bad_losses: (T,), the tasks' losses at that step.
    """

    def __init__(
        self, network: tf.keras.Model, read_out: ReadOut, extra: Sequence[Loss] = (), balancer: Balancer | None = None,
        train: TrainConfig | None = None,
    ):
        super().__init__()
        self.network = network
        self.read_out = read_out
        self.schema = schema = read_out.schema
        self.extra = tuple(extra)
        self.balancer = balancer
        self._by_task = balancer is not None and balancer.by_task
        self.microbatches = train.microbatches if train else 1
        self.parts = train.accumulate * self.microbatches if train else 1
        self.clip_norm = train.clip_norm if train else 0.0
        self.loss_scale = train.loss_scale if train and train.precision == "mixed_float16" else 1.0
        # Every replica's logs are sums over all of them already.
        self.distribute_reduction_method = "first"
        first = {"trainable": False, "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA}
        self.bad_step = tf.Variable(-1, dtype=tf.int64, name="bad_step", **first)
        self.bad_losses = tf.Variable(tf.zeros(len(schema.tasks)), name="bad_losses", **first)

    def call(self, features: Mapping[str, Any], training: bool = False) -> dict[str, tf.Tensor]:
        return self.network(features, training=training)

    def compute_loss(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """The loss of this replica's rows, without regularisers; its sum over all replicas is L."""
        losses, extra = self._parts_of_loss(inputs, self._weights(inputs), training)
        return tf.reduce_sum(losses) + extra

    def _weights(self, inputs: Batch) -> dict[str, Any]:
        """The weights of each row in the tasks' losses and in those of parts, over all replicas."""
        return {
            "tasks": sample_weights(self.read_out.head.targets(inputs[1], self.schema)[1], self.schema),
            "extra": [loss.weights(*inputs) for loss in self.extra],
        }

    def _parts_of_loss(self, inputs: Batch, weights: Mapping[str, Any], training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """The tasks' losses ω_k L_k, (T,), and the losses that parts add during training."""
        features, labels = inputs
        outputs = self(features, training=training)
        head = self.read_out.head
        y, _ = head.targets(labels, self.schema)
        # Where the mask is 0, a number may be so far from the mean that its squared error is infinite.
        rows = tf.math.multiply_no_nan(head.losses(outputs, y, self.schema), weights["tasks"])
        extra = tf.constant(0.0)
        if training:
            for loss, of_loss in zip(self.extra, weights["extra"], strict=True):
                extra += loss(features, labels, outputs, of_loss)
        return tf.reduce_sum(rows, axis=0), extra

    @tf.autograph.experimental.do_not_convert  # nothing of it needs conversion, which takes longer than tracing
    def train_step(self, inputs: Batch) -> dict[str, tf.Tensor]:
        """Perform one update. Returns the losses over all replicas, by task, and the norm of the gradients."""
        variables = self.network.trainable_variables
        weights = self._weights(inputs)
        factors = tf.ones(len(self.schema.tasks)) if self.balancer is None else self.balancer.weights()
        of_parts: list[tf.Tensor] = []
        found: list[list[Gradients]] = []
        for k, ((part, part_weights), share) in enumerate(self._cut((inputs, weights))):
            # So many at a time, or all of them would lie in memory.
            with tf.control_dependencies(of_parts[: max(0, k + 1 - self.microbatches)]):
                of_part, gradients = self._gradients(part, part_weights, share, factors, variables)
            of_parts.append(of_part)
            found.append(gradients)
        by_task = [[total(parts) for parts in zip(*of_task, strict=True)] for of_task in zip(*found, strict=True)]
        losses = global_sum(tf.add_n(of_parts))
        by_task = [reduced(self._unscaled(each)) for each in by_task]
        combined = by_task[0]
        if self.balancer is not None and self._by_task:
            combined = self.balancer.combine(by_task, losses, variables)
        # tf.linalg.global_norm, and so tf.clip_by_global_norm, takes lookups of one row for gradients of different
        # rows, and how many there are depends on the step rule. The optimizer would sum them anyway.
        combined = [once(each) for each in combined]
        norm = tf.linalg.global_norm([g for g in combined if g is not None])
        if self.clip_norm:
            combined = clipped(combined, norm, self.clip_norm)
        self._remember_non_finite(losses, norm)
        self.optimizer.apply_gradients(
            [(g, v) for g, v in zip(combined, variables, strict=True) if g is not None],
            experimental_aggregate_gradients=False,
        )
        if self.balancer is not None:
            self.balancer.update(losses[:-1])
        total_loss = tf.reduce_sum(losses[:-1] * factors) + losses[-1]
        of_tasks = zip(self.schema.task_names, tf.unstack(losses[:-1]), strict=True)
        return {"loss": total_loss, **{f"loss/{name}": loss for name, loss in of_tasks}, "gradient_norm": norm}

    def _cut(self, batch: Any) -> list[tuple[Any, tf.Tensor]]:
        """Cut a batch into `accumulate * microbatches` parts, each with its share of the rows of all replicas."""
        if self.parts == 1:
            return [(batch, tf.constant(1.0))]
        rows = tf.shape(tf.nest.flatten(batch)[0])[0]
        ends = [rows * k // self.parts for k in range(self.parts + 1)]
        whole = tf.maximum(global_sum(tf.cast(rows, tf.float32)), 1.0)
        return [
            (tf.nest.map_structure(lambda t, a=a, b=b: t[a:b], batch), global_sum(tf.cast(b - a, tf.float32)) / whole)
            for a, b in zip(ends, ends[1:], strict=False)
        ]

    def _gradients(
        self, inputs: Batch, weights: Mapping[str, Any], share: tf.Tensor, factors: tf.Tensor,
        variables: Sequence[tf.Variable],
    ) -> tuple[tf.Tensor, list[Gradients]]:
        """The losses (T + 1,), the last of all that is no task's; gradients of their sum times factors, or of each."""
        with tf.GradientTape(persistent=self._by_task) as tape:
            losses, extra = self._parts_of_loss(inputs, weights, training=True)
            # Regularisers are means over the rows of a part.
            extra += share * tf.add_n([tf.zeros(()), *self.network.losses])
            by_task = [*tf.unstack(losses * factors * self.loss_scale), extra * self.loss_scale]
            wanted = by_task if self._by_task else [tf.add_n(by_task)]
        return tf.concat([losses, extra[None]], axis=0), [tape.gradient(loss, variables) for loss in wanted]

    def _unscaled(self, gradients: Gradients) -> Gradients:
        if self.loss_scale == 1:
            return gradients
        return [None if g is None else tf.math.scalar_mul(1 / self.loss_scale, g) for g in gradients]

    def _remember_non_finite(self, losses: tf.Tensor, norm: tf.Tensor) -> None:
        """Record the first step that is not finite."""
        first = (self.bad_step < 0) & ~tf.math.is_finite(norm + tf.reduce_sum(losses))
        self.bad_losses.assign(tf.where(first, losses[:-1], self.bad_losses))
        self.bad_step.assign(tf.where(first, tf.cast(self.optimizer.iterations, tf.int64), self.bad_step))


def sample_weights(mask: tf.Tensor, schema: Schema) -> tf.Tensor:
    """The weights `ω_k δ_ik / max(1, Σ_i δ_ik)`, (B, T), with the sum over the global batch of all replicas.

        L = Σ_k ω_k · Σ_i δ_ik ℓ_ik / Σ_i δ_ik

    A task without rows in the batch has weight 0, hence no loss and no gradient.

    References:
        PLE (Tang et al., 2020), eq 7: a task's loss is averaged over the rows in its sample space.
    """
    rows = global_sum(tf.reduce_sum(mask, axis=0))
    return mask * tf.constant([t.weight for t in schema.tasks]) / tf.maximum(rows, 1.0)
