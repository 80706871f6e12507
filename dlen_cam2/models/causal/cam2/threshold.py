"""CAM2's label threshold, which attributes engagement to conformity or to relevance."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from dlen_cam2 import data
from dlen_cam2.labels.kind import binary, targets
from dlen_cam2.schema import Feature, Schema
from dlen_cam2.utils.errors import UserError

if TYPE_CHECKING:
    from dlen_cam2.models.causal.cam2.cam2 import CAM2

ANY_POSITIVE = "any_positive"


@dataclasses.dataclass(frozen=True)
class LabelThreshold:
    """The threshold at which engagement is split by cause, fitted on the training days and stored with the model.

    Attributes:
        engagement: the task whose labels are split, or "any_positive".
        statistic: the column X.
        thresh: the value of X at and above which engagement counts as conformity.
        rows, rows_above: number of rows in the engagement's sample space, and of those with X >= thresh.
        engaged, engaged_above: the same for rows with engagement.
    """

    engagement: str
    statistic: str
    thresh: float
    rows: int
    rows_above: int
    engaged: int
    engaged_above: int

    @classmethod
    def unfitted(cls, config: "CAM2") -> "LabelThreshold":
        """A threshold without data: half of the rows engage, and half of both kinds lie on each side."""
        return cls(config.engagement, config.statistic, config.thresh, 4, 2, 2, 1)

    def rates(self, joint: bool) -> tuple[float, float]:
        """The mean predictions of conformity and relevance, for joint or for conditional heads."""
        above, below = (self.rows, self.rows) if joint else (self.rows_above, self.rows - self.rows_above)
        return self.engaged_above / above, (self.engaged - self.engaged_above) / below

    def describe(self) -> str:
        """A line that describes the threshold to the user."""
        return (f"causes: {self.engagement} counts as conformity where {self.statistic} >= {self.thresh:g} "
                f"({self.engaged_above / self.engaged:.1%} of the engagement)")

    def to_dict(self) -> dict[str, Any]:
        """The threshold as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "LabelThreshold":
        """Create a threshold from the result of `to_dict`. Raises `UserError` if `values` are not that."""
        names = {f.name for f in dataclasses.fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            raise UserError(f"a label threshold must be an object with the keys {sorted(names)}. Received: {values!r}.")
        for key, value in values.items():
            if not isinstance(value, str if key in ("engagement", "statistic") else int | float):
                raise UserError(f"{key} of a label threshold has the wrong type. Received: {value!r}.")
        return cls(**values)


def decompose(y: Any, x: Any, thresh: float) -> tuple[Any, Any]:
    """Split labels by cause: `c̄ = y · 1[X >= thresh]` and `r̄ = y · 1[X < thresh]` (CAM2, section 2.3).

    c̄ + r̄ = y holds exactly.

    Args:
        y: (B,), 0 or 1.
        x: (B,), the statistic X, as known before the row.
        thresh: the threshold.
    """
    above = tf.cast(x >= tf.cast(thresh, x.dtype), y.dtype)
    return y * above, y * (1 - above)


def engagement(labels: Mapping[str, tf.Tensor], schema: Schema, name: str) -> tuple[tf.Tensor, tf.Tensor]:
    """The engagement y to be split and its sample space δ, both (B,).

    A task is split within its own sample space. DESIGN: "any_positive" is 1 if any task that is not negative is
    positive in its sample space; it is defined for every row.

    Raises:
        UserError: `name` is not a task of the schema.
    """
    y, mask = targets(labels, schema)
    if name == ANY_POSITIVE:
        positive = [i for i in binary(schema) if not schema.tasks[i].negative]
        shown = tf.gather(y * mask, positive, axis=1)
        return tf.reduce_max(shown, axis=1), tf.ones_like(y[:, 0])
    if name not in schema.task_names:
        raise UserError(
            f"config.model.causal.engagement must be {ANY_POSITIVE!r} or a task of the model. Received: {name!r}. "
            f"Known: {list(schema.task_names)}."
        )
    k = schema.task_names.index(name)
    return y[:, k], mask[:, k]


def statistic_of(config: "CAM2", columns: Sequence[Feature]) -> str:
    """The name of X: the one that is configured, or the first rate (transform "logit") of an item among `columns`.

    DESIGN: CAM2 only says that X is a statistic of the item's popularity. We take a rate, such as how often the item
    has been clicked so far, rather than a count of impressions, which also reflects the item's age.

    Raises:
        UserError: X is not among the numeric statistical features of `columns`, or none of them is a rate of an item.
    """
    known = [f for f in columns if f.is_numeric and f.cause == "statistical"]
    rates = [f.name for f in known if f.side == "item" and f.transform == "logit"]
    if config.statistic in [f.name for f in known]:
        return config.statistic
    if not config.statistic and rates:
        return rates[0]
    raise UserError(
        "config.model.causal.statistic must name a numeric statistical feature of the data set, or be empty for the "
        f"first rate of an item (transform:logit). Received: {config.statistic!r}. Known: {[f.name for f in known]}; "
        f"rates of items: {rates}."
    )


def fit(config: "CAM2", schema: Schema, columns: Sequence[Feature], directory: str | os.PathLike,
        days: Sequence[str], on_bad_record: str = "fail") -> LabelThreshold:
    """Find the threshold on the training days, in one pass over X and the labels.

    A quantile is taken over the values of X in the training rows of the engagement's sample space.

    Args:
        config: names the statistic, the engagement and the threshold.
        schema: the model's tasks.
        columns: all features of the data set, including X.
        directory, days, on_bad_record: the data set and its training days, see `dlen_cam2.data.read`.

    Raises:
        UserError: X is not a numeric statistical feature, one side of the threshold has no rows or no engagement, or
            the loss of each interest is asked for and no row's item has a known interest.
    """
    statistic = statistic_of(config, columns)
    interests = tuple(f for f in schema.features if f.name == config.interest_feature)
    if config.relevance != "interests":
        interests = ()
    narrow = dataclasses.replace(schema, features=interests, targets=(statistic,), keys={})
    xs, ys, tagged = [], [], 0
    with data.explained(directory, narrow, days):
        for features, labels in data.read(directory, narrow, days, batch_size=8192, on_bad_record=on_bad_record):
            tagged += sum(int(np.sum(features[f.group][f.name].numpy() > 0)) for f in interests)
            y, mask = engagement(labels, narrow, config.engagement)
            kept = mask.numpy() == 1
            ys.append(y.numpy()[kept] == 1)
            xs.append(labels[statistic].numpy()[kept])
    x, engaged = np.concatenate([np.zeros(0), *xs]), np.concatenate([np.zeros(0, bool), *ys])
    if not len(x):
        raise UserError("the training days must have rows in the sample space of the engagement "
                        f"{config.engagement!r}. Received: none.")
    if interests and not tagged:
        raise UserError(
            f"config.model.causal.relevance='interests' needs items with known interests. Received: no known value of "
            f"{config.interest_feature!r} in the training days."
        )
    # float32 as the labels are, so that rows at the threshold compare equal.
    quantile = config.thresh_unit == "quantile"
    thresh = float(np.float32(np.quantile(x, config.thresh) if quantile else config.thresh))
    above = x >= thresh
    found = LabelThreshold(config.engagement, statistic, thresh, len(x), int(above.sum()), int(engaged.sum()),
                  int((engaged & above).sum()))
    if not 0 < found.rows_above < found.rows or not 0 < found.engaged_above < found.engaged:
        raise UserError(
            f"config.model.causal.thresh must leave rows with engagement on both sides of {statistic} = "
            f"{thresh:g}, else a cause has nothing to learn from. Received: {config.thresh:g} "
            f"({config.thresh_unit}), with {found.rows_above:,} of {found.rows:,} rows and {found.engaged_above:,} of "
            f"{found.engaged:,} engagements at or above; X runs from {x.min():g} to {x.max():g}."
        )
    return found
