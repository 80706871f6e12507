"""Write a data set: TFRecord shards per split, `schema.pbtxt`, `statistics.json`, TFDS metadata.

A split is a day ("20220425"), or a day's uniformly random exposures ("20220425_random").
"""

import hashlib
import os
import pathlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf

from dlen_cam2 import schema_pbtxt
from dlen_cam2.cli import UserError
from dlen_cam2.data import DTYPES, STATISTICS
from dlen_cam2.files import staged, write_json
from dlen_cam2.indexing import transform
from dlen_cam2.schema import Feature, Schema
from pipelines.encode import examples

ROWS_PER_SHARD = 16384
_ARROW = {"int": pa.int64(), "float": pa.float32(), "string": pa.string()}


def write_dataset(
    directory: str | os.PathLike, schema: Schema, splits: Iterable[tuple[str, pa.Table]],
    source: Mapping[str, Any], sides: Mapping[str, pa.Table] | None = None,
) -> dict[str, Any]:
    """Write `directory` as a whole, or not at all.

    Args:
        directory: where to write; replaced if it is a data set.
        schema: what the columns are; each table must have every column that it names.
        splits: (split name, rows) in time order.
        source: how the data came to be (parameters, rows read and dropped); kept in `statistics.json`.
        sides: further tables by file name, written as Parquet beside the shards; no reader of features opens them.

    Returns:
        The statistics, as in `statistics.json`.

    Raises:
        UserError: a column is missing or of the wrong type, holds nulls or NaN, a label is not 0 or 1, or
            there are no rows at all.
    """
    statistics: dict[str, Any] = {"source": dict(source), "days": {}, "shards": {}}
    infos = []
    with staged(directory, schema_pbtxt.FILE) as stage:
        for split, table in splits:
            if split in statistics["days"]:
                raise UserError(f"each split may be written once. Received twice: {split!r}.")
            start = time.monotonic()
            table = _checked(schema, split, table)
            statistics["days"][split] = _statistics(schema, table)
            lengths, sizes = [], []
            count = max(1, -(-table.num_rows // ROWS_PER_SHARD))
            bounds = np.linspace(0, table.num_rows, count + 1).astype(int)
            for index, (low, high) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
                name = f"{schema.name}-{split}.tfrecord-{index:05d}-of-{count:05d}"
                with tf.io.TFRecordWriter(str(stage / name)) as writer:
                    for record in examples(table.slice(low, high - low)):
                        writer.write(record)
                size = (stage / name).stat().st_size
                statistics["shards"][name] = {
                    "rows": int(high - low), "bytes": size, "sha256": checksum(stage / name)}
                lengths.append(int(high - low))
                sizes.append(size)
            infos.append((split, lengths, sum(sizes)))
            print(f"{split}: {table.num_rows:,} rows, {count} shards, {sum(sizes) / 1e6:.1f} MB, "
                  f"{table.num_rows / (time.monotonic() - start):,.0f} rows/s", flush=True)
        if not any(day["rows"] for day in statistics["days"].values()):
            raise UserError(f"no rows to write to {directory}: the source holds no exposures.")
        schema_pbtxt.save(schema, stage)
        write_json(stage / STATISTICS, statistics)
        _write_tfds(stage, schema, infos)
        for name, side in (sides or {}).items():
            pq.write_table(side, stage / name)
    return statistics


def checksum(path: pathlib.Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal, read a piece at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _statistics(schema: Schema, table: pa.Table) -> dict[str, Any]:
    tasks = {}
    for task in schema.tasks:
        label = table.column(task.label).to_numpy()
        mask = table.column(task.mask).to_numpy() if task.mask else np.ones_like(label)
        tasks[task.name] = {"rows": int(mask.sum()), "positives": int((label * mask).sum())}
    features = {f.name: _feature_statistics(f, table.column(f.name)) for f in schema.features}
    targets = {name: _moments(table.column(name).to_numpy()) for name in schema.targets}
    return {"rows": table.num_rows, "tasks": tasks, "features": features, "targets": targets}


def _feature_statistics(feature: Feature, column: pa.ChunkedArray) -> dict[str, Any]:
    if feature.is_numeric:
        values = column.to_numpy().astype(np.float64)
        low, high = feature.domain
        if values.size and not (low <= values.min() and values.max() <= high):
            raise UserError(
                f"feature {feature.name!r} has the transform {feature.transform!r} and must be in [{low}, {high}]. "
                f"Received: values from {values.min()} to {values.max()}."
            )
        used = transform(feature, tf.constant(values)).numpy()
        model = {"model_mean": float(used.mean()), "model_std": float(used.std())} if used.size else {}
        return _moments(values) | model
    flat = column.combine_chunks().flatten() if feature.is_list else column
    if feature.dtype == "int":
        values = flat.to_numpy()
        known = np.ones(len(values), bool) if feature.hashed else (values >= 0) & (values < feature.size)
        result = _moments(values)
    else:
        known = pc.invert(pc.equal(flat, "")) if feature.hashed else pc.is_in(flat, pa.array(feature.vocabulary))
        known = known.to_numpy(zero_copy_only=False) if isinstance(known, pa.Array) else known.to_numpy()
        result = {}
    result["coverage"] = float(np.mean(known)) if len(known) else None
    result["distinct"] = pc.count_distinct(flat).as_py()
    if feature.is_list:
        result["mean_length"] = len(flat) / len(column) if len(column) else None
    return result


def _moments(values: np.ndarray) -> dict[str, Any]:
    if not len(values):
        return {"min": None, "max": None, "mean": None}
    return {"min": values.min().item(), "max": values.max().item(), "mean": float(values.mean(dtype=np.float64))}


def _write_tfds(stage: pathlib.Path, schema: Schema, infos: list[tuple[str, list[int], int]]) -> None:
    """Metadata that lets `tfds.builder_from_directory(directory)` read the shards."""
    import tensorflow_datasets as tfds

    lists = {f.name for f in schema.features if f.is_list}
    features = {
        name: tfds.features.Sequence(DTYPES[dtype]) if name in lists else tfds.features.Scalar(DTYPES[dtype])
        for name, dtype in schema.columns.items()
    }
    template = tfds.core.ShardedFileTemplate(
        data_dir=stage, dataset_name=schema.name, template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        filetype_suffix="tfrecord",
    )
    tfds.folder_dataset.write_metadata(
        data_dir=stage,
        features=tfds.features.FeaturesDict(features),
        split_infos=[
            tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size,
                                filename_template=template.replace(split=split))
            for split, lengths, size in infos
        ],
        filename_template=template,
        check_data=False,
    )
