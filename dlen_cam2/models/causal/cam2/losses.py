"""CAM2's causal losses."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import tensorflow as tf

from dlen_cam2.models.causal.cam2.threshold import LabelThreshold, decompose, engagement
from dlen_cam2.schema import Feature, Schema
from dlen_cam2.utils.all_reduce import global_sum

if TYPE_CHECKING:
    from dlen_cam2.models.causal.cam2.cam2 import CAM2


class CausalLoss:
    """`w_C L_C + w_R L_R`, which training adds to the tasks' losses.

    | | joint heads | conditional and gated heads |
    |---|---|---|
    | rows of L_C | all | X >= thresh |
    | rows of L_R | all | X < thresh |
    | labels | c̄ and r̄ of `decompose` | y |

    Each loss is a mean over its rows. CERTAIN: labels and joint heads as printed ("the conformity label is 1 if a user
    engagement happens and X >= thresh and 0 otherwise"), with all rows used for both. The text also calls the heads
    conditional, which labels on all rows do not make them; both readings are offered. DESIGN: cross-entropy as the
    classification form of both losses. The literal forms print the norm of a single number, that is its absolute value,
    whose minimum is at the median, 0 for every rare label; squared, they estimate the mean:

        conformity="norm":     L_C = mean (c̄ - ‖û + î‖)²
        relevance="interests": L_R = mean Σ_x (r̄_x - û_x î_x)²,   r̄_x = r̄ · 1[the item has x] / (interests it has)

    DESIGN: an item's interests share its label, so that Σ_x û_x î_x estimates r̄; rows whose item has no known interest
    are left out of L_R. With conditional heads, the cross-entropy of their mixture is added with weight 1, because only
    the mixing weights learn from it.

    Args:
        config: the weights and forms of the losses.
        schema: the tasks.
        threshold: the fitted label threshold.
        interests: the feature that holds the items' interests, for relevance="interests".

    References:
        CAM2 (Raul et al., 2023), section 2.3.
    """

    def __init__(self, config: "CAM2", schema: Schema, threshold: LabelThreshold, interests: Feature | None = None):
        self.config = config
        self.schema = schema
        self.threshold = threshold
        self.interests = interests

    def weights(
        self, features: Mapping[str, Mapping[str, tf.Tensor]], labels: Mapping[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """The weights (B,) of the rows in the means of L_C, L_R and the mixture's loss over all replicas' rows."""
        _, mask = engagement(labels, self.schema, self.threshold.engagement)
        above, below = decompose(mask, labels[self.threshold.statistic], self.threshold.thresh)
        joint = self.config.heads == "joint"
        known = tf.ones_like(mask) if self.interests is None else self._interest_share(features)[1]
        rows = {"c": mask if joint else above, "r": known * (mask if joint else below), "mixture": mask}
        return {name: kept / tf.maximum(global_sum(tf.reduce_sum(kept)), 1.0) for name, kept in rows.items()}

    def __call__(
        self, features: Mapping[str, Mapping[str, tf.Tensor]], labels: Mapping[str, tf.Tensor],
        outputs: Mapping[str, tf.Tensor], weights: Mapping[str, tf.Tensor] | None = None,
    ) -> tf.Tensor:
        """The scalar loss of a batch from `dlen_cam2.data.read`; under tf.distribute, the share of this replica.

        `weights` are those of the whole batch if `features` and `labels` are only a part of it.
        """
        weights = self.weights(features, labels) if weights is None else weights
        y, _ = engagement(labels, self.schema, self.threshold.engagement)
        c, r = decompose(y, labels[self.threshold.statistic], self.threshold.thresh)
        if self.config.conformity == "norm":
            loss_c = tf.square(c - outputs["conformity_norm"][:, 0])
        else:
            loss_c = _cross_entropy(c, outputs["conformity"][:, 0])
        if self.interests is None:
            loss_r = _cross_entropy(r, outputs["relevance"][:, 0])
        else:
            share, _ = self._interest_share(features)
            loss_r = tf.reduce_sum(tf.square(r[:, None] * share - outputs["interests"]), axis=1)
        loss = self.config.conformity_weight * tf.reduce_sum(loss_c * weights["c"])
        loss += self.config.relevance_weight * tf.reduce_sum(loss_r * weights["r"])
        if self.config.heads != "joint":
            p = outputs["engagement"][:, 0]
            # Clipped without taking the gradient away: a mixture above 1 must come down.
            p += tf.stop_gradient(tf.clip_by_value(p, 1e-6, 1 - 1e-6) - p)
            loss += tf.reduce_sum((-y * tf.math.log(p) - (1 - y) * tf.math.log1p(-p)) * weights["mixture"])
        return loss

    def _interest_share(self, features: Mapping[str, Mapping[str, tf.Tensor]]) -> tuple[tf.Tensor, tf.Tensor]:
        """An item's interests, (B, k), which sum to 1, and (B,), 1 if the item has any."""
        assert self.interests is not None
        index = features[self.interests.group][self.interests.name]
        hot = tf.one_hot(index if self.interests.is_list else index[:, None], self.interests.rows)  # padding is all 0
        has = tf.reduce_max(hot, axis=1) * tf.one_hot(0, self.interests.rows, on_value=0.0, off_value=1.0)  # 0: unknown
        count = tf.reduce_sum(has, axis=1)
        return tf.math.divide_no_nan(has, count[:, None]), tf.cast(count > 0, has.dtype)


def _cross_entropy(label: tf.Tensor, logit: tf.Tensor) -> tf.Tensor:
    return tf.nn.sigmoid_cross_entropy_with_logits(label, logit)
