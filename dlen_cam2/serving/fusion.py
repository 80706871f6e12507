"""Fusion: one score to rank by, computed from all the scores of a model."""

import dataclasses
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import tensorflow as tf

from dlen_cam2.schema import Task
from dlen_cam2.serving import versions
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import read_bytes, read_json, staged, write_json

ASSET = "fusion.tsv"
P_UP = "p_up"
FORMS = ("sum", "product")  # a form's place here is its number in the asset

_LEAST = 1e-12  # the least that a score counts as, so that its logarithm is finite
_MOST_NEGATIVE = 1 - 2.0**-24  # the most that a negative task's counts as, for the same reason: float32's last before 1
_LARGEST = 1e9  # weight, so that float32 holds all sums
_FARTHEST = 1e37  # end of a range, so that float32 holds 1 / (high - low)
_TINY = 1.2e-38  # float32's least normal number

Numbers = Callable[[list[str]], tf.Tensor]  # keys of the asset to their values, float32; an absent key is 0


@dataclasses.dataclass(frozen=True)
class Fusion:
    """The formula that combines a row's scores `s_k` into one, the fused score `F`.

    With `q_k = 1 - s_k` for a negative task ("hate"), `q_k = (s_k - low_k) / (high_k - low_k)` for a score with a range
    (watch seconds), and `q_k = s_k` for every other score,

        product:  F = Π_k q_k^{w_k} · P(UP)^power
        sum:      F = Σ_k w_k q_k · P(UP)^power

    and for a row with `P(UP) < floor`, which is held back, log(F / F_max) with F_max = 1 (product) or Σ_k w_k (sum).
    This is at most 0, while every other row has F > 0: held-back rows come after all others and keep their relative
    order.

    The weighted product of powers is the online score of PLE (CERTAIN), whose factor for the length of a video is left
    to the feed. The sum and the use of P(UP) are DESIGN: DLEN does not say how its P(UP) is used beyond
    `P(k|UP) P(UP)`, which the scores `<task>_up` are. So are two numerical rules. Scores are clipped to [1e-12, 1], and
    those of negative tasks to [0, 1 - 2^-24]; a score that is not a probability, the norm of CAM2's conformity,
    therefore counts as 1 above 1. And F is at least float32's smallest number, 1.2e-38, which rows share where the
    weights of a product add up to so much that F would be smaller.

    Attributes:
        form: "product" or "sum".
        weights: `w_k` >= 0 by score, at least one above 0; a score that is not listed has weight 0.
        power: the exponent of P(UP), >= 0.
        floor: the smallest P(UP) of rows that are not held back, in [0, 1).
        ranges: `[low_k, high_k]` by score: the values of a score that is not a probability that count as 0 and as 1. A
            regression task needs a range to have a weight.

    Raises:
        UserError: a value breaks these rules.
    """

    form: str
    weights: Mapping[str, float]
    power: float = 0.0
    floor: float = 0.0
    ranges: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise UserError(f"fusion: `form` must be one of {FORMS}. Received: {self.form!r}.")
        if not isinstance(self.weights, Mapping):
            raise UserError(f"fusion: `weights` must map scores to numbers. Received: {self.weights!r}.")
        for name, value in (*self.weights.items(), ("power", self.power), ("floor", self.floor)):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and 0 <= value <= _LARGEST):
                raise UserError(f"fusion: {name!r} must be a number from 0 to {_LARGEST:g}. Received: {value!r}.")
        if not isinstance(self.ranges, Mapping) or not all(map(_is_range, self.ranges.values())):
            raise UserError("fusion: `ranges` must map scores to [low, high], numbers within ±1e37 with low < high. "
                            f"Received: {self.ranges!r}.")
        if P_UP in self.weights:
            raise UserError(f"fusion: P(UP) has a `power` and a `floor`, not a weight. Received: a weight of {P_UP!r}.")
        if not any(self.weights.values()):
            raise UserError(f"fusion: at least one weight must be above 0. Received: {dict(self.weights)}.")
        if self.floor >= 1:
            raise UserError(f"fusion: `floor` must be below 1. Received: {self.floor!r}.")
        plain: dict[str, Any] = {  # plain floats, whose text is a number's and whose tensor is float32
            "weights": {name: float(weight) for name, weight in self.weights.items()},
            "power": float(self.power), "floor": float(self.floor),
            "ranges": {name: (float(low), float(high)) for name, (low, high) in self.ranges.items()},
        }
        for field, value in plain.items():
            object.__setattr__(self, field, value)

    @classmethod
    def default(cls, tasks: Sequence[Task]) -> "Fusion":
        """The default fusion: the product of all tasks' probabilities, each with weight 1.

        DESIGN: regression tasks have no weight, or, where there are no other tasks, have `usual_range`.
        """
        binary = [task for task in tasks if not task.is_number]
        return cls("product", {task.name: 1.0 for task in binary or tasks},
                   ranges={} if binary else {task.name: usual_range(task) for task in tasks})

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Fusion":
        """Read what `save` wrote; `power`, `floor` and `ranges` are optional. Raises `UserError` naming the file."""
        values = read_json(path)
        fields = {f.name for f in dataclasses.fields(cls)}
        if not isinstance(values, dict) or not {"form", "weights"} <= set(values) <= fields:
            received = sorted(values) if isinstance(values, dict) else values
            raise UserError(f"{path} must have `form` and `weights`, and may have {sorted(fields)}. "
                            f"Received: {received!r}.")
        try:
            return cls(**values)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    def save(self, path: str | os.PathLike) -> None:
        """Write it as JSON."""
        write_json(path, dataclasses.asdict(self))

    def checked(self, names: Collection[str], numbers: Collection[str] = ()) -> "Fusion":
        """Return this fusion if a model with the scores `names`, some of them `numbers`, can compute it.

        Raises:
            UserError: a weight or a range names an unknown score, a number with a weight has no range, or the model has
                no P(UP) for `power` or `floor`.
        """
        if bare := sorted(n for n, w in self.weights.items() if w and n in numbers and n not in self.ranges):
            raise UserError(f"fusion: {bare} are numbers, not probabilities, so a weight of theirs needs a range in "
                            f"`ranges`: [low, high], the values that count as 0 and 1. Received: {dict(self.ranges)}.")
        if unknown := sorted({*self.weights, *self.ranges} - set(names)):
            raise UserError(f"fusion: `weights` must name scores of the model. Received: {unknown}. "
                            f"Known: {[n for n in names if n != P_UP]}.")
        if (self.power or self.floor) and P_UP not in names:
            raise UserError("fusion: `power` and `floor` need a model with a score P(UP). "
                            f"Received: power={self.power}, floor={self.floor}, and the scores {list(names)}.")
        return self

    def asset(
        self, negative: Collection[str], names: Sequence[str], numbers: Collection[str] = ()
    ) -> dict[str, float]:
        """The lines of the asset for a model with the scores `names`; those in `negative` are of negative tasks."""
        lines = {"form": float(FORMS.index(self.form))}
        if P_UP in names:
            lines |= {"power": self.power, "floor": self.floor}
        weighted = [name for name in names if name != P_UP]
        lines |= {f"weight/{name}": self.weights.get(name, 0.0) for name in weighted}
        for name in weighted:
            if name in self.ranges:
                low, high = self.ranges[name]
                lines |= {f"low/{name}": low, f"scale/{name}": 1.0 / (high - low)}
        lines |= {f"number/{name}": 1.0 for name in weighted if name in numbers}
        return lines | {f"negative/{name}": 1.0 for name in weighted if name in negative}

    def __call__(self, scores: Mapping[str, Any], negative: Collection[str]) -> tf.Tensor:
        """Compute fused scores (B,) eagerly, with the same result as a `FusionTable` with the same numbers.

        Args:
            scores: {name: (B,)}, float32.
            negative: names of the negative tasks.
        """
        lines = self.asset(negative, list(scores))
        return fuse(scores, lambda keys: tf.constant([lines.get(key, 0.0) for key in keys]))


def usual_range(task: Task) -> tuple[float, float]:
    """The usual range of a regression task. DESIGN: its label's mean on the training days ± two standard deviations."""
    return task.mean - 2 * task.std, task.mean + 2 * task.std


def _is_range(value: Any) -> bool:
    numbers = isinstance(value, Sequence) and len(value) == 2 and all(
        isinstance(end, (int, float)) and not isinstance(end, bool) and abs(end) <= _FARTHEST for end in value
    )
    return numbers and value[1] - value[0] >= 1 / _FARTHEST


def fuse(scores: Mapping[str, Any], numbers: Numbers) -> tf.Tensor:
    """Apply the formula of `Fusion` to {name: (B,)}, with its numbers by their keys in the asset. Returns (B,)."""
    names = [name for name in scores if name != P_UP]
    product, power, floor = tf.unstack(numbers(["form", "power", "floor"]))
    weights = numbers([f"weight/{name}" for name in names])
    negative = numbers([f"negative/{name}" for name in names])
    low, scale = numbers([f"low/{name}" for name in names]), numbers([f"scale/{name}" for name in names])
    s = tf.stack([scores[name] for name in names], axis=1)
    s = tf.clip_by_value((s - low) * tf.where(scale > 0, scale, 1.0), 0.0, 1.0)
    p_up = scores[P_UP] if P_UP in scores else tf.ones_like(s[:, 0])

    def log(x: tf.Tensor, least: float) -> tf.Tensor:
        return tf.math.log(tf.maximum(x, least))

    # Everything is in logs, where nothing underflows, and log1p tells small s of a negative task apart, which 1 - s
    # does not. `product` is 1 or 0 and takes one form or the other.
    log_q = negative * tf.math.log1p(-tf.minimum(s, _MOST_NEGATIVE)) + (1 - negative) * log(s, _LEAST)
    total, most = tf.linalg.matvec(tf.exp(log_q), weights), tf.reduce_sum(weights)
    log_f = product * tf.linalg.matvec(log_q, weights) + (1 - product) * log(total, _TINY)
    log_f += power * log(p_up, _LEAST)
    held = tf.cast(p_up < floor, tf.float32)
    # `total` and `most` are summed in different orders, so that F / F_max may be a rounding above 1.
    below = tf.minimum(log_f - (1 - product) * log(most, _TINY), 0.0)
    return held * below + (1 - held) * tf.maximum(tf.exp(log_f), _TINY)


class FusionTable(tf.Module):
    """A `Fusion` inside a SavedModel, with its numbers in the text asset `fusion.tsv`, editable without retraining.

    Each line of the asset is a key and a number with a tab between them: `form` (1 product, 0 sum), `weight/<score>`
    for every score of the model, `negative/<score>` for those of negative tasks, `number/<score>` for those of
    regression tasks, `low/<score>` and `scale/<score>` for those with a range, and `power` and `floor` if the model has
    P(UP). The asset is read when the SavedModel is loaded.

    Args:
        fusion: the initial numbers.
        negative: names of the negative tasks.
        names: all scores of the model, in order.
        numbers: names of the scores that are numbers.

    Raises:
        UserError: the model lacks a score that `fusion` needs, or a range is missing.
    """

    def __init__(
        self, fusion: Fusion, negative: Collection[str], names: Sequence[str], numbers: Collection[str] = ()
    ):
        super().__init__(name="fusion")
        self.names = list(names)
        self._home = tempfile.TemporaryDirectory()  # the file must be there until `tf.saved_model.save` copies it
        path = pathlib.Path(self._home.name) / ASSET
        write_asset(path, fusion.checked(names, numbers).asset(negative, names, numbers))
        lines = tf.lookup.TextFileInitializer(str(path), tf.string, 0, tf.float32, 1, delimiter="\t")
        self.table = tf.lookup.StaticHashTable(lines, default_value=0.0)

    def __call__(self, scores: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Compute the fused scores (B,) from {name: (B,)}."""
        return fuse({name: scores[name] for name in self.names}, lambda keys: self.table.lookup(tf.constant(keys)))


def write_asset(path: str | os.PathLike, lines: Mapping[str, float]) -> None:
    """Write `fusion.tsv`."""
    text = "".join(f"{key}\t{value!r}\n" for key, value in lines.items())
    pathlib.Path(path).write_text(text, encoding="utf-8")


def read_asset(path: str | os.PathLike) -> dict[str, float]:
    """Read `fusion.tsv`. Raises `UserError` naming the file if it is missing or a line is not a key and a number."""
    lines = {}
    for line in read_bytes(path).decode(errors="replace").splitlines():
        key, _, value = line.partition("\t")
        try:
            lines[key] = float(value)
        except ValueError as error:
            raise UserError(f"{path} must have a key, a tab and a number in each line. Received: {line!r}.") from error
    return lines


def reweigh(served: str | os.PathLike, fusion: Fusion, version: int | None = None) -> pathlib.Path:
    """Write the next version of a model: an existing one, with the numbers of `fusion`. Returns its directory.

    Only `fusion.tsv` is new; all other files are linked and take no space.

    Args:
        served: the directory of versions.
        fusion: the new fusion.
        version: the version to start from. Default: the newest.

    Raises:
        UserError: there is no such version, it has no `fusion.tsv`, or it lacks a score that `fusion` needs.
    """
    known = versions.numbers(served)
    if not known or version not in (None, *known):
        wanted = "the newest" if version is None else version
        raise UserError(f"{served} must hold the version to copy. Received: {wanted}. Known: {known}.")
    source = pathlib.Path(served) / str(known[-1] if version is None else version)
    versions.check(source)
    path = pathlib.Path("assets") / ASSET
    if not (source / path).is_file():
        raise UserError(f"{source} must have a fused score: export the model again. Received: no {path}.")
    lines = read_asset(source / path)
    names = [key.removeprefix("weight/") for key in lines if key.startswith("weight/")]
    names += [P_UP] if "power" in lines else []
    negative, numbers = ([key.removeprefix(kind) for key in lines if key.startswith(kind)]
                         for kind in ("negative/", "number/"))
    target = versions.following(served)
    with staged(target, versions.SAVED_MODEL) as stage:
        shutil.copytree(source, stage, copy_function=os.link, dirs_exist_ok=True)
        (stage / path).unlink()
        write_asset(stage / path, fusion.checked(names, numbers).asset(negative, names, numbers))
    return target
