"""Make an intervened split of a data set: `python -m pipelines.intervene --data_dir=DIR --output=DIR --seed=S`.

Use this command for data sets without uniformly random exposures. It samples exposures by the inverse popularity of
their item, as a substitute for a test under another exposure policy (Zheng et al. 2021, "Disentangling User Interest
and Conformity for Recommendation with Causal Embedding", section 5.1; there applied to positive interactions, here to
all exposures). Split D of the output holds the training rows of day D; D_validation and D_intervened hold its
validation and test rows.

Rows are moved between splits unchanged, so a counter or history of a training row counts earlier held-out exposures and
their feedback. Measure a model on days after those that it was trained on, as the suites do.
"""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import flags
from scipy.stats import spearmanr

from dlen_cam2 import data
from dlen_cam2.schema import Schema, pbtxt
from dlen_cam2.utils import commands, console
from dlen_cam2.utils.errors import UserError
from pipelines.writer.dataset import write_dataset
from pipelines.writer.shards import Form
from pipelines.writer.stored_rows import tables

FLAGS = flags.FLAGS

# What `assign` returns, and what each part's splits are called beside their day.
TRAIN, VALIDATION, INTERVENED = range(3)
SUFFIXES = {TRAIN: "", VALIDATION: "_validation", INTERVENED: "_intervened"}
# Shares of all rows: sampled by inverse popularity, and of those for validation and for the test (the rest trains).
SHARES = {"sampled": 0.4, "validation": 0.1, "intervened": 0.2}
# DESIGN: 1 / n_i is capped at this percentile over rows. The rarest items' twentieth of the rows share one weight, so
# that an item's only exposure does not weigh as much as all those of a popular item.
CAP_PERCENTILE = 95
_BATCH = 8192


def assign(items: np.ndarray, seed: int) -> np.ndarray:
    """Assign each row to a part: `TRAIN`, `VALIDATION` or `INTERVENED`.

    With n_i the number of rows of item i, round(0.4 N) of the N rows are sampled without replacement, one after
    another, with probability proportional to w = min(1 / n_i, cap). The rows with the largest keys log w + Gumbel noise
    are such a sample (Efraimidis and Spirakis 2006, whose keys these are up to a monotone map). In random order,
    round(0.1 N) of them are for validation, round(0.2 N) for the test and the others for training, as are all rows that
    were not sampled.

    Args:
        items: (N,), the item of each row, N >= 1.
        seed: the same seed gives the same parts.

    Returns:
        (N,) int8.
    """
    rng = np.random.default_rng(seed)
    sampled, validation, test = (round(share * len(items)) for share in SHARES.values())
    _, item, counts = np.unique(items, return_inverse=True, return_counts=True)
    weights = 1 / counts[item]
    weights = np.minimum(weights, np.percentile(weights, CAP_PERCENTILE))
    keys = np.log(weights) + rng.gumbel(size=len(items))
    held_out = rng.permutation(np.argsort(-keys)[:sampled])
    parts = np.full(len(items), TRAIN, np.int8)
    parts[held_out[:validation]] = VALIDATION
    parts[held_out[validation : validation + test]] = INTERVENED
    return parts


def write(data_dir: str, output: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the data set `data_dir` into the data set `output`; a truth file is copied unchanged.

    There are two passes: one over the items, and one that rewrites day by day. Memory holds one day's rows, and some
    numbers for each row.

    Args:
        data_dir: a data set. Only its days (names of digits) are split; what is left out is printed and recorded.
        output: where to write; replaced if it is a data set.
        seed: seed of the sampling.

    Returns:
        (N,), the item of each row as an integer, and its part.

    Raises:
        UserError: `output` is or holds `data_dir`, the schema has no item key, there are no rows in day splits, or
            a shard is absent, damaged or lacks a column.
    """
    source = pathlib.Path(data_dir).resolve()
    if source.is_relative_to(pathlib.Path(output).resolve()):
        raise UserError(f"--output is replaced, so it must not be or contain --data_dir. Received: {output!r}.")
    schema, statistics = pbtxt.load(data_dir), data.statistics(data_dir)
    if "item" not in schema.keys:
        raise UserError(f"the schema of {data_dir} must have an item key, by which exposures are counted. "
                        f"Received: {dict(schema.keys)}.")
    rows = {split: day["rows"] for split, day in statistics["days"].items()}
    days = [split for split, count in rows.items() if split.isdigit() and count]
    left_out = {split: count for split, count in rows.items() if not split.isdigit()}
    if not days:
        raise UserError(f"{data_dir} must have rows in splits that are days, such as 20240101. Received: {rows}.")
    if left_out:
        console.say(f"{sum(left_out.values()):,} rows are left out, since their splits are not days: "
                    f"{', '.join(left_out)}")
    data.read(data_dir, schema, days, _BATCH)  # refuses shards that are absent, truncated or lack a column

    items = _items(data_dir, schema, days)
    parts = assign(items, seed)
    report = {"pipeline": "intervene", "source": statistics.get("source"), "seed": seed, "shares": SHARES,
              "cap_percentile": CAP_PERCENTILE, "rows_left_out": left_out}
    truth = source / data.TRUTH
    sides = {data.TRUTH: pq.read_table(truth)} if truth.is_file() else {}
    stored = data.read_manifest(data_dir, days[0])
    form = Form(stored.layout, stored.compression)
    write_dataset(output, schema, _splits(data_dir, schema, days, parts), report, sides, form)
    return items, parts


def _items(data_dir: str, schema: Schema, days: Sequence[str]) -> np.ndarray:
    """An integer for each row of `days`, (N,), the same where the item is the same."""
    name = schema.keys["item"]
    codes: dict[Any, int] = {}
    values = (v for day in days for table in tables(data_dir, schema, day, [name]) for v in table[name].to_pylist())
    return np.fromiter((codes.setdefault(v, len(codes)) for v in values), np.int64)


def _splits(
    data_dir: str, schema: Schema, days: Sequence[str], parts: np.ndarray
) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each day by part, in their old order; splits without rows are left out, which is printed."""
    start = 0
    for day in days:
        table = pa.concat_tables(tables(data_dir, schema, day))
        part = parts[start : start + table.num_rows]
        start += table.num_rows
        for value, suffix in SUFFIXES.items():
            if (part == value).any():
                yield day + suffix, table.filter(pa.array(part == value))
            else:
                console.say(f"{day}{suffix} has no rows and is not written")


def summary(items: np.ndarray, parts: np.ndarray) -> str:
    """Summarise the rows of each part, and how much an item's popularity decides how often training and test show it.

    Spearman's correlation sees only the order of the items. Where most items have fewer exposures than an even
    sample would take, it stays high although the sample is far more even; the share of the popular items shows that.
    """
    popularity = np.bincount(items)
    top = np.argsort(-popularity)[: -(-len(popularity) // 10)]
    lines = []
    for name, part in (("training", TRAIN), ("validation", VALIDATION), ("test", INTERVENED)):
        shown = np.bincount(items[parts == part], minlength=len(popularity))
        rank, share = spearmanr(popularity, shown).statistic, shown[top].sum() / shown.sum()
        lines.append(f"{name}: {shown.sum():,} rows; the Spearman correlation of an item's popularity and its "
                     f"exposures is {rank:.3f}; the most popular tenth of the items has {share:.1%} of the exposures")
    return "\n".join(lines)


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "Directory of the data set to split.", required=True)
    flags.DEFINE_string("output", None, "Directory of the data set to write.", required=True)
    flags.DEFINE_integer("seed", 0, "Seed of the sampling.", lower_bound=0)


def main() -> None:
    console.say(summary(*write(FLAGS.data_dir, FLAGS.output, FLAGS.seed)))


if __name__ == "__main__":
    commands.run(main, define_flags)
