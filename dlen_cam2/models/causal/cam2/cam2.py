"""CAM2 (Raul et al., 2023): branches that learn why users engage, out of conformity or out of interest.

    c̄ = y · 1[X >= thresh]        r̄ = y · 1[X < thresh]        (section 2.3: the labels of the two causes)
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from dlen_cam2.models.causal.cam2 import branches
from dlen_cam2.models.causal.cam2.losses import CausalLoss
from dlen_cam2.models.causal.cam2.threshold import ANY_POSITIVE, LabelThreshold, fit, statistic_of
from dlen_cam2.models.context import Context
from dlen_cam2.models.parts import Branches, Causal, Outputs, TrainingLog
from dlen_cam2.parts import causal, option
from dlen_cam2.schema import Feature, Schema
from dlen_cam2.utils.errors import UserError

STATE = "label_threshold"


@causal("cam2")
@dataclasses.dataclass
class CAM2(Causal):
    """CAM2's conformity and relevance branches, beside any trunk and head.

    Attributes:
        variant: a row of the paper's Table 1, whose "production" has no branches at all. "proposed": the branches'
            embeddings join the trunk's output behind a stop-gradient. "task_arch": they join the towers' outputs.
            "joint_loss": without the stop-gradient, so that one loss of task and causal labels trains the branches
            (DESIGN, our reading). "all_features": both branches see all features.
        engagement: the task whose labels are split by cause, or "any_positive" for any positive behaviour of the row.
        statistic: X, a numeric statistical feature of the data set, which need not be a feature of the model; empty:
            the first rate of an item, see `statistic_of`.
        thresh: engagement at X >= thresh is conformity, at X < thresh relevance; see `thresh_unit`.
        thresh_unit: "quantile": `thresh` is a quantile of X over the training rows; "value": X itself.
        heads: "joint": the heads estimate Pr(t and X >= thresh) and Pr(t and X < thresh) on all rows. "conditional":
            they estimate Pr(t | X >= thresh) on the rows at or above thresh and Pr(t | X < thresh) on the others, and
            two learned scalars mix them. "gated": the same, but a learned gate mixes them for each row.
        conformity: "logistic" or "norm", see `Conformity`.
        relevance: "probability": the cross-entropy of Σ û_x î_x. "interests": the paper's loss of each interest,
            squared, where `interest_feature` says which interests an item has; see `CausalLoss`.
        interest_feature: a categorical item feature such as "tags".
        without: features that no branch reads (except under "all_features"), such as ids of single videos: their
            cause is content, but their embeddings learn how popular each video is.
        units, blocks: width and number of the residual blocks.
        embedding: width of the conformity parts û and î.
        interests: k of the relevance parts (with "interests", the rows of the table of `interest_feature`).
        conformity_weight, relevance_weight: w_C and w_R of the total loss.
    """

    variant: str = option("proposed", choices=("task_arch", "joint_loss", "all_features", "proposed"))
    engagement: str = ANY_POSITIVE
    statistic: str = ""
    thresh: float = option(0.5, search=[0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
    thresh_unit: str = option("quantile", choices=("quantile", "value"), search=["quantile"])
    heads: str = option("joint", choices=("joint", "conditional", "gated"))
    conformity: str = option("logistic", choices=("logistic", "norm"))
    relevance: str = option("probability", choices=("probability", "interests"))
    interest_feature: str = ""
    without: tuple[str, ...] = ()
    units: int = option(64, least=1)
    blocks: int = option(2, least=0)
    embedding: int = option(16, least=2)
    interests: int = option(8, least=2)
    conformity_weight: float = option(1.0, least=0)
    relevance_weight: float = option(1.0, least=0)

    states = {STATE: LabelThreshold}
    score_names = ("conformity", "relevance")
    output_names = ("conformity", "conformity_norm", "relevance", "interests", "engagement")

    def check(self, where: str) -> None:
        super().check(where)
        if self.thresh_unit == "quantile" and not 0 < self.thresh < 1:
            raise UserError(f"{where}.thresh must be a quantile in (0, 1). Received: {self.thresh!r}.")
        if self.relevance == "interests" and not self.interest_feature:
            raise UserError(
                f"{where}.interest_feature must be the item feature that names interests, since {where}.relevance="
                "'interests' needs known interests. Received: ''."
            )

    @property
    def at_towers(self) -> bool:
        return self.variant == "task_arch"

    def fit(self, log: TrainingLog) -> dict[str, Any]:
        log.stored.select(without=self.without)  # refuses names that no feature has
        found = fit(self, log.schema, log.stored.features, log.directory, log.days, log.on_bad_record)
        return {STATE: found}

    def columns(self, fitted: Mapping[str, Any]) -> tuple[str, ...]:
        return (fitted[STATE].statistic,)

    def loss(self, schema: Schema, fitted: Mapping[str, Any]) -> CausalLoss:
        interests = branches.interest_feature(schema, self) if self.relevance == "interests" else None
        return CausalLoss(self, schema, fitted[STATE], interests)

    def check_grown(self, before: Schema, now: Schema, stored: Sequence[Feature], fitted: Mapping[str, Any]) -> None:
        """The engagement and the statistic must not change, nor the interests if outputs are a softmax over them."""
        statistic_of(self, stored)
        if (engagement := fitted[STATE].engagement) not in (ANY_POSITIVE, *now.task_names):
            raise UserError(
                f"--grow must keep the task whose labels CAM2 splits, {engagement!r}. Received: tasks "
                f"{list(now.task_names)}."
            )
        if self.relevance == "interests":
            old, new = (branches.interest_feature(s, self).rows for s in (before, now))
            if old != new:
                raise UserError(
                    "config.model.causal.relevance='interests' must keep its interests, since its outputs are a "
                    f"softmax over the rows of {self.interest_feature!r}. Received: {new} rows in place of {old}."
                )

    def branches(self, context: Context) -> Branches:
        return branches.branches(context.inputs, context.schema, self, context.fitted.get(STATE))

    def join(self, representation: tf.Tensor, embeddings: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return branches.join(representation, embeddings, self)

    def scores(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        return branches.cause_scores(outputs)
