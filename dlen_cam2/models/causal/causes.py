"""CAM2's label split: engagement out of conformity or out of relevance, and the causal losses."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2 import data
from dlen_cam2.config import ANY_POSITIVE, Cam2Config
from dlen_cam2.models.losses import targets
from dlen_cam2.schema import Feature, Schema
from dlen_cam2.utils.all_reduce import global_sum
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import read_json, write_json


@dataclasses.dataclass(frozen=True)
class Split:
    """Where engagement is split, as fitted on the training days and stored with the model.

    Attributes:
        engagement: the task whose labels are split, or "any_positive".
        statistic: the column X.
        thresh: the value of X at and above which engagement counts as conformity.
        rows, rows_above: rows in the engagement's sample space, and those of them with X >= thresh.
        engaged, engaged_above: the same of rows with engagement.
    """

    engagement: str
    statistic: str
    thresh: float
    rows: int
    rows_above: int
    engaged: int
    engaged_above: int

    @classmethod
    def unfitted(cls, config: Cam2Config) -> "Split":
        """A split of nothing known: half of the rows engage, half of all stand on each side."""
        return cls(config.engagement, config.statistic, config.thresh, 4, 2, 2, 1)

    def rates(self, joint: bool) -> tuple[float, float]:
        """What conformity and relevance predict on average: of joint heads, or of conditional ones."""
        above, below = (self.rows, self.rows) if joint else (self.rows_above, self.rows - self.rows_above)
        return self.engaged_above / above, (self.engaged - self.engaged_above) / below

    def save(self, path: str | os.PathLike) -> None:
        write_json(path, dataclasses.asdict(self))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Split":
        """Read what `save` wrote. Raises `UserError` if the file is absent or is none of ours."""
        values = read_json(path)
        names = {f.name for f in dataclasses.fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            raise UserError(f"{path} must be an object with the keys {sorted(names)}. Received: {values!r}.")
        for key, value in values.items():
            if not isinstance(value, str if key in ("engagement", "statistic") else int | float):
                raise UserError(f"{path}: {key} has the wrong type. Received: {value!r}.")
        return cls(**values)


def decompose(y: Any, x: Any, thresh: float) -> tuple[Any, Any]:
    """`c̄ = y · 1[X >= thresh]` and `r̄ = y · 1[X < thresh]`, so c̄ + r̄ = y exactly (CAM2, section 2.3).

    Args:
        y: (B,), 0 or 1.
        x: (B,), the statistic X, as it was before the row.
        thresh: the threshold.
    """
    above = tf.cast(x >= tf.cast(thresh, x.dtype), y.dtype)
    return y * above, y * (1 - above)


def engagement(labels: Mapping[str, tf.Tensor], schema: Schema, name: str) -> tuple[tf.Tensor, tf.Tensor]:
    """The engagement y that is split and its sample space δ, both (B,).

    A task is split on its own sample space. DESIGN: "any_positive" is 1 if any task that is not negative is positive
    in its sample space; it is defined for every row.

    Raises:
        UserError: `name` is no task of the schema.
    """
    y, mask = targets(labels, schema)
    if name == ANY_POSITIVE:
        positive = [i for i, t in enumerate(schema.tasks) if not t.negative]
        shown = tf.gather(y * mask, positive, axis=1)
        return tf.reduce_max(shown, axis=1), tf.ones_like(y[:, 0])
    if name not in schema.task_names:
        raise UserError(
            f"config.model.cam2.engagement must be {ANY_POSITIVE!r} or a task of the model. Received: {name!r}. "
            f"Known: {list(schema.task_names)}."
        )
    k = schema.task_names.index(name)
    return y[:, k], mask[:, k]


def check_statistic(config: Cam2Config, columns: Sequence[Feature]) -> None:
    """Raise `UserError` if X is not among the numeric statistical features of `columns`."""
    known = [f.name for f in columns if f.is_numeric and f.cause == "statistical"]
    if config.statistic not in known:
        raise UserError(
            "config.model.cam2.statistic must name a numeric statistical feature of the data set. "
            f"Received: {config.statistic!r}. Known: {known}."
        )


def fit(config: Cam2Config, schema: Schema, columns: Sequence[Feature], directory: str | os.PathLike,
        days: Sequence[str], on_bad_record: str = "fail") -> Split:
    """Find the threshold on the training days, in one pass over X and the labels.

    A quantile is that of X over the training rows in the engagement's sample space.

    Args:
        config: which statistic, engagement and threshold.
        schema: the model's tasks.
        columns: all features of the data set, among which X is.
        directory, days, on_bad_record: the data set and its training days, see `dlen_cam2.data.read`.

    Raises:
        UserError: X is no numeric statistical feature, one side of the threshold has no rows or no engagement, or no
            row's item has a known interest for the loss of each interest.
    """
    check_statistic(config, columns)
    interests = tuple(f for f in schema.features if f.name == config.interest_feature)
    if config.relevance != "interests":
        interests = ()
    narrow = dataclasses.replace(schema, features=interests, targets=(config.statistic,), keys={})
    xs, ys, tagged = [], [], 0
    with data.explained(directory, narrow, days):
        for features, labels in data.read(directory, narrow, days, batch_size=8192, on_bad_record=on_bad_record):
            tagged += sum(int(np.sum(features[f.group][f.name].numpy() > 0)) for f in interests)
            y, mask = engagement(labels, narrow, config.engagement)
            kept = mask.numpy() == 1
            ys.append(y.numpy()[kept] == 1)
            xs.append(labels[config.statistic].numpy()[kept])
    x, engaged = np.concatenate([np.zeros(0), *xs]), np.concatenate([np.zeros(0, bool), *ys])
    if not len(x):
        raise UserError(f"the training days hold no row of the engagement {config.engagement!r} to split.")
    if interests and not tagged:
        raise UserError(
            f"config.model.cam2.relevance='interests' needs items with known interests. Received: no known value of "
            f"{config.interest_feature!r} in the training days."
        )
    # float32 as the labels are, so that rows at the threshold compare equal.
    quantile = config.thresh_unit == "quantile"
    thresh = float(np.float32(np.quantile(x, config.thresh) if quantile else config.thresh))
    above = x >= thresh
    found = Split(config.engagement, config.statistic, thresh, len(x), int(above.sum()), int(engaged.sum()),
                  int((engaged & above).sum()))
    if not 0 < found.rows_above < found.rows or not 0 < found.engaged_above < found.engaged:
        raise UserError(
            f"config.model.cam2.thresh must leave rows with engagement on both sides of {config.statistic} = "
            f"{thresh:g}, or a cause has nothing to learn from. Received: {config.thresh:g} "
            f"({config.thresh_unit}), with {found.rows_above:,} of {found.rows:,} rows and {found.engaged_above:,} of "
            f"{found.engaged:,} engagements at or above; X runs from {x.min():g} to {x.max():g}."
        )
    return found


class CausalLoss:
    """`w_C L_C + w_R L_R`, which training adds to the tasks' losses.

    | | joint heads | conditional and gated heads |
    |---|---|---|
    | rows of L_C | all | X >= thresh |
    | rows of L_R | all | X < thresh |
    | labels | c̄ and r̄ of `decompose` | y |

    Each is a mean over its rows. CERTAIN: labels and joint heads as printed ("the conformity label is 1 if a user
    engagement happens and X >= thresh and 0 otherwise"), and all rows used for both. The text also
    calls the heads conditional, which labels on all rows do not make them; both readings are offered.
    DESIGN: cross-entropy as the classification form of both losses. The literal forms print the norm of one number,
    its absolute value, which would be least at the median, 0 for every rare label; squared they estimate the mean:

        conformity="norm":     L_C = mean (c̄ - ‖û + î‖)²
        relevance="interests": L_R = mean Σ_x (r̄_x - û_x î_x)²,   r̄_x = r̄ · 1[the item has x] / (interests it has)

    DESIGN: an item's interests share its label, so that Σ_x û_x î_x estimates r̄; rows whose item has no known interest
    are left out of L_R. With conditional heads the cross-entropy of their mixture is added, at weight 1, because only
    the mixing weights learn from it.

    Args:
        config: weights and forms.
        schema: the tasks.
        split: the fitted threshold.
        interests: the feature of the items' interests, for relevance="interests".

    References:
        CAM2 (Raul et al., 2023), section 2.3.
    """

    def __init__(self, config: Cam2Config, schema: Schema, split: Split, interests: Feature | None = None):
        self.config = config
        self.schema = schema
        self.split = split
        self.interests = interests

    def weights(
        self, features: Mapping[str, Mapping[str, tf.Tensor]], labels: Mapping[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """(B,) each: what a row counts in the means of L_C, L_R and the mixture's loss over all replicas' rows."""
        _, mask = engagement(labels, self.schema, self.split.engagement)
        above, below = decompose(mask, labels[self.split.statistic], self.split.thresh)
        joint = self.config.heads == "joint"
        known = tf.ones_like(mask) if self.interests is None else self._interest_share(features)[1]
        rows = {"c": mask if joint else above, "r": known * (mask if joint else below), "mixture": mask}
        return {name: kept / tf.maximum(global_sum(tf.reduce_sum(kept)), 1.0) for name, kept in rows.items()}

    def __call__(
        self, features: Mapping[str, Mapping[str, tf.Tensor]], labels: Mapping[str, tf.Tensor],
        outputs: Mapping[str, tf.Tensor], weights: Mapping[str, tf.Tensor] | None = None,
    ) -> tf.Tensor:
        """The scalar loss of a batch as `dlen_cam2.data.read` gives it; under tf.distribute a replica's share.

        `weights` are those of the whole batch where this is a part of it.
        """
        weights = self.weights(features, labels) if weights is None else weights
        y, _ = engagement(labels, self.schema, self.split.engagement)
        c, r = decompose(y, labels[self.split.statistic], self.split.thresh)
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
        """(B, k): an item's interests, which sum to 1, and (B,): 1 if it has any."""
        assert self.interests is not None
        index = features[self.interests.group][self.interests.name]
        hot = tf.one_hot(index if self.interests.is_list else index[:, None], self.interests.rows)  # padding is all 0
        has = tf.reduce_max(hot, axis=1) * tf.one_hot(0, self.interests.rows, on_value=0.0, off_value=1.0)  # 0: unknown
        count = tf.reduce_sum(has, axis=1)
        return tf.math.divide_no_nan(has, count[:, None]), tf.cast(count > 0, has.dtype)


def _cross_entropy(label: tf.Tensor, logit: tf.Tensor) -> tf.Tensor:
    return tf.nn.sigmoid_cross_entropy_with_logits(label, logit)
