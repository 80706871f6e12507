"""Records that are damaged or break the schema: finding them, reporting them, and reading the rest."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError

from dlen_cam2.data.manifest import LENGTHS, NARROW, WIDE, Shards
from dlen_cam2.data.parsing import chunk, open_shard
from dlen_cam2.schema import Schema
from dlen_cam2.utils import console
from dlen_cam2.utils.errors import UserError

# What TensorFlow raises about damaged records; the last where its message would quote bytes that are no text.
ERRORS = (tf.errors.DataLossError, tf.errors.InvalidArgumentError, UnicodeDecodeError)


@dataclasses.dataclass
class Bad:
    """What is wrong with a shard.

    Attributes:
        records: positions of records that cannot be parsed or break the schema.
        readable: number of records before the damage in the file, beyond which no record can be found; None if the
            file is intact.
        rows: number of the shard's rows that are left out, according to its manifest.
        reason: what is wrong with the first bad record.
    """

    records: list[int] = dataclasses.field(default_factory=list)
    readable: int | None = None
    rows: int = 0
    reason: str = ""


def screen(
    shards: Shards, schema: Schema, parse: Callable[[tf.Tensor], Any], first: bool = False
) -> dict[str, Bad]:
    """Read everything once and return what is wrong, by path. With `first`, stop at the first faulty shard.

    Args:
        shards: what to read.
        schema: the columns that `parse` needs.
        parse: a function of (n,) records that raises one of `ERRORS` if a record is bad.
    """
    found: dict[str, Bad] = {}
    parse = tf.function(parse, autograph=False, reduce_retracing=True)
    for path, rows in zip(shards.paths, shards.rows, strict=True):
        try:
            check_columns(path, schema, shards.layout, shards.compression)
            batches = open_shard(path, shards.compression).batch(chunk(shards.layout))
            kept = sum(_rows(parse(batch)) for batch in batches)
            if kept != rows:
                found[path] = Bad(rows=rows - kept, reason=f"it holds {kept:,} rows, and its manifest says {rows:,}")
        except (*ERRORS, UserError):
            found[path] = _examine(path, rows, shards.compression, parse)
        if first and path in found:
            break
    return found


def _examine(path: str, rows: int, compression: str, parse: Callable[[tf.Tensor], Any]) -> Bad:
    """Examine a shard record by record, which is slow, and so only done for faulty shards."""
    bad = Bad(rows=rows)
    records = iter(open_shard(path, compression))
    position = 0
    while True:
        try:
            record = next(records, None)
        except ERRORS as error:
            bad.readable, bad.reason = position, bad.reason or brief(error)
            break
        if record is None:
            break
        try:
            bad.rows -= _rows(parse(record[None]))
        except ERRORS as error:
            bad.records.append(position)
            bad.reason = bad.reason or brief(error)
        position += 1
    return bad


def _rows(parsed: Any) -> int:
    return int(tf.nest.flatten(parsed)[0].shape[0])


def announce(bad: Mapping[str, Bad], shards: Shards) -> None:
    """Print to standard error what is left out."""
    for path, found in bad.items():
        of = shards.rows[shards.paths.index(path)]
        console.warn(f"skipped {found.rows:,} of {of:,} rows of {path}: {found.reason}")
    if bad:
        lost, of = sum(b.rows for b in bad.values()), sum(shards.rows)
        console.warn(f"skipped {lost:,} of {of:,} rows in all ({lost / max(of, 1):.2%})")


def elements(paths: Sequence[str], bad: Mapping[str, Bad]) -> dict[str, Any]:
    """The paths, and if a record is bad, what `without_bad` needs for each path."""
    if not bad:
        return {"path": list(paths)}
    faults = [bad.get(path, Bad()) for path in paths]
    width = max(len(f.records) for f in faults)
    records = [f.records + [-1] * (width - len(f.records)) for f in faults]
    return {
        "path": list(paths),
        "readable": tf.constant([-1 if f.readable is None else f.readable for f in faults], tf.int64),
        "bad": tf.constant(records, tf.int64, (len(faults), width)),
    }


def without_bad(records: tf.data.Dataset, shard: Mapping[str, tf.Tensor]) -> tf.data.Dataset:
    """The records of a shard without the bad ones."""
    if "bad" not in shard:
        return records
    kept = records.take(shard["readable"]).enumerate()
    kept = kept.filter(lambda position, _: tf.reduce_all(shard["bad"] != position))
    return kept.map(lambda _, record: record)


def check_columns(path: str, schema: Schema, layout: str, compression: str) -> None:
    """Compare the first record's columns with the schema: a misspelt optional column would silently be missing.

    Raises:
        UserError: the first record cannot be read, or lacks a column.
    """
    try:
        first = next(iter(open_shard(path, compression).take(1)), None)
        if first is None:
            return
        present = set(tf.train.Example.FromString(first.numpy()).features.feature)
        if layout == "block":
            present |= {name.removesuffix(NARROW).removesuffix(WIDE) for name in present}
    except tf.errors.OpError as error:
        raise UserError(f"shard {path} is damaged: {brief(error)}") from error
    except DecodeError as error:
        raise UserError(f"shard {path} must hold tf.train.Examples. Received: another record.") from error
    wanted = list(schema.columns)
    if layout == "block":
        wanted += [f.name + LENGTHS for f in schema.features if f.is_list]
    if missing := [name for name in wanted if name not in present]:
        raise UserError(f"shard {path} has no column {missing}, which the schema names. Received: {sorted(present)}.")


def brief(error: tf.errors.OpError | UnicodeDecodeError) -> str:
    """The message of a TensorFlow error, without the graph's node names and the pipeline's stages."""
    if isinstance(error, UnicodeDecodeError):
        return "a record cannot be parsed"
    # Of an error in a graph the last line says what; before it stand places in our code.
    text = re.sub(r"(?s)^Graph execution error:.*\n  File \"[^\n]*\n", "", error.message or str(error))
    text = " ".join(text.split())
    text = re.sub(r"\{\{[^}]*\}\}|\[\[.*?\]\]|\[Op:[^]]*\]( name:)?", "", text)
    text = re.sub(r"Error in user-defined function passed to .*? with iterator: \S+ |assertion failed: ", "", text)
    text = re.sub(r"\[(must be [^]]*Received:)\]", r"\1", text.replace("[column]", "column"))
    return text.strip().replace("\\'", "'")[:400]
