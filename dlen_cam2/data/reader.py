"""Read TFRecord shards as batches of feature groups and labels."""

import collections
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from dlen_cam2.data import corrupt_records
from dlen_cam2.data.manifest import (
    counts,
    shards,
    statistics,
)
from dlen_cam2.data.parsing import (
    PARALLEL,
    chunk,
    open_shard,
    padded,
    parser,
    steady,
)
from dlen_cam2.data.preprocessing import Indexer
from dlen_cam2.schema import Schema
from dlen_cam2.utils.errors import UserError

# What to do about a record that is damaged or breaks the schema.
POLICIES = ("fail", "skip")

Groups = dict[str, dict[str, tf.Tensor]]

# (schema, layout, graph) of parsers that were used last.
_TRACED: collections.deque[tuple[Schema, str, Any]] = collections.deque(maxlen=4)


def fit(directory: str | os.PathLike, schema: Schema, days: Sequence[str]) -> Schema:
    """Fit the vocabularies, moments and positive rates of a schema on `days` (the training days only).

    Raises:
        UserError: a day is not in the data set, or its statistics lack a column.
    """
    learned = [f.name for f in schema.features if f.min_count]
    schema = schema.fit(statistics(directory), days)  # refuses days that are not there
    return schema.learn(counts(directory, days, learned)) if learned else schema


@tf.autograph.experimental.do_not_convert  # nothing of it needs conversion, which takes longer than tracing
def read(
    directory: str | os.PathLike,
    schema: Schema,
    days: Sequence[str],
    batch_size: int,
    *,
    shuffle: int = 0,
    seed: int | None = 0,
    context: tf.distribute.InputContext | None = None,
    sharding: str = "shards",
    skip: int = 0,
    on_bad_record: str = "fail",
) -> tf.data.Dataset:
    """Read the rows of `days` as batches `(features, labels)`.

    Whatever the batch size, some thousand rows are parsed at a time: `tf.io.parse_example` over many rows is about ten
    times as fast as row by row. Without `shuffle`, rows come in stored order. With it, the shards come in random order,
    interleaved 16 at a time, and the parsed rows are permuted within each window: permuting columns costs less than
    passing serialised rows through a shuffle buffer one by one.

    Args:
        directory: a data set of the pipelines, in either layout; a local path, or any path that `tf.io.gfile` can read.
        schema: columns to parse, usually the data set's own schema after `select` and `fit`. Others are skipped.
        days: splits to read.
        batch_size: rows in a batch, over all input pipelines; the last batch may be smaller.
        shuffle: rows in a shuffled window; 0: no shuffling. Each pass has a different order. A window should hold a
            large part of the data: shards are in time order, so the rows of a small window are of one time of day.
        seed: seed of the shuffling; the same seed gives the same batches. None: a different order every time.
        context: the input pipeline's place under `tf.distribute`; the pipeline then gives batches for single replicas.
        sharding: with several pipelines, "shards": each reads its own share of the shards (of the records, when there
            are fewer shards than pipelines). "rows": each reads everything and keeps its slice of every batch, so that
            the batches are, together, those of a single pipeline.
        skip: batches to leave out at the start, to resume an interrupted pass. They are still read and parsed.
        on_bad_record: "fail", or "skip": find the bad records in a separate pass, report on standard error how many
            rows of which shard are left out and why, and read the others.

    Returns:
        A dataset of `features`, `{group: {feature: tensor}}` as `Indexer` makes them, and `labels`,
        `{column: tensor}` with float32 labels, masks and targets, and the raw key columns.

    Raises:
        UserError: immediately, if a shard is missing, truncated or lacks a column. While iterating, TensorFlow
            raises its own errors, so wrap the loop in `explained`.
    """
    if on_bad_record not in POLICIES:
        raise UserError(f"on_bad_record must be one of {POLICIES}. Received: {on_bad_record!r}.")
    found = shards(directory, days, whole=on_bad_record == "fail")
    bad: dict[str, corrupt_records.Bad] = {}
    with tf.init_scope():  # what looks at records runs at once, also while parameter servers' workers trace this
        if on_bad_record == "skip":
            bad = corrupt_records.screen(found, schema, _traced_parser(schema, found.layout))
            corrupt_records.announce(bad, found)
        else:
            for path in found.paths:
                corrupt_records.check_columns(path, schema, found.layout, found.compression)
    elements = tf.data.Dataset.from_tensor_slices(corrupt_records.elements(found.paths, bad))
    share = None
    part = batch_size
    if context is not None:
        part = _part(batch_size, context.num_input_pipelines, "input pipelines")
        if sharding == "shards":
            if len(found.paths) < context.num_input_pipelines:
                share = context
            else:
                elements = elements.shard(context.num_input_pipelines, context.input_pipeline_id)

    def records(shard: Any) -> tf.data.Dataset:
        return corrupt_records.without_bad(open_shard(shard["path"], found.compression), shard)

    if shuffle:
        elements = elements.shuffle(len(found.paths), seed=seed, reshuffle_each_iteration=True)
        chunks = elements.interleave(
            lambda shard: _share(records(shard), share).batch(chunk(found.layout)),
            cycle_length=min(16, len(found.paths)), block_length=1, num_parallel_calls=min(2, len(found.paths)),
            deterministic=True,
        )
    else:
        serialized = elements.flat_map(records) if bad or context else open_shard(list(found.paths), found.compression)
        chunks = _share(serialized, share).batch(chunk(found.layout))
    batches = chunks.map(_traced_parser(schema, found.layout), PARALLEL, deterministic=True)
    if shuffle:
        seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)
        # The next window is made while this one is trained on, or training would wait for it.
        batches = tf.data.Dataset.zip(batches.rebatch(shuffle), seeds).map(_permuted).prefetch(1)
    batches = batches.rebatch(part)
    if context is not None and sharding == "rows" and context.num_input_pipelines > 1:
        batches = batches.shard(context.num_input_pipelines, context.input_pipeline_id)
    if skip:
        batches = batches.skip(skip)
    if context is not None:
        of_replica = _part(batch_size, context.num_replicas_in_sync, "replicas")
        batches = batches.rebatch(of_replica) if of_replica < part else batches
    return steady(batches)


def _part(batch_size: int, parts: int, what: str) -> int:
    if batch_size % parts:
        raise UserError(f"the batch size must be a multiple of the {parts} {what}. Received: {batch_size}.")
    return batch_size // parts


def _share(records: tf.data.Dataset, context: tf.distribute.InputContext | None) -> tf.data.Dataset:
    return records if context is None else records.shard(context.num_input_pipelines, context.input_pipeline_id)


def _permuted(window: Any, seed: tf.Tensor) -> Any:
    """Put the rows of all tensors of a window in one random order."""
    rows = tf.shape(tf.nest.flatten(window)[0])[0]
    order = tf.random.experimental.stateless_shuffle(tf.range(rows), seed)
    return tf.nest.map_structure(lambda column: tf.gather(column, order), window)


@contextlib.contextmanager
def explained(directory: str | os.PathLike, schema: Schema, days: Sequence[str]) -> Iterator[None]:
    """Context manager that turns TensorFlow's errors about damaged records into a `UserError` naming the shard."""
    try:
        yield
    except corrupt_records.ERRORS as error:
        found = shards(directory, days)
        parse = _traced_parser(schema, found.layout)
        for path, bad in corrupt_records.screen(found, schema, parse, first=True).items():
            raise UserError(f"shard {path} is damaged or breaks the schema: {bad.reason}") from error
        raise


def _traced_parser(schema: Schema, layout: str) -> Callable[[tf.Tensor], tuple[Groups, dict[str, tf.Tensor]]]:
    """`_parser` as a graph that later passes over data of this schema reuse, because tracing it takes long."""
    if not tf.executing_eagerly():  # a separate graph, as for parameter servers' workers, has separate tables
        return _parser(schema, layout)
    for known, of_layout, traced in _TRACED:
        if of_layout == layout and known == schema:
            return traced
    records = tf.TensorSpec([None], tf.string)
    _TRACED.append((schema, layout, tf.function(_parser(schema, layout), [records], autograph=False)))
    return _TRACED[-1][-1]


def _parser(schema: Schema, layout: str) -> Callable[[tf.Tensor], tuple[Groups, dict[str, tf.Tensor]]]:
    indexer = Indexer(schema)
    raw_of = parser(schema, layout)
    binary = schema.binary_columns
    # Finite numbers only; no comparison holds for NaN.
    least, greatest = tf.float32.min, tf.float32.max
    domains = {name: (least, greatest) for name in schema.targets}
    domains |= {f.name: (max(f.domain[0], least), min(f.domain[1], greatest)) for f in schema.features if f.is_numeric}

    def parse(serialized: tf.Tensor) -> tuple[Groups, dict[str, tf.Tensor]]:
        raw = padded(raw_of(serialized), schema)
        checks = []
        if layout == "block":
            rows = tf.stack([tf.shape(column)[0] for column in raw.values()])
            checks.append(_require("as long as the others", list(raw), rows[:, None], (rows == rows[0])[:, None]))
        labels: dict[str, tf.Tensor] = {}
        if binary:
            values = tf.stack([raw[name] for name in binary])
            checks.append(_require("0 or 1", binary, values, (values == 0) | (values == 1)))
            labels |= zip(binary, tf.unstack(tf.cast(values, tf.float32)), strict=True)
        if domains:
            values = tf.stack([raw[name] for name in domains])
            low, high = (tf.constant(ends)[:, None] for ends in zip(*domains.values(), strict=True))
            rule = "finite, and in the domain of the column's transform (log1p: 0 and above, logit: 0 to 1)"
            allowed = (values >= low) & (values <= high)
            checks.append(_require(rule, list(domains), values, allowed))
        labels |= {name: raw[name] for name in (*schema.targets, *schema.keys.values())}
        features = indexer(raw)
        with tf.control_dependencies(checks):
            return features, {name: tf.identity(column) for name, column in labels.items()}

    return parse


def _require(rule: str, names: Sequence[str], values: tf.Tensor, allowed: tf.Tensor) -> tf.Operation:
    """Assert that all `values` (columns, B) are allowed; the message names the columns and the values that are not."""
    whole = tf.reduce_all(allowed)

    def explain() -> tf.Tensor:
        # Only then: to find the columns and values costs as much as a third of reading a block.
        columns = tf.boolean_mask(tf.constant(names), ~tf.reduce_all(allowed, axis=1))
        message = ["column", columns, f"must be {rule}. Received:", tf.boolean_mask(values, ~allowed)]
        with tf.control_dependencies([tf.debugging.Assert(False, message)]):
            return tf.constant(False)

    return tf.cond(whole, lambda: tf.constant(True), explain).op
