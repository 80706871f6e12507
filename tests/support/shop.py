"""A shop's log for tests: string ids, missing values, feedback that follows feedback, and the truth behind it.

Nothing in it is named as in a video feed. Who clicks, puts into the cart, buys and sends back is drawn from
probabilities that `truth` keeps, so that a test can ask how much of what can be known a model has found.
"""

import dataclasses
import datetime
import pathlib
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FIRST = datetime.datetime(2025, 3, 3, tzinfo=datetime.UTC)
DAY_MS = 86_400_000
CATEGORIES = ("shoes", "coats", "lamps", "books", "toys", "tools", "garden", "bath")
DEVICES = ("phone", "tablet", "desktop")
TASKS = ("click", "add_to_cart", "purchase", "return_item")
# The roles' columns, as flags of pipelines.from_logs.
ROLES = ("--time=shown_at", "--user=visitor", "--item=sku")


@dataclasses.dataclass(frozen=True)
class Shop:
    """A log of `rows` exposures over `days` days, and P(task | the task before) of each row.

    Attributes:
        log: the exposures in time order, as a shop would export them.
        truth: (rows, 4), the chances that were drawn from, by `TASKS`; each given that the one before it is 1.
    """

    log: pa.Table
    truth: np.ndarray

    @property
    def entire(self) -> np.ndarray:
        """(rows, 4): the chances over all exposures."""
        return np.cumprod(self.truth, axis=1)

    def write(self, directory: pathlib.Path, files: int = 3) -> str:
        """Write the log as Parquet files; returns the pattern that matches them."""
        directory.mkdir(parents=True, exist_ok=True)
        for k, part in enumerate(np.array_split(np.arange(self.log.num_rows), files)):
            pq.write_table(self.log.slice(part[0], len(part)), directory / f"part-{k}.parquet")
        return f"{directory}/*.parquet"


def make(rows: int = 40_000, days: int = 8, seed: int = 0, visitors: int = 0, skus: int = 0) -> Shop:
    """Draw a shop; default: a visitor for each 25 rows, and a sku for each 60."""
    rng = np.random.default_rng(seed)
    visitors, skus = visitors or max(rows // 25, 10), skus or max(rows // 60, 10)

    def ids(count: int) -> np.ndarray:
        return np.array([str(uuid.UUID(bytes=rng.bytes(16), version=4)) for _ in range(count)], object)

    visitor_ids, sku_ids = ids(visitors), np.array([f"SKU-{u[:8]}" for u in ids(skus)], object)
    taste = rng.normal(0, 1, (visitors, len(CATEGORIES)))
    thrift, eager = rng.normal(0, 0.5, visitors), rng.normal(0, 0.7, visitors)
    category = rng.integers(len(CATEGORIES), size=skus)
    brands = np.array([f"brand {k:02d}" for k in range(40)], object)
    brand = (category * 5 + rng.integers(5, size=skus)) % len(brands)
    fame, appeal = rng.normal(0, 0.5, len(brands)), rng.normal(0, 0.6, skus)
    price = np.round(np.exp(rng.normal(3.2, 0.8, skus)), 2)
    cheap = (3.2 - np.log(price)) / 0.8

    u = rng.choice(visitors, rows, p=_zipf(rng, visitors, 0.6))
    i = rng.choice(skus, rows, p=_zipf(rng, skus, 0.8))
    clock = np.sort(rng.integers(0, days * DAY_MS, rows))
    device = rng.choice(len(DEVICES), rows, p=(0.6, 0.1, 0.3))
    slot = rng.integers(1, 25, rows)
    fit = taste[u, category[i]]
    sale = cheap[i] * (0.4 + thrift[u])
    truth = np.stack([
        _sigmoid(-1.4 + 0.7 * fit + appeal[i] + eager[u] + fame[brand[i]] - 0.04 * slot),
        _sigmoid(-1.0 + 0.5 * fit + 0.7 * sale + 0.4 * appeal[i] + 0.3 * (device == 2)),
        _sigmoid(-0.6 + 0.9 * sale + 0.5 * eager[u] + 0.5 * (device == 2)),
        _sigmoid(-1.8 - 0.6 * appeal[i] + 0.4 * (category[i] < 2)),
    ], axis=1)
    feedback = np.cumprod(rng.random(truth.shape) < truth, axis=1)

    def missing(values: np.ndarray, share: float) -> np.ndarray:
        return np.where(rng.random(rows) < share, None, values.astype(object))

    session = np.unique(np.stack([u, clock // (DAY_MS // 24)]), axis=1, return_inverse=True)[1].ravel()
    times = np.datetime64(FIRST.replace(tzinfo=None), "ms") + clock
    stars = np.round(np.clip(3.5 + appeal + rng.normal(0, 0.3, skus), 1, 5), 1)
    columns = {
        "request_id": ids(rows), "session_id": ids(session.max() + 1)[session],
        "shown_at": pa.array(times, pa.timestamp("ms", "UTC")), "ship_date": pa.array(times.astype("M8[D]")),
        "hour": (clock // 3_600_000 % 24).astype(np.int64), "visitor": visitor_ids[u], "sku": sku_ids[i],
        "brand": pa.array(missing(brands[brand[i]], 0.01), pa.string()),
        "category": pa.array(missing(np.array(CATEGORIES, object)[category[i]], 0.002), pa.string()),
        "price": price[i], "stars": pa.array(missing(stars[i], 0.08), pa.float64()),
        "device": np.array(DEVICES, object)[device], "slot": slot,
        "click": feedback[:, 0], "add_to_cart": feedback[:, 1], "purchase": feedback[:, 2],
        "return_item": feedback[:, 3], "explored": (rng.random(rows) < 0.05).astype(np.int64),
    }
    return Shop(pa.table(columns), truth)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _zipf(rng: np.random.Generator, count: int, exponent: float) -> np.ndarray:
    weights = np.arange(1, count + 1) ** -exponent
    return rng.permutation(weights / weights.sum())
