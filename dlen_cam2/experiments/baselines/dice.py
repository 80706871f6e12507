"""DICE, the baseline of the causal table: interest and conformity of ids alone, told apart by who follows the crowd."""

import dataclasses
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from dlen_cam2 import data
from dlen_cam2.config import Config
from dlen_cam2.experiments.cells import Arrays
from dlen_cam2.experiments.recurring import stages
from dlen_cam2.models.causal.cam2 import threshold
from dlen_cam2.schema import Schema, pbtxt
from dlen_cam2.utils import console

CAUSES = ("relevance", "conformity")
# Official settings. A negative is "more popular" by more than MARGIN positives, or has less than half of them; MARGIN
# and CAUSE_WEIGHT decay by DECAY a pass.
WIDTH, NEGATIVES, POOL, MARGIN, DECAY = 64, 4, 40, 40.0, 0.9
CAUSE_WEIGHT, DISCREPANCY_WEIGHT = 0.1, 0.01
BATCH, RATE, BETAS = 128, 1e-3, (0.5, 0.99)
# DESIGN: passes over the days of a stage; ids learn nothing in the single pass that the networks make. Margin and
# weight begin anew with each stage.
PASSES = 5
ROWS = 65536  # that are scored at a time


class Dice(tf.keras.Model):
    """Two vectors of each user and item: `score = ⟨u_int, i_int⟩ + ⟨u_conf, i_conf⟩`.

    Args:
        users, items: how many there are.

    Input: (users (B,), items (B, n)), places of ids. Output: {"relevance", "conformity"}: (B, n), the two products.

    References:
        DICE (Zheng et al., WWW 2021), and its official code.
    """

    def __init__(self, users: int, items: int):
        super().__init__(name="dice")
        self.tables = {
            (side, cause): tf.keras.layers.Embedding(
                count, WIDTH, tf.keras.initializers.RandomUniform(-(WIDTH**-0.5), WIDTH**-0.5), name=f"{side}_{cause}"
            )
            for side, count in (("user", users), ("item", items)) for cause in CAUSES
        }

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        users, items = inputs
        return {
            cause: tf.einsum("bd,bnd->bn", self.tables["user", cause](users), self.tables["item", cause](items))
            for cause in CAUSES
        }

    def discrepancy(self, side: str, ids: tf.Tensor) -> tf.Tensor:
        """How much the two vectors of a user or an item tell of each other, over distinct ids (n,)."""
        return distance_correlation(*(self.tables[side, cause](ids) for cause in CAUSES))


def distance_correlation(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """`dCov(x, y) / sqrt(dCov(x, x) dCov(y, y))` of rows (n, d), 0 of independent ones and 1 of similar figures.

    References:
        Székely et al., 2007.
    """
    def centred(rows: tf.Tensor) -> tf.Tensor:
        squares = tf.reduce_sum(rows * rows, axis=1)
        apart = squares[:, None] - 2 * tf.matmul(rows, rows, transpose_b=True) + squares
        a = _root(apart)
        return a - tf.reduce_mean(a, 0, keepdims=True) - tf.reduce_mean(a, 1, keepdims=True) + tf.reduce_mean(a)

    a, b = centred(x), centred(y)
    together, of_x, of_y = (_root(tf.reduce_mean(p)) for p in (a * b, a * a, b * b))
    return together / tf.sqrt(of_x * of_y)


def _root(value: tf.Tensor) -> tf.Tensor:
    """A square root with a gradient at 0, where rounding may lead below it."""
    return tf.sqrt(tf.maximum(value, 0.0) + 1e-8)


def objective(
    model: Dice, users: tf.Tensor, positives: tf.Tensor, negatives: tf.Tensor, side: tf.Tensor, weight: tf.Tensor
) -> tf.Tensor:
    """The loss of a batch:

        L = BPR(all) + w (BPR_int(O2) + BPR_conf(O1) + BPR_conf(O2, reversed)) + .01 (dCor(users) + dCor(items))

    with `BPR = mean -log σ(s_positive - s_negative)`. In O1 the negative is the less popular one; in O2 the more
    popular one: whoever prefers the positive there does not conform. CERTAIN: terms of O1 and O2 are means over all
    pairs, with 0 for the others, and the distance correlation is minimised (official code).

    Args:
        users, positives: (B,).
        negatives: (B, n).
        side: (B, n) float, -1 for the pairs of O1, 1 for those of O2, 0 for others.
        weight: w.
    """
    scores = model((users, tf.concat([positives[:, None], negatives], axis=1)))
    margin = {cause: s[:, :1] - s[:, 1:] for cause, s in scores.items()}
    click = tf.reduce_mean(tf.nn.softplus(-(margin["relevance"] + margin["conformity"])))
    interest = tf.reduce_mean(tf.nn.relu(side) * tf.nn.softplus(-margin["relevance"]))
    conformity = tf.reduce_mean(tf.abs(side) * tf.nn.softplus(side * margin["conformity"]))
    items = tf.concat([positives, tf.reshape(negatives, [-1])], axis=0)
    apart = sum(model.discrepancy(of, tf.unique(ids)[0]) for of, ids in (("user", users), ("item", items)))
    return click + weight * (interest + conformity) + DISCREPANCY_WEIGHT * apart


class Negatives:
    """Draws of items that a user did not engage with, by a margin of popularity.

    Args:
        users, items: (n,) the engaged rows, places of ids; an item's popularity is how often it is among them.
        shown: (m,) places of the items that may be drawn, each once; those of `items` are among them.
    """

    def __init__(self, users: np.ndarray, items: np.ndarray, shown: np.ndarray):
        self._count = int(shown.max(initial=-1)) + 1
        self._popularity = np.bincount(items, minlength=self._count)
        self._order = shown[np.argsort(self._popularity[shown], kind="stable")]
        self._sorted = self._popularity[self._order]
        self._engaged = np.unique(users * self._count + items)

    def draw(
        self, users: np.ndarray, items: np.ndarray, margin: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Distinct negatives (B, `NEGATIVES`) of the positives (B,), and their side, as `objective` takes it.

        Either side with the same chance, if both have `POOL` items or more; else the side that has more, and all items
        if neither has any. What a positive has already is drawn again, and after ten times taken as it is; what its
        user engaged with, after twenty times.
        """
        popularity = self._popularity[items]
        below = np.searchsorted(self._sorted, popularity / 2, "left")  # the least popular items, up to here
        above = np.searchsorted(self._sorted, popularity + margin, "right")  # the most popular, from here on
        least, most = below, len(self._order) - above
        either = np.minimum(least, most) >= POOL
        shape = (len(users), NEGATIVES)
        more = np.where(either[:, None], rng.random(shape) < 0.5, (most > least)[:, None])
        start, length = np.where(more, above[:, None], 0), np.where(more, most[:, None], least[:, None])
        nothing = length == 0
        start, length = np.where(nothing, 0, start), np.where(nothing, len(self._order), length)
        drawn = np.zeros(shape, np.int64)
        again = np.ones(shape, bool)
        for time in range(20):
            place = start[again] + (rng.random(again.sum()) * length[again]).astype(np.int64)
            drawn[again] = self._order[place]
            again = self._own(users[:, None] * self._count + drawn)
            if time < 10:
                again |= _repeated(drawn)
            if not again.any():
                break
        return drawn, np.where(nothing, 0, np.where(more, 1, -1)).astype(np.float32)

    def _own(self, pairs: np.ndarray) -> np.ndarray:
        """Which pairs are engaged ones. By bisection: a batch is small and the sorted log is long."""
        places = np.searchsorted(self._engaged, pairs)
        return self._engaged[np.minimum(places, len(self._engaged) - 1)] == pairs


def _repeated(drawn: np.ndarray) -> np.ndarray:
    """(B, n): where a row (n,) has the same entry further left."""
    earlier = np.tri(drawn.shape[1], k=-1, dtype=bool)
    return np.any((drawn[:, :, None] == drawn[:, None, :]) & earlier, axis=2)


def train(
    config: Config, data_dir: str | os.PathLike, warm: Sequence[str], measured: Sequence[str], engagement: str
) -> Arrays:
    """A cell: recurring training (`dlen_cam2.experiments.recurring`) on the rows of `engagement`, see `CAM2`.

    DESIGN: the paper samples negatives from all items, so that what it learns is who meets what; it is measured here on
    the rows of an exposure log, of which it never sees those without engagement. Negatives are items that were shown on
    the days trained on so far. Users and items that were not met yet keep their initial vectors.

    Returns:
        For each kind of exposure "kind/relevance" and "kind/conformity", the two products, and "kind/engaged" and
        "kind/space", the engagement and its sample space: (rows,).
    """
    tf.keras.utils.set_random_seed(config.train.seed)
    rng = np.random.default_rng(config.train.seed)
    stored = pbtxt.load(data_dir).select(config.model.tasks)
    keys = tuple(f for f in stored.features if f.name in stored.keys.values())
    schema = dataclasses.replace(stored, features=keys, targets=())  # other columns are not parsed
    walk = list(stages(data_dir, warm, measured))
    splits = dict.fromkeys(split for trained, by_kind in walk for split in (*trained, *by_kind.values()))
    logs = {split: _rows(data_dir, schema, split, engagement) for split in splits}
    users, items = (np.unique(np.concatenate([log[part] for log in logs.values()])) for part in (0, 1))
    logs = {
        split: log._replace(users=np.searchsorted(users, log.users), items=np.searchsorted(items, log.items))
        for split, log in logs.items()
    }
    model = Dice(len(users), len(items))
    step = training_step(model)
    seen = np.zeros((2, 0), np.int64)  # users and items of all engaged rows so far
    shown = np.zeros(0, np.int64)  # items of all rows so far
    found: dict[str, list[tuple[np.ndarray, ...]]] = {}
    for trained, by_kind in walk:
        new = np.concatenate([logs[split].of_engagement() for split in trained], axis=1)
        seen = np.concatenate([seen, new], axis=1)
        shown = np.union1d(shown, np.concatenate([logs[split].items for split in trained]))
        negatives = Negatives(seen[0], seen[1], shown)
        for epoch in range(PASSES):
            loss = 0.0
            order = rng.permutation(new, axis=1)
            for start in range(0, order.shape[1], BATCH):
                of_users, positives = order[:, start : start + BATCH]
                drawn, side = negatives.draw(of_users, positives, MARGIN * DECAY**epoch, rng)
                loss = step(of_users, positives, drawn, side, tf.constant(CAUSE_WEIGHT * DECAY**epoch))
            console.say(f"DICE, {trained[0]}..{trained[-1]}, pass {epoch + 1}/{PASSES}: {new.shape[1]:,} engaged rows, "
                        f"loss {float(loss):.4f}")
        for kind, split in by_kind.items():
            log = logs[split]
            scores = model.predict((log.users, log.items[:, None]), batch_size=ROWS, verbose=0)
            products = (scores[cause][:, 0] for cause in CAUSES)
            found.setdefault(kind, []).append((*products, log.engaged, log.space))
    names = (*CAUSES, "engaged", "space")
    return {
        f"{kind}/{name}": np.concatenate(parts)
        for kind, days in found.items() for name, parts in zip(names, zip(*days, strict=True), strict=True)
    }


def training_step(model: Dice) -> tf.types.experimental.GenericFunction:
    """A function of a batch, as `objective` takes it, that changes the model and returns the loss."""
    optimizer = tf.keras.optimizers.Adam(RATE, *BETAS, amsgrad=True)

    @tf.function(autograph=False, reduce_retracing=True)
    def step(users, items, negatives, side, weight):  # type: ignore[no-untyped-def]
        with tf.GradientTape() as tape:
            loss = objective(model, users, items, negatives, side, weight)
        optimizer.minimize(loss, model.trainable_variables, tape)
        return loss

    return step


class _Rows(NamedTuple):
    """Columns (rows,) of a split: ids, later their places among all ids; engagement, and its sample space."""

    users: np.ndarray
    items: np.ndarray
    engaged: np.ndarray
    space: np.ndarray

    def of_engagement(self) -> np.ndarray:
        """(2, positives): users and items."""
        return np.stack([self.users, self.items])[:, self.engaged * self.space == 1]


def _rows(data_dir: str | os.PathLike, schema: Schema, split: str, engagement: str) -> _Rows:
    nothing, no_id = np.zeros(0, np.float32), np.zeros(0, np.int64)
    parts = [(no_id, no_id, nothing, nothing)]  # of a split without rows
    for _, labels in data.read(data_dir, schema, [split], 8192):
        y, space = threshold.engagement(labels, schema, engagement)
        parts.append(tuple(t.numpy() for t in (labels[schema.keys["user"]], labels[schema.keys["item"]], y, space)))
    return _Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
