"""A feed with known truth: `python -m pipelines.simulate --output=DIR --rows=N --seed=S`.

Writes the same contract as the real sources, and beside it `truth.parquet`, which no reader of features
opens: one row per exposure (key: time_ms) with the latent preference and every true probability.
"""

import dataclasses
import datetime
import math
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from absl import flags
from scipy.special import ndtr

from dlen_cam2 import cli
from dlen_cam2.data import TRUTH
from dlen_cam2.schema import Feature, Schema, Task
from pipelines.dataset import write_dataset
from pipelines.point_in_time import COUNTERS, histories, splits

FLAGS = flags.FLAGS

TASKS = ("click", "long_view", "like", "comment", "follow", "forward")
DAY_MS = 86_400_000

Columns = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class World:
    """The parameters of a simulated feed.

    A user u meets an item i. With tastes r_u in (0,1)^k, topics q_i in the simplex, conformity c_u in (0,1)
    and log-popularity z_i:

        relevance   R = Σ_x r_ux q_ix
        P(UP)       = σ(preference_bias + relevance_weight (R - 1/2) + conformity_weight c_u z_i + tab)
        P(k|UP)     = σ(logit(rate_k) + habit_k h_uk)                 for each behaviour k but long_view
        P(k|¬UP)    = cap · P(k) · σ(h_uk), P(k) the mean of P(k|UP) P(UP) over the log
        long_view   = watched at least min(duration, 18 s); log watch time is normal, its mean grows with the
                      log duration if the user prefers the item, and is a glance if not

    so DLEN's story holds, with P(k|¬UP) < cap · P(k) for all behaviours but long_view by construction. The
    logging policy shows popular items more and prefers relevant ones; the random log shows items uniformly.

    Attributes:
        rows, seed: as the flags say.
        days: length of the log; the first is `first_day`.
        rows_per_user, rows_per_item: mean exposures, which set how many users and items there are.
        interests: k.
        random_share: share of the rows that are uniformly random exposures.
        candidates: items among which the logging policy picks one.
        popularity_exponent: how strongly the policy's candidates favour popular items.
        policy_relevance: how strongly it picks relevant ones among them.
        new_share: share of the items that are uploaded while the log runs.
        rates: P(k|UP) of a user with average habits.
        habits: how much users differ in showing a preference by behaviour k.
    """

    rows: int
    seed: int
    first_day: str = "20240101"
    days: int = 8
    rows_per_user: int = 150
    rows_per_item: int = 200
    interests: int = 8
    random_share: float = 0.1
    candidates: int = 6
    popularity_exponent: float = 0.8
    policy_relevance: float = 1.0
    new_share: float = 0.2
    preference_bias: float = -0.6
    relevance_weight: float = 6.0
    conformity_weight: float = 1.6
    cap: float = 0.2
    rates: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"click": 0.8, "like": 0.2, "comment": 0.06, "follow": 0.05, "forward": 0.08}
    )
    habits: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"click": 1.5, "like": 1.5, "comment": 1.5, "follow": 1.5, "forward": 1.5}
    )

    @property
    def users(self) -> int:
        return max(20, self.rows // self.rows_per_user)

    @property
    def items(self) -> int:
        return max(20, self.rows // self.rows_per_item)

    @property
    def authors(self) -> int:
        return max(5, self.items // 4)


def simulate(world: World) -> tuple[pa.Table, pa.Table]:
    """Draw the log: `exposures` (what a platform would record) and `truth`, row by row the same, in time order."""
    rng = np.random.default_rng(world.seed)
    users, items = _users(world, rng), _items(world, rng)
    shown = _expose(world, rng, users, items)
    feedback, truth = _respond(world, rng, users, items, shown)

    n, k = world.rows, world.interests
    user, item, time = shown["user"], shown["item"], shown["time"]
    first = datetime.datetime.strptime(world.first_day, "%Y%m%d")
    epoch = int(first.replace(tzinfo=datetime.UTC).timestamp() * 1000)
    names = np.array([(first + datetime.timedelta(days=d)).strftime("%Y%m%d") for d in range(world.days)])
    day = names[time // DAY_MS]
    split = np.where(shown["random"], np.char.add(day, "_random"), day)
    main, other = items["main"][item], items["other"][item]
    exposures = pa.table({
        "split": split, "time_ms": epoch + time, "user_id": user, "video_id": item,
        "author_id": items["author"][item], "topic": main.astype(str), "tab": shown["tab"],
        "hour": time // 3_600_000 % 24, "duration_s": items["duration"][item],
        "video_age_days": np.maximum(time / DAY_MS - items["uploaded"][item], 0.0),
        "age_band": users["age_band"][user],
        "topics": _lists(np.stack([main, other], axis=1), np.stack([main >= 0, main != other], axis=1)),
        "user_topics": _lists(np.broadcast_to(np.arange(k), (n, k)), users["declared"][user]),
        # The platform of this world offers no such behaviour; the counters of the contract read it.
        "profile_enter": np.zeros(n, np.int64), **feedback,
    })
    return exposures, pa.table({"time_ms": epoch + time, "split": split, **truth})


def _users(world: World, rng: np.random.Generator) -> Columns:
    """Tastes, habits and the like: (users,) or (users, …)."""
    users, k = world.users, world.interests
    likes = rng.random((users, k)) < 0.3
    tastes = np.where(likes, rng.beta(24, 6, (users, k)), rng.beta(6, 24, (users, k)))
    return {
        "tastes": tastes,
        "declared": likes ^ (rng.random((users, k)) < 0.02),  # what users say they like; a few are wrong
        "conformity": rng.beta(2, 2, users),
        "habit": rng.normal(size=(users, len(TASKS))),
        "activity": rng.lognormal(0, 0.7, users),
        "age_band": rng.integers(0, 6, users),
    }


def _items(world: World, rng: np.random.Generator) -> Columns:
    """Topics, popularity (partly the author's), duration in seconds, upload time in days of the log."""
    items, k = world.items, world.interests
    author = rng.integers(0, world.authors, items)
    popularity = 0.5 * rng.normal(size=world.authors)[author] + math.sqrt(0.75) * rng.normal(size=items)
    main, other = rng.integers(0, k, (2, items))
    return {
        "author": author, "popularity": popularity, "main": main, "other": other,
        "topics": 0.8 * np.eye(k)[main] + 0.2 * np.eye(k)[other],
        "duration": np.clip(rng.lognormal(math.log(30), 0.7, items), 5, 300),
        "uploaded": np.where(
            rng.random(items) < world.new_share, rng.uniform(0, world.days - 1, items), -rng.exponential(20, items)
        ),
    }


def _expose(world: World, rng: np.random.Generator, users: Columns, items: Columns) -> Columns:
    """Who is shown what, in time order and at least one millisecond apart."""
    n = world.rows
    time = np.sort(rng.integers(0, world.days * DAY_MS - n, n)) + np.arange(n)
    user = rng.choice(world.users, n, p=users["activity"] / users["activity"].sum())
    is_random = rng.random(n) < world.random_share
    by_upload = np.argsort(items["uploaded"])
    available = np.maximum(np.searchsorted(items["uploaded"][by_upload], time / DAY_MS, side="right"), 1)
    # Candidates by popularity among what is uploaded: inverse of the cumulative weight of the upload order.
    weight = np.cumsum(np.exp(world.popularity_exponent * items["popularity"][by_upload]))
    item = np.empty(n, np.int64)
    for rows in np.array_split(np.arange(n), max(1, n // 100_000)):
        drawn = rng.random((len(rows), world.candidates)) * weight[available[rows] - 1, None]
        shown = by_upload[np.searchsorted(weight, drawn)]
        relevant = np.einsum("nk,nck->nc", users["tastes"][user[rows]], items["topics"][shown])
        pick = np.argmax(world.policy_relevance * relevant + rng.gumbel(size=relevant.shape), axis=1)
        uniform = by_upload[(rng.random(len(rows)) * available[rows]).astype(int)]
        item[rows] = np.where(is_random[rows], uniform, shown[np.arange(len(rows)), pick])
    return {"time": time, "user": user, "item": item, "random": is_random, "tab": rng.choice(3, n, p=[0.6, 0.3, 0.1])}


def _respond(
    world: World, rng: np.random.Generator, users: Columns, items: Columns, shown: Columns
) -> tuple[Columns, Columns]:
    """The latent preference and what the user does: feedback columns, and the truth behind them."""
    n, user, item = world.rows, shown["user"], shown["item"]
    relevance = np.einsum("nk,nk->n", users["tastes"][user], items["topics"][item])
    conforming = users["conformity"][user] * items["popularity"][item]
    p_up = _sigmoid(
        world.preference_bias + world.relevance_weight * (relevance - 0.5)
        + world.conformity_weight * conforming - 0.5 * (shown["tab"] == 2)
    )
    preferred = rng.random(n) < p_up
    seconds = items["duration"][item]
    log_median = np.where(preferred, np.log(1.3 * seconds**0.85), math.log(1.5))
    spread = np.where(preferred, 0.6, 0.7)
    watch = np.minimum(np.exp(log_median + spread * rng.normal(size=n)), seconds)
    enough = np.minimum(seconds, 18.0)
    feedback: Columns = {"play_s": watch}
    truth: Columns = {
        "preferred": preferred.astype(np.int64), "p_up": p_up, "relevance": relevance, "conformity": conforming,
        "user_conformity": users["conformity"][user], "popularity": items["popularity"][item],
    }
    for index, task in enumerate(TASKS):
        if task == "long_view":
            given_up = ndtr((np.log(1.3 * seconds**0.85) - np.log(enough)) / 0.6)
            given_not_up = ndtr((math.log(1.5) - np.log(enough)) / 0.7)
            label = watch >= enough
        else:
            habit = users["habit"][user, index]
            given_up = _sigmoid(_logit(world.rates[task]) + world.habits[task] * habit)
            given_not_up = world.cap * np.mean(given_up * p_up) * _sigmoid(habit)
            label = rng.random(n) < np.where(preferred, given_up, given_not_up)
        feedback[task] = label.astype(np.int64)
        truth[f"p_{task}"] = given_up * p_up + given_not_up * (1 - p_up)
        truth[f"p_{task}_given_up"] = given_up
        truth[f"p_{task}_given_not_up"] = given_not_up
    return feedback, truth


def schema(world: World) -> Schema:
    """What the columns of a simulated log are."""
    topics: dict[str, Any] = {"dtype": "int", "cause": "content", "size": world.interests, "width": 8}
    return Schema(
        name="simulated",
        features=(
            Feature("user_id", "int", "user", "content", size=world.users, width=16),
            Feature("age_band", "int", "user", "content", size=6, width=8),
            Feature("user_topics", side="user", max_length=world.interests, **topics),
            *histories(world.items),
            Feature("video_id", "int", "item", "content", size=world.items, width=16),
            Feature("author_id", "int", "item", "content", size=world.authors, width=16),
            Feature("topics", side="item", max_length=2, table="user_topics", **topics),
            Feature("duration_s", "float", "item", "content", transform="log1p"),
            Feature("video_age_days", "float", "item", "content", transform="log1p"),
            Feature("tab", "int", "context", "context", size=3, width=8),
            Feature("hour", "int", "context", "context", size=24, width=8),
            *COUNTERS,
        ),
        tasks=tuple(Task(name) for name in TASKS),
        targets=("play_s", "duration_s"),
        keys={"user": "user_id", "item": "video_id", "time": "time_ms"},
    )


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _lists(values: np.ndarray, keep: np.ndarray) -> pa.ListArray:
    """(rows, width) integers and a mask of the same shape -> a list of the kept ones for each row."""
    offsets = np.concatenate([[0], np.cumsum(keep.sum(axis=1))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values[keep]))


def write(world: World, output: str) -> dict[str, Any]:
    """Simulate and write the data set and its `truth.parquet`; returns the statistics."""
    exposures, truth = simulate(world)
    with duckdb.connect() as connection:
        connection.register("exposures", exposures)
        source = {"pipeline": "simulate", "world": dataclasses.asdict(world)}
        return write_dataset(output, schema(world), splits(connection), source, sides={TRUTH: truth})


def define_flags() -> None:
    flags.DEFINE_string("output", None, "Directory of the data set to write.", required=True)
    flags.DEFINE_integer("rows", 200_000, "Exposures to simulate, random ones included.", lower_bound=100)
    flags.DEFINE_integer("seed", 0, "Seed of everything random.", lower_bound=0)


def main() -> None:
    world = World(rows=FLAGS.rows, seed=FLAGS.seed)
    statistics = write(world, FLAGS.output)
    print(f"{world.rows:,} rows of {len(statistics['days'])} splits, and {TRUTH}, are in {FLAGS.output}")


if __name__ == "__main__":
    cli.run(main, define_flags)
