"""TFRecord shards -> batches of feature groups and labels."""

import contextlib
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError

from dlen_cam2.cli import UserError
from dlen_cam2.files import read_json
from dlen_cam2.indexing import Indexer
from dlen_cam2.schema import Schema

# Files of a data set beside its shards and schema.pbtxt; a simulated one has its truth.
STATISTICS = "statistics.json"
TRUTH = "truth.parquet"
# Rows that are parsed together on the way into a shuffled window.
_CHUNK = 4096
# Types of raw columns.
DTYPES = {"int": tf.int64, "float": tf.float32, "string": tf.string}
# What TensorFlow raises about damaged records; the last where its message would quote bytes that are no text.
_DAMAGE = (tf.errors.DataLossError, tf.errors.InvalidArgumentError, UnicodeDecodeError)


def statistics(directory: str | os.PathLike) -> dict[str, Any]:
    """The data set's `statistics.json`. Raises `UserError` if it is absent or lacks a section."""
    path = pathlib.Path(directory) / STATISTICS
    content = read_json(path)
    for section in ("days", "shards"):
        if not isinstance(content, dict) or not isinstance(content.get(section), dict):
            received = sorted(content)[:10] if isinstance(content, dict) else content
            raise UserError(f"{path} must have the section {section!r}. Received: {received!r}.")
    return content


def parse_days(text: str, known: Sequence[str]) -> list[str]:
    """Names of splits from "20220425..20220504", "20220425,20220427" or a mix; a range takes days only.

    Raises:
        UserError: a day is not among `known`, a range is empty or runs backwards.
    """
    days: list[str] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        first, dots, last = part.partition("..")
        found = [d for d in known if d.isdigit() and first <= d <= last] if dots else [d for d in known if d == part]
        if not found:
            raise UserError(f"days {part!r} must name days of the data set. Known: {list(known)}.")
        days += [d for d in found if d not in days]
    if not days:
        raise UserError(f"at least one day is needed. Received: {text!r}. Known: {list(known)}.")
    return days


def shards(directory: str | os.PathLike, days: Sequence[str]) -> list[str]:
    """Paths of the shards of `days`, in order.

    Raises:
        UserError: a day has no shards, or a shard is absent or not as long as `statistics.json` says.
    """
    listed = statistics(directory)["shards"]
    paths = []
    for day in days:
        names = sorted(n for n in listed if re.fullmatch(rf".+-{re.escape(day)}\.tfrecord-\d+-of-\d+", n))
        if not names or any(os.sep in n for n in names):
            raise UserError(f"{directory} has no shards of day {day!r}.")
        for name in names:
            path = pathlib.Path(directory) / name
            size = path.stat().st_size if path.is_file() else -1
            if size != listed[name]["bytes"]:
                raise UserError(
                    f"shard {path} must be {listed[name]['bytes']} bytes long, as {STATISTICS} says. Received: "
                    + ("no such file." if size < 0 else f"{size} bytes (truncated, or overwritten).")
                )
            paths.append(str(path))
    return paths


def read(
    directory: str | os.PathLike,
    schema: Schema,
    days: Sequence[str],
    batch_size: int,
    *,
    shuffle: int = 0,
    seed: int = 0,
    context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Batches `(features, labels)` of the rows of `days`.

    Rows are batched first and parsed together: `tf.io.parse_example` over a batch is about ten times as
    fast as row by row. Without `shuffle` rows come in the order in which they were written. With it, shards
    come in random order, 16 at a time by turns, and the parsed rows are permuted window by window: permuting
    columns costs less than passing serialised rows through a buffer one by one.

    Args:
        directory: a data set, as the pipelines write it.
        schema: columns to parse, usually the data set's own after `select` and `fit`. Others are not parsed.
        days: splits to read.
        batch_size: rows of a batch, over all input pipelines; the last batch may be smaller.
        shuffle: rows of a shuffled window; 0 for none. Every pass has an order of its own. A window should hold a
            good part of the data: shards are in time order, so a small one holds one time of day.
        seed: of the shuffling; the same seed gives the same batches.
        context: the input pipeline's place under `tf.distribute`; each pipeline reads its own share of the
            shards (of the rows, when there are fewer shards than pipelines) in batches for its replicas.

    Returns:
        A dataset of `features`, `{group: {feature: tensor}}` as `Indexer` makes them, and `labels`,
        `{column: tensor}` with float32 labels, masks and targets, and the raw key columns.

    Raises:
        UserError: at once if a shard is absent, truncated or lacks a column. While iterating, TensorFlow
            raises its own errors: wrap the loop in `explained`.
    """
    paths = shards(directory, days)
    for path in paths:
        _check_columns(path, schema)
    files = tf.data.Dataset.from_tensor_slices(paths)
    split_rows = False
    if context is not None:
        batch_size = context.get_per_replica_batch_size(batch_size)
        split_rows = len(paths) < context.num_input_pipelines
        if not split_rows:
            files = files.shard(context.num_input_pipelines, context.input_pipeline_id)
    if shuffle:
        files = files.shuffle(len(paths), seed=seed, reshuffle_each_iteration=True)
        rows = files.interleave(
            lambda path: tf.data.TFRecordDataset(path, buffer_size=1 << 20),
            cycle_length=min(16, len(paths)), block_length=64, num_parallel_calls=min(2, len(paths)),
            deterministic=True,
        )
    else:
        rows = tf.data.TFRecordDataset(files, buffer_size=1 << 20)
    if split_rows and context is not None:
        rows = rows.shard(context.num_input_pipelines, context.input_pipeline_id)
    chunk = _CHUNK if shuffle else batch_size
    batches = rows.batch(chunk).map(_parser(schema), tf.data.AUTOTUNE, deterministic=True)
    if shuffle:
        seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)
        batches = tf.data.Dataset.zip(batches.rebatch(shuffle), seeds).map(_permuted).rebatch(batch_size)
    return batches.prefetch(tf.data.AUTOTUNE)


def _permuted(window: Any, seed: tf.Tensor) -> Any:
    """The rows of all tensors of a window in one random order."""
    rows = tf.shape(tf.nest.flatten(window)[0])[0]
    order = tf.random.experimental.stateless_shuffle(tf.range(rows), seed)
    return tf.nest.map_structure(lambda column: tf.gather(column, order), window)


def example_spec(schema: Schema, labels: bool) -> dict[str, Any]:
    """The `tf.io.parse_example` specification of the schema's columns.

    A missing categorical value becomes -1 or "" (index 0); numbers, labels and keys must be there.
    """
    lists = {f.name: f for f in schema.features if f.is_list}
    optional = {f.name: {"int": -1, "string": ""}[f.dtype] for f in schema.features if not f.is_numeric}
    names = schema.columns if labels else {f.name: f.dtype for f in schema.features}
    return {
        name: tf.io.RaggedFeature(DTYPES[dtype], row_splits_dtype=tf.int64)
        if name in lists
        else tf.io.FixedLenFeature([], DTYPES[dtype], optional.get(name))
        for name, dtype in names.items()
    }


def parse_examples(serialized: tf.Tensor, schema: Schema, labels: bool) -> dict[str, tf.Tensor]:
    """(B,) serialised `tf.train.Example`s -> raw columns, (B,) or (B, max_length) padded with -1 or ""."""
    raw = tf.io.parse_example(serialized, example_spec(schema, labels))
    for feature in schema.features:
        if feature.is_list:
            padding = -1 if feature.dtype == "int" else ""
            raw[feature.name] = raw[feature.name].to_tensor(padding, shape=(None, feature.max_length))
    return raw


@contextlib.contextmanager
def explained(directory: str | os.PathLike, schema: Schema, days: Sequence[str]) -> Iterator[None]:
    """Turn TensorFlow's errors about damaged records in the block into one `UserError` that names the shard."""
    try:
        yield
    except _DAMAGE as error:
        parse = _parser(schema)
        for path in shards(directory, days):
            try:
                for _ in tf.data.TFRecordDataset(path).batch(1024).map(parse):
                    pass
            except _DAMAGE as found:
                raise UserError(f"shard {path} is damaged or breaks the schema: {_brief(found)}") from error
        raise


def _parser(schema: Schema) -> Callable[[tf.Tensor], tuple[dict[str, dict[str, tf.Tensor]], dict[str, tf.Tensor]]]:
    indexer = Indexer(schema)
    binary = schema.binary_columns
    domains = {name: (-math.inf, math.inf) for name in schema.targets}
    domains |= {f.name: f.domain for f in schema.features if f.is_numeric}

    def parse(serialized: tf.Tensor) -> tuple[dict[str, dict[str, tf.Tensor]], dict[str, tf.Tensor]]:
        raw = parse_examples(serialized, schema, labels=True)
        checks = []
        if binary:
            values = tf.stack([raw[name] for name in binary])
            checks.append(_require("0 or 1", binary, values, (values == 0) | (values == 1)))
        if domains:
            values = tf.stack([raw[name] for name in domains])
            low, high = (tf.constant(ends)[:, None] for ends in zip(*domains.values(), strict=True))
            rule = "finite, and in the domain of the column's transform (log1p: 0 and above, logit: 0 to 1)"
            allowed = tf.math.is_finite(values) & (values >= low) & (values <= high)
            checks.append(_require(rule, list(domains), values, allowed))
        with tf.control_dependencies(checks):
            labels = {n: tf.cast(raw[n], tf.float32) for n in [*binary, *schema.targets]}
            labels |= {column: tf.identity(raw[column]) for column in schema.keys.values()}
        return indexer(raw), labels

    return parse


def _require(rule: str, names: Sequence[str], values: tf.Tensor, allowed: tf.Tensor) -> tf.Operation:
    """Assert that all of `values` (columns, B) are allowed; the message has the columns and values that are not."""
    columns = tf.boolean_mask(tf.constant(names), ~tf.reduce_all(allowed, axis=1))
    message = ["column", columns, f"must be {rule}. Received:", tf.boolean_mask(values, ~allowed)]
    return tf.debugging.Assert(tf.reduce_all(allowed), message)


def _check_columns(path: str, schema: Schema) -> None:
    """Compare the first record's columns with the schema: a misspelt optional column would be silently missing."""
    try:
        first = next(iter(tf.data.TFRecordDataset(path).take(1)), None)
        if first is None:
            return
        present = tf.train.Example.FromString(first.numpy()).features.feature
    except tf.errors.DataLossError as error:
        raise UserError(f"shard {path} is damaged: {_brief(error)}") from error
    except DecodeError as error:
        raise UserError(f"shard {path} must hold tf.train.Examples. Received: a first record that is none.") from error
    missing = [name for name in schema.columns if name not in present]
    if missing:
        raise UserError(f"shard {path} has no column {missing}, which the schema names. Known: {sorted(present)}.")


def _brief(error: tf.errors.OpError | UnicodeDecodeError) -> str:
    """What a TensorFlow error says, without the graph's node names and the pipeline's stages."""
    if isinstance(error, UnicodeDecodeError):
        return "a record cannot be parsed"
    text = " ".join((error.message or str(error)).split())
    text = re.sub(r"\{\{[^}]*\}\}|\[\[.*?\]\]|\[Op:[^]]*\]( name:)?", "", text)
    text = re.sub(r"Error in user-defined function passed to .*? with iterator: \S+ |assertion failed: ", "", text)
    text = re.sub(r"\[(must be [^]]*Received:)\]", r"\1", text.replace("[column]", "column"))
    return text.strip().replace("\\'", "'")[:400]
