"""The flags that every pipeline has, and the end of every pipeline."""

import contextlib
import dataclasses
import os
import pathlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from dlen_cam2.data import manifest
from dlen_cam2.data.manifest import COMPRESSIONS, LAYOUTS
from dlen_cam2.schema import Schema
from dlen_cam2.utils import console
from pipelines import engines
from pipelines.engines import Engine, literal
from pipelines.features import point_in_time
from pipelines.writer import dataset
from pipelines.writer.shards import Form

FLAGS = flags.FLAGS
SNAPSHOTS = "snapshots"


@dataclasses.dataclass(frozen=True)
class Options:
    """How a pipeline works, apart from what it reads.

    Attributes:
        engine, memory, spark_master: see `pipelines.engines.connect`.
        since: add the days from this one on to the existing data set. "": write all days.
        train_days: see `pipelines.writer.dataset.write_dataset`.
        form: the layout, compression and number of processes.
    """

    engine: str = "duckdb"
    memory: str = "2GB"
    spark_master: str = "local[*]"
    since: str = ""
    train_days: str = ""
    form: Form = dataclasses.field(default_factory=Form)

    @contextlib.contextmanager
    def connect(self, output: str | os.PathLike) -> Iterator[Engine]:
        """Open the engine with a working directory beside `output`."""
        with engines.connect(self.engine, output, self.memory, self.spark_master) as engine:
            yield engine

    def check_days(self, splits: Sequence[str]) -> None:
        """Raise `UserError` before the work begins if `train_days` are not among the `splits` that will be written."""
        if self.train_days and not self.since:
            manifest.parse_days(self.train_days, splits)


def publish(
    engine: Engine, output: str, schema: Schema, source: Mapping[str, Any], options: Options,
    sides: Mapping[str, dataset.Rows] | None = None, unknown: Sequence[str] = (),
    without: str = "",
) -> dict[str, Any]:
    """Compute the point-in-time features of the table `exposures` and write the data set; returns its statistics.

    For `sides`, see `dataset.write_dataset`; for `unknown` and `without`, see `point_in_time.splits`.

    Raises:
        UserError: see `point_in_time.splits`, `dataset.write_dataset` and `dataset.append`.
    """
    snapshots = engine.directory / SNAPSHOTS
    snapshots.mkdir()
    if not options.since:
        names = engine.query("SELECT DISTINCT split FROM exposures WHERE split IS NOT NULL ORDER BY split")
        options.check_days([name for (name,) in names])
        found = point_in_time.splits(engine, schema, snapshots, unknown=unknown, without=without)
        return dataset.write_dataset(
            output, schema, found, source, {**(sides or {}), SNAPSHOTS: snapshots}, options.form, options.train_days,
            exposures(engine, without=without))
    there = list(dataset.standing(output)[1]["days"])
    found = point_in_time.splits(engine, schema, snapshots, pathlib.Path(output) / SNAPSHOTS, options.since, there,
                                 unknown, without)
    return dataset.append(output, found, {**source, "since": options.since}, options.form, {SNAPSHOTS: snapshots},
                          exposures(engine, options.since, without))


def exposures(engine: Engine, since: str = "", without: str = "") -> int:
    """The number of rows of `exposures` that are written: of the split `since` and later ones, `without` those."""
    leave = f" AND right(split, {len(without)}) <> {literal(without)}" if without else ""
    return int(engine.one(f"SELECT count(*) FROM exposures WHERE split >= {literal(since)}{leave}"))


def finish(statistics: Mapping[str, Any], more: str = "") -> None:
    """Print what was written to `--output` and what to do next; `more` names additional content."""
    rows, found = sum(day["rows"] for day in statistics["days"].values()), len(statistics["days"])
    console.say(f"{rows:,} rows in {found} splits{more} were written to {FLAGS.output}")
    console.next_step(f"python -m pipelines.check {shlex.quote(FLAGS.output)} --output=check.html")


def define_flags(point_in_time: bool = True, output: bool = True) -> None:
    """Define the flags; those of engines and days only with `point_in_time`, and `--output` only with `output`."""
    flags.DEFINE_string("output", None, "Directory of the data set to write.", required=output)
    flags.DEFINE_enum("layout", "example", LAYOUTS, "Layout of the records: example is one row, block some thousand "
                      "rows.")
    flags.DEFINE_enum("compression", "", COMPRESSIONS, "Compression of the shards. Default: none.")
    flags.DEFINE_integer("workers", os.cpu_count() or 1, "Number of processes that encode shards.", lower_bound=1)
    flags.DEFINE_string("train_days", "", "Days that vocabularies are learned from. Default: all but the last.")
    flags.DEFINE_string("memory", "2GB", "Memory that the engine may use before it writes to disk, such as 2GB.")
    if point_in_time:
        flags.DEFINE_enum("engine", "duckdb", engines.ENGINES, "Engine that runs the SQL.")
        flags.DEFINE_string("spark_master", "local[*]", "Master of Spark, such as yarn or spark://host:7077.")
        flags.DEFINE_string("since", "", "First day to add, with all later ones, to the data set in --output, from its "
                            "snapshot of the day before. Default: write the whole data set.")


def from_flags() -> Options:
    """The options that the flags give."""
    given: dict[str, Any] = {
        name: FLAGS[name].value for name in ("engine", "memory", "spark_master", "since") if name in FLAGS
    }
    form = Form(FLAGS.layout, FLAGS.compression, FLAGS.workers)
    return Options(**given, train_days=FLAGS.train_days, form=form)
