"""A simulated log: the users and items, who is shown what, what happens, and the truth behind it."""

import dataclasses
import datetime
import math
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from scipy.special import ndtr

from pipelines.simulation.world import DAY_MS, TASKS, Columns, World

_ROWS = 500_000  # rows that are computed at once


@dataclasses.dataclass(frozen=True)
class Feed:
    """A simulated log in time order, which takes a few bytes a row; `exposures` and `truth` return full rows.

    Attributes:
        world: the parameters.
        users, items: their properties, see `_users` and `_items`.
        shown: (rows,), who was shown what, see `_expose`.
        response: (rows,), what happened, see `_respond`.
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
        """The record that a platform would keep of these rows."""
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
        """The truth behind these rows; the key is time_ms."""
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
    """Simulate a log."""
    rng = np.random.default_rng(world.seed)
    users, items = _users(world, rng), _items(world, rng)
    shown = _expose(world, rng, users, items)
    feed = Feed(world, users, items, shown, {}, {})
    _respond(feed, rng)
    return feed


def _users(world: World, rng: np.random.Generator) -> Columns:
    """Draw the users' tastes, habits and so on: (users,) or (users, …)."""
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
    """Draw the items' topics, popularity (partly the author's), duration in seconds, upload time in days of the log."""
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
    """Draw who is shown what, in time order and at least one millisecond apart."""
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
    """The relevance, conformity and P(UP) of the rows in `shown`."""
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
    """Draw the latent preference, the watch time and the behaviour into `feed.response` and `feed.cap_rates`."""
    n, shown = feed.world.rows, feed.shown
    parts = [slice(start, start + _ROWS) for start in range(0, n, _ROWS)]

    def part(rows: slice) -> Columns:
        return {name: column[rows] for name, column in shown.items()}

    p_up = np.concatenate([_preference(feed.world, feed.users, feed.items, part(rows))[2] for rows in parts])
    preferred = rng.random(n) < p_up
    noise = rng.normal(size=n)
    # A separate stream, so that with an unbroken story the log is the same as without this option.
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


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _lists(values: np.ndarray, keep: np.ndarray) -> pa.ListArray:
    """Turn integers (rows, width) and a mask of the same shape into a list of the kept ones for each row."""
    offsets = np.concatenate([[0], np.cumsum(keep.sum(axis=1))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values[keep]))
