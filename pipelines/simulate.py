"""Simulate a feed with known truth: `python -m pipelines.simulate --output=DIR --rows=N --seed=S`.

The data set has the columns of the real sources. Beside it, `truth.parquet` has one row for each exposure (key:
time_ms) with the latent preference and every true probability; no reader of features opens this file.
"""

import dataclasses
from typing import Any

import pyarrow as pa
from absl import flags

from dlen_cam2.data.manifest import TRUTH
from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.utils import commands
from pipelines import options
from pipelines.features.feed import COUNTERS, KNOWN, SESSION, histories
from pipelines.options import Options, publish
from pipelines.simulation.feed import simulate
from pipelines.simulation.world import TASKS, World

FLAGS = flags.FLAGS


def schema(world: World) -> Schema:
    """The schema of a simulated log."""
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
            *SESSION,
        ),
        tasks=tuple(Task(name) for name in TASKS),
        targets=("play_s", "duration_s"),
        keys={"user": "user_id", "item": "video_id", "time": "time_ms"},
        known={name: KNOWN["play_s"] for name in (*TASKS, "play_s")},
    )


def write(world: World, output: str, how: Options = Options()) -> dict[str, Any]:  # noqa: B008
    """Simulate a feed and write the data set and its `truth.parquet`; returns the statistics."""
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
    flags.DEFINE_integer("rows", 200_000, "Number of exposures to simulate, including random ones.", lower_bound=100)
    flags.DEFINE_integer("seed", 0, "Seed of all random numbers.", lower_bound=0)
    flags.DEFINE_float("broken", 0.0, "How far DLEN's assumptions are broken: 0, they hold; 1, not at all.")
    options.define_flags()


def main() -> None:
    world = World(rows=FLAGS.rows, seed=FLAGS.seed, broken=FLAGS.broken)
    statistics = write(world, FLAGS.output, options.from_flags())
    options.finish(statistics, f" and {TRUTH}")


if __name__ == "__main__":
    commands.run(main, define_flags)
