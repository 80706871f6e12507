"""How fast a log becomes a data set, with and without computed features: `python -m benchmarks.computed_features`.

The log is a shop's: ids that are texts, four kinds of feedback that follow each other, purchases that come up to a day
later. Its schema is the proposal, with the first `--features` of its computed features. Each number of features is
converted in a process of its own, one after the other, `--repeat` times; the fastest counts.
"""

import multiprocessing
import pathlib
import resource
import tempfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import flags

from dlen_cam2.utils import commands, console
from dlen_cam2.utils.markdown import markdown
from pipelines.from_logs import Roles, convert, propose
from pipelines.options import Options
from pipelines.writer.shards import Form

FLAGS = flags.FLAGS
DAY_MS = 86_400_000
START = 20_089 * DAY_MS  # 2025-01-01
ROLES = Roles("shown_at", "visitor", "sku")


def log(rows: int, days: int = 8) -> pa.Table:
    """A shop's log: a visitor for each 25 rows, a sku for each 60, 40 brands in 8 categories."""
    rng = np.random.default_rng(0)

    def texts(count: int, prefix: str) -> np.ndarray:
        return np.array([f"{prefix}-{rng.integers(1 << 60):015x}" for _ in range(count)])

    visitors, skus = max(rows // 25, 10), max(rows // 60, 10)
    visitor, sku = rng.integers(0, visitors, rows), rng.integers(0, skus, rows)
    brand_of, shown = rng.integers(0, 40, skus), START + np.sort(rng.integers(0, days * DAY_MS, rows))
    brand = brand_of[sku]
    taste = rng.normal(size=(visitors, 8))[visitor, brand % 8]
    click = rng.random(rows) < 1 / (1 + np.exp(1.3 - taste))
    cart = click & (rng.random(rows) < 0.4)
    purchase = cart & (rng.random(rows) < 0.5)
    bought = shown + rng.integers(0, DAY_MS, rows)
    return pa.table({
        "shown_at": shown, "visitor": texts(visitors, "v")[visitor], "sku": texts(skus, "s")[sku],
        "brand": texts(40, "b")[brand], "category": texts(8, "c")[brand % 8],
        "device": np.array(["phone", "tablet", "desktop"])[rng.integers(0, 3, rows)],
        "price": np.round(rng.lognormal(3, 1, skus), 2)[sku],
        "click": click.astype(int), "add_to_cart": cart.astype(int), "purchase": purchase.astype(int),
        "wishlist": (rng.random(rows) < 0.02).astype(int), "bought_at": pa.array(bought, mask=~purchase),
    })


def _converted(path: str, features: int, output: str, layout: str, results: multiprocessing.Queue) -> None:
    """Convert with so many computed features; puts how many there were, wall seconds and processor seconds."""
    console.quiet(True)
    schema, _ = propose(path, ROLES, pathlib.Path(output).with_suffix(".work"))
    computed = [f.name for f in schema.features if f.computed]
    schema = schema.select(without=computed[features:])
    start, spent = time.monotonic(), _spent()
    convert(path, schema, ROLES, output, how=Options(form=Form(layout, "", multiprocessing.cpu_count())))
    results.put((len(computed[:features]), time.monotonic() - start, _spent() - spent))


def _spent() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def define_flags() -> None:
    flags.DEFINE_integer("rows", 1_000_000, "Rows of the log.", lower_bound=1000)
    flags.DEFINE_list("features", ["0", "40"], "Numbers of computed features.")
    flags.DEFINE_string("layout", "example", "Layout of the shards.")
    flags.DEFINE_integer("repeat", 2, "How often each is converted.", lower_bound=1)


def main() -> None:
    lines = []
    with tempfile.TemporaryDirectory() as home:
        path = f"{home}/log.parquet"
        pq.write_table(log(FLAGS.rows), path)
        context = multiprocessing.get_context("spawn")
        best: dict[int, tuple[float, float]] = {}
        for _ in range(FLAGS.repeat):
            for wanted in map(int, FLAGS.features):
                results = context.Queue()
                process = context.Process(target=_converted, args=(path, wanted, f"{home}/out", FLAGS.layout, results))
                process.start()
                features, wall, spent = results.get()
                process.join()
                best[features] = min(best.get(features, (wall, spent)), (wall, spent))
        for features, (wall, spent) in best.items():
            lines.append((str(features), f"{wall:.1f}", f"{FLAGS.rows / wall:,.0f}", f"{spent:.0f}"))
    console.page(markdown(("computed features", "seconds", "rows/s", "processor seconds"), lines))


if __name__ == "__main__":
    commands.run(main, define_flags)
