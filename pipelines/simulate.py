"""A feed with known truth: `python -m pipelines.simulate --output=DIR --rows=N --seed=S`.

Writes the same contract as the real sources, and beside it `truth.parquet`, which no reader of features
opens: one row per exposure (key: time_ms) with the latent preference and every true probability.
"""

import dataclasses
import datetime
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from absl import flags
from scipy.special import ndtr

from dlen_cam2.data.manifest import TRUTH
from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.utils import commands
from dlen_cam2.utils.errors import UserError
from pipelines import options
from pipelines.options import Options, publish
from pipelines.point_in_time import COUNTERS, histories

FLAGS = flags.FLAGS

TASKS = ("click", "long_view", "like", "comment", "follow", "forward")
DAY_MS = 86_400_000
_ROWS = 500_000  # rows that are computed at once

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

    so DLEN's story holds, with P(k|¬UP) < cap · P(k) for all behaviours but long_view by construction. With `broken` =
    b the story holds in part: a user who does not prefer the item acts, with probability b, as if he did,

        P(k|¬UP) = (1 - b) cap · P(k) · σ(h_uk) + b P(k|UP)           (long_view likewise)

    so that at 1 the cap is violated, and preference and behaviours are independent. Who meets what stays the same. The
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
        broken: how far DLEN's story is broken, in [0, 1].
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
    broken: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.broken <= 1:
            raise UserError(f"--broken must be in [0, 1]. Received: {self.broken}.")

    @property
    def users(self) -> int:
        return max(20, self.rows // self.rows_per_user)

    @property
    def items(self) -> int:
        return max(20, self.rows // self.rows_per_item)

    @property
    def authors(self) -> int:
        return max(5, self.items // 4)


@dataclasses.dataclass(frozen=True)
class Feed:
    """A simulated log in time order, of which a few bytes a row are kept; `exposures` and `truth` spell rows out.

    Attributes:
        world: its parameters.
        users, items: what they are like, see `_users` and `_items`.
        shown: (rows,) who was shown what, see `_expose`.
        response: (rows,) what happened, see `_respond`.
        cap_rates: P(k) of each behaviour, which bounds P(k|¬UP).
    """

    world: World
    users: Columns
    items: Columns
    shown: Columns
    response: Columns
    cap_rates: dict[str, float]

    def days(self) -> Iterator[slice]:
        """The rows of each day."""
        ends = np.searchsorted(self.shown["time"], np.arange(self.world.days + 1) * DAY_MS)
        yield from (slice(low, high) for low, high in zip(ends[:-1], ends[1:], strict=True) if low < high)

    def exposures(self, rows: slice) -> pa.Table:
        """What a platform would record of these rows."""
        shown = {name: column[rows] for name, column in self.shown.items()}
        user, item, time = shown["user"], shown["item"], shown["time"]
        users, items, k = self.users, self.items, self.world.interests
        main, other = items["main"][item], items["other"][item]
        return pa.table({
            "split": self._splits(shown), "time_ms": self._epoch + time, "user_id": user.astype(np.int64),
            "video_id": item.astype(np.int64), "author_id": items["author"][item], "topic": main.astype(str),
            "tab": shown["tab"].astype(np.int64), "hour": time // 3_600_000 % 24, "duration_s": items["duration"][item],
            "video_age_days": np.maximum(time / DAY_MS - items["uploaded"][item], 0.0),
            "age_band": users["age_band"][user],
            "topics": _lists(np.stack([main, other], axis=1), np.stack([main >= 0, main != other], axis=1)),
            "user_topics": _lists(np.broadcast_to(np.arange(k), (len(user), k)), users["declared"][user]),
            # The platform of this world offers no such behaviour; the counters of the contract read it.
            "profile_enter": np.zeros(len(user), np.int64), "play_s": self.response["watch"][rows],
            **{task: self.response[task][rows].astype(np.int64) for task in TASKS},
        })

    def truth(self, rows: slice) -> pa.Table:
        """What is behind these rows; the key is time_ms."""
        shown = {name: column[rows] for name, column in self.shown.items()}
        user, item = shown["user"], shown["item"]
        relevance, conforming, p_up = _preference(self.world, self.users, self.items, shown)
        truth: Columns = {
            "preferred": self.response["preferred"][rows].astype(np.int64), "p_up": p_up, "relevance": relevance,
            "conformity": conforming, "user_conformity": self.users["conformity"][user],
            "popularity": self.items["popularity"][item],
        }
        for task in TASKS:
            given_up, given_not_up = _behaviour(self, task, user, item)
            truth[f"p_{task}"] = given_up * p_up + given_not_up * (1 - p_up)
            truth[f"p_{task}_given_up"] = given_up
            truth[f"p_{task}_given_not_up"] = given_not_up
        return pa.table({"time_ms": self._epoch + shown["time"], "split": self._splits(shown), **truth})

    @property
    def _first(self) -> datetime.datetime:
        return datetime.datetime.strptime(self.world.first_day, "%Y%m%d").replace(tzinfo=datetime.UTC)

    @property
    def _epoch(self) -> int:
        return int(self._first.timestamp() * 1000)

    def _splits(self, shown: Columns) -> np.ndarray:
        days = [self._first + datetime.timedelta(days=d) for d in range(self.world.days)]
        day = np.array([d.strftime("%Y%m%d") for d in days])[shown["time"] // DAY_MS]
        return np.where(shown["random"], np.char.add(day, "_random"), day)


def simulate(world: World) -> Feed:
    """Draw a log."""
    rng = np.random.default_rng(world.seed)
    users, items = _users(world, rng), _items(world, rng)
    shown = _expose(world, rng, users, items)
    feed = Feed(world, users, items, shown, {}, {})
    _respond(feed, rng)
    return feed


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
    time = rng.integers(0, world.days * DAY_MS - n, n)
    time.sort()
    time += np.arange(n)
    user = rng.choice(world.users, n, p=users["activity"] / users["activity"].sum()).astype(np.int32)
    is_random = rng.random(n) < world.random_share
    by_upload = np.argsort(items["uploaded"])
    # Candidates by popularity among what is uploaded: inverse of the cumulative weight of the upload order.
    weight = np.cumsum(np.exp(world.popularity_exponent * items["popularity"][by_upload]))
    item = np.empty(n, np.int32)
    for rows in np.array_split(np.arange(n), max(1, n // 100_000)):
        available = np.searchsorted(items["uploaded"][by_upload], time[rows] / DAY_MS, side="right")
        available = np.maximum(available, 1)
        drawn = rng.random((len(rows), world.candidates)) * weight[available - 1, None]
        shown = by_upload[np.searchsorted(weight, drawn)]
        relevant = np.einsum("nk,nck->nc", users["tastes"][user[rows]], items["topics"][shown])
        pick = np.argmax(world.policy_relevance * relevant + rng.gumbel(size=relevant.shape), axis=1)
        uniform = by_upload[(rng.random(len(rows)) * available).astype(int)]
        item[rows] = np.where(is_random[rows], uniform, shown[np.arange(len(rows)), pick])
    tab = rng.choice(3, n, p=[0.6, 0.3, 0.1]).astype(np.int8)
    return {"time": time, "user": user, "item": item, "random": is_random, "tab": tab}


def _preference(
    world: World, users: Columns, items: Columns, shown: Columns
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Relevance, conforming, P(UP) of the rows in `shown`."""
    user, item = shown["user"], shown["item"]
    relevance = np.einsum("nk,nk->n", users["tastes"][user], items["topics"][item])
    conforming = users["conformity"][user] * items["popularity"][item]
    return relevance, conforming, _sigmoid(
        world.preference_bias + world.relevance_weight * (relevance - 0.5)
        + world.conformity_weight * conforming - 0.5 * (shown["tab"] == 2)
    )


def _behaviour(feed: Feed, task: str, user: np.ndarray, item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P(k|UP) and P(k|¬UP) of a user's exposures to items."""
    world = feed.world
    if task == "long_view":
        seconds = feed.items["duration"][item]
        enough = np.minimum(seconds, 18.0)
        given_up = ndtr((np.log(1.3 * seconds**0.85) - np.log(enough)) / 0.6)
        given_not_up = ndtr((math.log(1.5) - np.log(enough)) / 0.7)
    else:
        habit = feed.users["habit"][user, TASKS.index(task)]
        given_up = _sigmoid(_logit(world.rates[task]) + world.habits[task] * habit)
        given_not_up = world.cap * feed.cap_rates.get(task, 0.0) * _sigmoid(habit)
    return given_up, (1 - world.broken) * given_not_up + world.broken * given_up


def _respond(feed: Feed, rng: np.random.Generator) -> None:
    """The latent preference, the watch time and what the user does, into `feed.response` and `feed.cap_rates`."""
    n, shown = feed.world.rows, feed.shown
    parts = [slice(start, start + _ROWS) for start in range(0, n, _ROWS)]

    def part(rows: slice) -> Columns:
        return {name: column[rows] for name, column in shown.items()}

    p_up = np.concatenate([_preference(feed.world, feed.users, feed.items, part(rows))[2] for rows in parts])
    preferred = rng.random(n) < p_up
    noise = rng.normal(size=n)
    # A stream of its own, so that a story that holds is the same log as without the knob.
    watches = preferred | (np.random.default_rng([feed.world.seed, 1]).random(n) < feed.world.broken)
    for rows in parts:
        seconds, likes = feed.items["duration"][shown["item"][rows]], watches[rows]
        log_median = np.where(likes, np.log(1.3 * seconds**0.85), math.log(1.5))
        noise[rows] = np.minimum(np.exp(log_median + np.where(likes, 0.6, 0.7) * noise[rows]), seconds)
    feed.response.update(preferred=preferred, watch=noise)
    for task in TASKS:
        label = np.empty(n, np.int8)
        if task != "long_view":
            total = sum(float(np.sum(_behaviour(feed, task, shown["user"][rows], shown["item"][rows])[0] * p_up[rows]))
                        for rows in parts)
            feed.cap_rates[task] = total / n
            drawn = rng.random(n)
        for rows in parts:
            if task == "long_view":
                label[rows] = feed.response["watch"][rows] >= np.minimum(
                    feed.items["duration"][shown["item"][rows]], 18.0)
                continue
            given_up, given_not_up = _behaviour(feed, task, shown["user"][rows], shown["item"][rows])
            label[rows] = drawn[rows] < np.where(preferred[rows], given_up, given_not_up)
        feed.response[task] = label


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


def write(world: World, output: str, how: Options = Options()) -> dict[str, Any]:  # noqa: B008
    """Simulate and write the data set and its `truth.parquet`; returns the statistics."""
    feed = simulate(world)
    with how.connect(output) as engine:
        for day in feed.days():
            engine.append("exposures", feed.exposures(day))
        truth = pa.RecordBatchReader.from_batches(
            feed.truth(slice(0, 0)).schema,
            (batch for day in feed.days() for batch in feed.truth(day).to_batches()),
        )
        source = {"pipeline": "simulate", "world": dataclasses.asdict(world), "cap_rates": feed.cap_rates}
        return publish(engine, output, schema(world), source, how, {TRUTH: truth})


def define_flags() -> None:
    flags.DEFINE_integer("rows", 200_000, "Exposures to simulate, random ones included.", lower_bound=100)
    flags.DEFINE_integer("seed", 0, "Seed of everything random.", lower_bound=0)
    flags.DEFINE_float("broken", 0.0, "How far DLEN's story is broken, see World: 0 it holds, 1 not at all.")
    options.define_flags()


def main() -> None:
    world = World(rows=FLAGS.rows, seed=FLAGS.seed, broken=FLAGS.broken)
    statistics = write(world, FLAGS.output, options.from_flags())
    print(f"{world.rows:,} rows of {len(statistics['days'])} splits, and {TRUTH}, are in {FLAGS.output}")


if __name__ == "__main__":
    commands.run(main, define_flags)
