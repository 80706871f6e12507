"""`Feature` and `Task`: descriptions of one column of a data set."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from dlen_cam2 import parts
from dlen_cam2.schema.computed import Computed
from dlen_cam2.utils.errors import UserError

SIDES = ("user", "item", "context")
CAUSES = ("statistical", "content", "context")
DTYPES = ("int", "float", "string")
TRANSFORMS = ("", "log1p", "logit")


@dataclasses.dataclass(frozen=True)
class Feature:
    """A feature: one column that the model reads.

    Categorical features (`int`, `string`) become the rows of an embedding table. Index 0 stands for
    "missing or unknown", so a table has `1 + cardinality` rows:

    - `int`, not hashed: an id v in [0, size) has index 1 + v;
    - with a vocabulary: the value at position p has index 1 + p;
    - hashed: a value has index 1 + hash(value) mod size;
    - with `oov_buckets`, a value outside the vocabulary has index 1 + |vocabulary| + hash(value) mod oov_buckets.

    Numeric features (`float`) enter as (t(v) - mean) / std, where t is the feature's transform: "" leaves v as it is,
    "log1p" is log(1 + v) for heavy-tailed v >= 0, and "logit" is log(v / (1 - v)) for rates v in [0, 1], whose
    differences matter most near 0.

    Attributes:
        name: the column's name in the records.
        dtype: "int", "float" or "string".
        side: whom the feature describes: "user", "item" or "context".
        cause: where its values come from: "statistical" (counts and rates of past feedback), "content" (attributes,
            ids, history) or "context". CAM2 gives statistical features to conformity and content to relevance.
        size: int ids are in [0, size); for a hashed feature, the number of buckets.
        hashed: map any value that is not missing (ids below 0, "") to one of `size` buckets; two values collide
            with probability 1 / size.
        vocabulary: the known values in index order: strings, or ids of at least 0.
        min_count: above 0, the vocabulary is learned from the training days: the values that occur at least this often
            in single rows (in lists, if the table has no single-valued feature), most frequent first; see
            `Schema.learn`.
        oov_buckets: rows that values outside the vocabulary share by their hash; 0: they count as unknown.
        width: embedding width of a categorical feature.
        table: name of the embedding table; features that name the same table share it. Default: `name`.
        max_length: 1 for a single value; above 1 the feature is a list of up to `max_length` values
            (categorical only); the reader keeps the first ones.
        transform: numeric only; "", "log1p" or "logit".
        mean, std: numeric only; moments of t(v) over the training days, see `Schema.fit`.
        computed: how the pipeline computes the feature; None for a column of the log.

    Raises:
        UserError: an attribute breaks one of these rules.
    """

    name: str
    dtype: str
    side: str
    cause: str
    size: int = 0
    hashed: bool = False
    vocabulary: tuple[str, ...] | tuple[int, ...] = ()
    min_count: int = 0
    oov_buckets: int = 0
    width: int = 0
    table: str = ""
    max_length: int = 1
    transform: str = ""
    mean: float = 0.0
    std: float = 1.0
    computed: Computed | None = None

    def __post_init__(self) -> None:
        def rule(holds: bool, text: str, received: Any) -> None:
            if not holds:
                raise UserError(f"feature {self.name!r}: {text}. Received: {received!r}.")

        rule(bool(self.name), "name must not be empty", self.name)
        rule(self.dtype in DTYPES, f"dtype must be one of {DTYPES}", self.dtype)
        rule(self.side in SIDES, f"side must be one of {SIDES}", self.side)
        rule(self.cause in CAUSES, f"cause must be one of {CAUSES}", self.cause)
        rule(self.max_length >= 1, "max_length must be at least 1", self.max_length)
        if isinstance(self.computed, Mapping):  # from JSON
            object.__setattr__(self, "computed", Computed(**self.computed))
        if self.computed is not None:
            self._check_computed(rule, self.computed)
        for number in ("mean", "std"):  # plain floats, so that their text in schema.pbtxt is a number's
            object.__setattr__(self, number, float(getattr(self, number)))
        if self.is_numeric:
            rule(self.max_length == 1, "a float feature must be single-valued", self.max_length)
            rule(not (self.size or self.hashed or self.has_vocabulary or self.oov_buckets or self.width or self.table),
                 "a float feature must have no vocabulary, size, hash, width or table", self)
            rule(self.transform in TRANSFORMS, f"transform must be one of {TRANSFORMS}", self.transform)
            rule(math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0,
                 "mean must be finite and std positive", (self.mean, self.std))
            return
        rule(self.width >= 1, "width of a categorical feature must be at least 1", self.width)
        rule(not self.transform and self.mean == 0.0 and self.std == 1.0,
             "only a float feature may have transform, mean and std", (self.transform, self.mean, self.std))
        if not self.table:
            object.__setattr__(self, "table", self.name)
        rule(self.min_count >= 0 and self.oov_buckets >= 0, "min_count and oov_buckets must be at least 0",
             (self.min_count, self.oov_buckets))
        if self.has_vocabulary:
            rule(not self.hashed and not self.size,
                 "a feature with a vocabulary must have no hash and no size: remove the tag hash_buckets (or the "
                 "int_domain), or else min_count, oov_buckets and the vocabulary", (self.hashed, self.size))
            rule(len(set(self.vocabulary)) == len(self.vocabulary), "vocabulary must hold each value once",
                 len(self.vocabulary))
            kind: type = str if self.dtype == "string" else int
            wrong = [v for v in self.vocabulary if type(v) is not kind]
            rule(not wrong, f"vocabulary must hold values of type {kind.__name__}", wrong[:3])
            rule("" not in self.vocabulary, "vocabulary must not hold the empty string, which means missing", "")
            absent = [v for v in self.vocabulary if isinstance(v, int) and v < 0]
            rule(not absent, "vocabulary must not hold ids below 0, which mean missing", absent[:3])
        else:
            rule(self.size >= 1, "size must be at least 1: a feature without a vocabulary or the tag min_count needs "
                 "the tag hash_buckets, or an int_domain of integers", self.size)
            rule(self.dtype == "int" or self.hashed, "a string feature needs a vocabulary or hashing", self.hashed)
            rule(not self.oov_buckets, "oov_buckets need a vocabulary: remove the tag, or give min_count in place of "
                 "hash_buckets", self.oov_buckets)

    def _check_computed(self, rule: Callable[[bool, str, Any], None], computed: Computed) -> None:
        kind = computed.kind
        if kind == "sequence":
            rule(self.is_list and not self.is_numeric, "a computed sequence must be a list of ids or texts, with "
                 "value_count.max", self.dtype)
        else:
            rule(not self.is_list, f"a computed {kind} must be single-valued", self.max_length)
            rule(self.is_numeric or kind == "last", f"a computed {kind} must be FLOAT", self.dtype)
        if kind == "rate":
            rule(self.transform != "log1p", "a rate must have the transform logit, or none", self.transform)

    @property
    def is_numeric(self) -> bool:
        return self.dtype == "float"

    @property
    def has_vocabulary(self) -> bool:
        """Whether the feature has a vocabulary, given or to be learned."""
        return bool(self.vocabulary) or self.min_count > 0

    @property
    def domain(self) -> tuple[float, float]:
        """The smallest and the largest value that a numeric feature may have."""
        return {"": (-math.inf, math.inf), "log1p": (0.0, math.inf), "logit": (0.0, 1.0)}[self.transform]

    @property
    def is_list(self) -> bool:
        return self.max_length > 1

    @property
    def rows(self) -> int:
        """The number of rows of the embedding table: one for missing or unknown, one for each known value or bucket."""
        return 1 + self.known + self.oov_buckets

    @property
    def known(self) -> int:
        """The number of rows of the embedding table for known values, or for the buckets of a hashed feature."""
        return len(self.vocabulary) if self.has_vocabulary else self.size

    @property
    def group(self) -> str:
        """The feature's group, `side_cause`, such as "user_statistical"; just "context" when both are "context"."""
        return self.side if self.side == self.cause else f"{self.side}_{self.cause}"


@dataclasses.dataclass(frozen=True)
class Task:
    """One feedback signal to predict.

    Attributes:
        name: the task's name, such as "click".
        label: the column that the task trains on. Default: `name`.
        mask: the column that is 1 for rows in the task's sample space (PLE, section 4.3), which may be another
            task's label (conversions among clicks). Default: all rows.
        negative: the signal shows dislike, such as "hate", and so is no sign of preference.
        weight: the task's weight in the total loss.
        positive_rate: for a binary task, the share of positives in its sample space on the training days, see
            `Schema.fit`; DLEN's cap is a multiple of it. 0 until fitted.
        kind: "binary": the label is 0 or 1. "regression": the label is a number, such as watch seconds, in a column
            that is among the schema's targets. Or another kind of `dlen_cam2.labels`.
        mean, std: for a regression task, the moments of its label in its sample space on the training days.
    """

    name: str
    label: str = ""
    mask: str = ""
    negative: bool = False
    weight: float = 1.0
    positive_rate: float = 0.0
    kind: str = "binary"
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not self.name:
            raise UserError("a task must have a name. Received: ''.")
        if not self.label:
            object.__setattr__(self, "label", self.name)
        if self.is_number:
            parts.find("label", self.kind, f"the kind of the task {self.name!r}")
        for number in ("weight", "positive_rate", "mean", "std"):
            object.__setattr__(self, number, float(getattr(self, number)))
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise UserError(f"task {self.name!r}: weight must be finite and >= 0. Received: {self.weight!r}.")
        if not 0 <= self.positive_rate <= 1:
            raise UserError(
                f"task {self.name!r}: positive_rate must be in [0, 1]. Received: {self.positive_rate!r}."
            )
        if self.std <= 0 or not math.isfinite(self.mean + self.std):
            raise UserError(
                f"task {self.name!r}: mean must be finite and std above 0. Received: {self.mean!r}, {self.std!r}."
            )

    @property
    def is_number(self) -> bool:
        """Whether the label is a number rather than 0 or 1."""
        return self.kind != "binary"
