"""Write a data set; see `dlen_cam2.data.manifest` for its files.

A split is a day ("20220425"), a day's uniformly random exposures ("20220425_random"), or one of a source without days
("train", "test").
"""

import os
import pathlib
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dlen_cam2.data import manifest
from dlen_cam2.data.manifest import COUNTS, MANIFEST, STATISTICS
from dlen_cam2.schema import Schema, pbtxt
from dlen_cam2.utils import console
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import join, replaceable, size, staged, write_json
from pipelines.writer.shards import ROWS_PER_SHARD, Form, processes, write_shards
from pipelines.writer.statistics import Statistics

# A split's rows: as a whole, or batch by batch.
Rows: TypeAlias = pa.Table | pa.RecordBatchReader
_ARROW = {"int": pa.int64(), "float": pa.float32(), "string": pa.string()}


def write_dataset(
    directory: str | os.PathLike, schema: Schema, splits: Iterable[tuple[str, Rows]], source: Mapping[str, Any],
    sides: Mapping[str, Rows | pathlib.Path] | None = None, form: Form = Form(), train_days: str = "",  # noqa: B008
    total: int | None = None,
) -> dict[str, Any]:
    """Write `directory` as a whole, or not at all.

    Args:
        directory: where to write; replaced if it is a data set.
        schema: what the columns are; the rows must have every column that it names.
        splits: (split name, rows) in time order. Memory holds some shards of rows, and the distinct values of a split.
        source: how the data was made (parameters, rows read and dropped); kept in `statistics.json`.
        sides: further tables by name, written as Parquet beside the splits, and directories, moved there; no reader of
            features opens them.
        form: layout, compression, processes.
        train_days: splits from which vocabularies are learned (`Feature.min_count`), such as "20220425..20220503".
            Default: see `default_train_days`.
        total: the number of rows of all splits, if known, for the progress bar.

    Returns:
        The statistics, as in `statistics.json`.

    Raises:
        UserError: a column is missing or of the wrong type, holds nulls or NaN, a label is not 0 or 1, the disk is
            full, or there are no rows at all.
    """
    if there := list(replaceable(directory, pbtxt.FILE).glob(f"*/{MANIFEST}")):
        console.say(f"the earlier data set in {directory} ({len(there)} splits) is replaced")
    with staged(directory, pbtxt.FILE) as stage, processes(form) as pool:
        days: dict[str, Any] = {}
        with console.Progress("writing", total) as progress:
            for split, rows in splits:
                if split in days:
                    raise UserError(f"each split may be written once. Received twice: {split!r}.")
                days[split] = _write_split(stage, schema, split, rows, form, pool, progress)
        if not any(day["rows"] for day in days.values()):
            raise UserError(f"there must be rows to write to {directory}. Received: none.")
        learned = manifest.parse_days(train_days, list(days)) if train_days else default_train_days(list(days))
        names = [f.name for f in schema.features if f.min_count]
        schema = schema.learn(manifest.counts(stage, learned, names))
        pbtxt.save(schema, stage)
        content = {"source": dict(source), "vocabularies_of": learned, "days": days}
        write_json(stage / STATISTICS, content)
        _write_tfds(stage, schema, form)
        for name, side in (sides or {}).items():
            if isinstance(side, pathlib.Path):
                side.rename(stage / name)
                continue
            with pq.ParquetWriter(stage / name, side.schema) as writer:
                for batch in side.to_batches() if isinstance(side, pa.Table) else side:
                    writer.write_batch(batch)
    return content


def default_train_days(splits: Sequence[str]) -> list[str]:
    """The default training days: all days but the last, or else "train", or else all splits."""
    days = [split for split in splits if split.isdigit()]
    return days[:-1] or days or [split for split in splits if split == "train"] or list(splits)


def standing(directory: str | os.PathLike) -> tuple[Schema, dict[str, Any]]:
    """The schema and statistics of an existing data set, to add days to it. Raises `UserError` if it is not one."""
    if size(join(directory, STATISTICS)) < 0:
        raise UserError(f"--since needs a data set to add days to: run without --since first. Received: {directory}, "
                        f"which has no {STATISTICS}.")
    return pbtxt.load(directory), manifest.statistics(directory)


def append(
    directory: str | os.PathLike, splits: Iterable[tuple[str, Rows]], source: Mapping[str, Any], form: Form,
    sides: Mapping[str, pathlib.Path] | None = None, total: int | None = None,
) -> dict[str, Any]:
    """Add splits to the data set `directory`, or replace all splits of their days, as a whole or not at all.

    The data set is built again beside the old one, with hard links to what stays, and replaces it at the end.
    Vocabularies do not change.

    Args:
        directory: a data set.
        splits, source, form, total: see `write_dataset`.
        sides: directories by name, whose entries join, or replace, those of the same directory in the data set.

    Returns:
        The statistics of all splits.

    Raises:
        UserError: see `write_dataset`; or `directory` is not a data set, or has another layout or compression.
    """
    schema, content = standing(directory)
    for split in content["days"]:
        found = manifest.read_manifest(directory, split)
        if (found.layout, found.compression) != (form.layout, form.compression):
            raise UserError(
                f"added days must have the layout {found.layout!r} and the compression {found.compression!r} of "
                f"{directory}. Received: {form.layout!r}, {form.compression!r}."
            )
    with staged(directory, pbtxt.FILE) as stage, processes(form) as pool:
        _link(pathlib.Path(directory), stage)
        with console.Progress("writing", total) as progress:
            added = {split: _write_split(stage, schema, split, rows, form, pool, progress) for split, rows in splits}
        content["source"] = dict(source)
        days = {split.partition("_")[0] for split in added}
        for split in content["days"].keys() - added.keys():
            if split.partition("_")[0] in days:  # such as the rows of a day whose labels were not known yet
                shutil.rmtree(stage / split)
                del content["days"][split]
        content["days"] = dict(sorted((content["days"] | added).items()))
        for name, side in (sides or {}).items():
            (stage / name).mkdir(exist_ok=True)
            for entry in side.iterdir():
                shutil.rmtree(stage / name / entry.name, ignore_errors=True)
                entry.rename(stage / name / entry.name)
        write_json(stage / STATISTICS, content)
        _write_tfds(stage, schema, form)
    return content


def _link(source: pathlib.Path, target: pathlib.Path) -> None:
    """Link `source`'s content into `target`, except hidden leftovers and TFDS's files, which are written in place."""
    for path in source.iterdir():
        if path.name.startswith(".") or path.name in ("dataset_info.json", "features.json"):
            continue
        if path.is_dir():
            shutil.copytree(path, target / path.name, copy_function=_link_file)
        else:
            _link_file(str(path), str(target / path.name))


def _link_file(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def _write_split(
    directory: str | os.PathLike, schema: Schema, split: str, rows: Rows, form: Form, pool: Executor | None,
    progress: console.Progress,
) -> dict[str, Any]:
    """Write one split as a whole; returns its statistics."""
    if not split or split != pathlib.PurePath(split).name or split.startswith("."):
        raise UserError(f"the name of a split must be the name of a directory. Received: {split!r}.")
    statistics = Statistics(schema)
    start = time.monotonic()

    def checked() -> Iterator[pa.Table]:
        for table in _shards_of(rows):
            table = _checked(schema, split, table)
            statistics.add(table)
            yield table
            progress.advance(len(table), split)

    with staged(pathlib.Path(directory) / split, MANIFEST) as stage:
        shards = write_shards(checked(), stage, schema.name, form, schema.binary_columns, pool)
        result = statistics.result()
        pq.write_table(statistics.counts(), stage / COUNTS)
        write_json(stage / MANIFEST, {
            "rows": statistics.rows, "layout": form.layout, "compression": form.compression, "shards": shards,
        })
    size = sum(shard["bytes"] for shard in shards.values())
    console.say(f"{split}: {statistics.rows:,} rows, {len(shards)} shards, {size / 1e6:.1f} MB, "
                f"{statistics.rows / (time.monotonic() - start):,.0f} rows/s")
    return result


def _shards_of(rows: Rows) -> Iterator[pa.Table]:
    """Tables of `ROWS_PER_SHARD` rows, the last with fewer; there is at least one table."""
    waiting: list[pa.RecordBatch] = []
    count = written = 0
    for batch in rows.to_batches() if isinstance(rows, pa.Table) else rows:
        waiting.append(batch)
        count += batch.num_rows
        while count >= ROWS_PER_SHARD:
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, ROWS_PER_SHARD)
            written += 1
            waiting = table.slice(ROWS_PER_SHARD).to_batches()
            count -= ROWS_PER_SHARD
    if count or not written:
        yield pa.Table.from_batches(waiting, rows.schema)


def _checked(schema: Schema, split: str, table: pa.Table) -> pa.Table:
    """`table` with exactly the schema's columns, cast to the types that are written."""
    columns = {}
    lists = {f.name for f in schema.features if f.is_list}
    for name, dtype in schema.columns.items():
        where = f"column {name!r} of split {split!r}"
        if name not in table.column_names:
            raise UserError(f"{where} is missing. Received columns: {table.column_names}.")
        column = table.column(name)
        wanted = pa.list_(_ARROW[dtype]) if name in lists else _ARROW[dtype]
        try:
            # float64 -> float32 rounds, which is meant; every other cast must be exact.
            column = column.cast(wanted, safe=dtype != "float")
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserError(f"{where} must be {wanted}. Received: {column.type} ({error}).") from error
        if name in lists and column.null_count:  # an engine's list of nothing
            empty = pa.scalar([], wanted)
            column = pa.chunked_array([pc.coalesce(chunk, empty) for chunk in column.chunks], wanted)
        nulls = column.null_count + (pc.list_flatten(column).null_count if name in lists else 0)
        if nulls:
            raise UserError(f"{where} must have no nulls. Received: {nulls} nulls.")
        if dtype == "float" and not pc.all(pc.is_finite(column)).as_py() and len(column):
            bad = pc.sum(pc.invert(pc.is_finite(column))).as_py()
            raise UserError(f"{where} must be finite. Received: {bad} values that are NaN or infinite.")
        if name in schema.binary_columns and len(column):
            values = set(pc.unique(column).to_pylist())
            if not values <= {0, 1}:
                raise UserError(f"{where} is a label or mask and must be 0 or 1. Received: {sorted(values)[:5]}.")
        columns[name] = column
    return pa.table(columns)


def _write_tfds(directory: pathlib.Path, schema: Schema, form: Form) -> None:
    """Write metadata that lets `tfds.builder_from_directory(directory)` read the rows.

    TFDS reads one row per record and nothing compressed: other forms get no such metadata.
    """
    if form.layout != "example" or form.compression:
        return
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.dataset_info import DatasetIdentity

    from dlen_cam2.data.parsing import DTYPES

    lists = {f.name for f in schema.features if f.is_list}
    features = {
        name: tfds.features.Sequence(DTYPES[dtype]) if name in lists else tfds.features.Scalar(DTYPES[dtype])
        for name, dtype in schema.columns.items()
    }
    template = tfds.core.ShardedFileTemplate(
        data_dir=directory, dataset_name=schema.name, template="{SPLIT}/{DATASET}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        filetype_suffix="tfrecord",
    )
    identity = DatasetIdentity(
        name=schema.name, version=tfds.core.Version("1.0.0"), data_dir=str(directory), module_name="")
    info = tfds.core.DatasetInfo(builder=identity, features=tfds.features.FeaturesDict(features))
    info.set_file_format("tfrecord")
    splits = []
    for split in manifest.statistics(directory)["days"]:
        shards = manifest.read_manifest(directory, split).shards.values()
        splits.append(tfds.core.SplitInfo(
            name=split, shard_lengths=[s["rows"] for s in shards], num_bytes=sum(s["bytes"] for s in shards),
            filename_template=template.replace(split=split),
        ))
    info.set_splits(tfds.core.splits.SplitDict(splits))
    info.write_to_directory(directory)
