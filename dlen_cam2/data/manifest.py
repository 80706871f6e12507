"""A data set on disk: one directory for each split, and files that describe all of them.

    DIR/schema.pbtxt        what the columns are
    DIR/statistics.json     by split: rows, counts of labels, moments of features; where the data came from
    DIR/20220425/           a split: a day, or DAY_random for a day's uniformly random exposures
        kuairand.tfrecord-00000-of-00002 ...
        counts.parquet      how often each value of a learned vocabulary occurs
        _SUCCESS            layout, compression, and each shard's rows, bytes and SHA-256

A split exists for readers once statistics.json names it, which is written last.
"""

import dataclasses
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import join, read_bytes, read_json, size

STATISTICS = "statistics.json"
MANIFEST = "_SUCCESS"
COUNTS = "counts.parquet"
# A simulated data set's truth, by exposure.
TRUTH = "truth.parquet"
# How rows become records: each a `tf.train.Example`, or a few thousand rows a record, as columns.
LAYOUTS = ("example", "block")
# Suffixes of a block's columns: the lengths of a list column; integers as int32, or int64 where they need it.
LENGTHS = "/lengths"
NARROW, WIDE = "/int32", "/int64"
# How a shard's bytes are compressed, by the names that TensorFlow gives them.
COMPRESSIONS = ("", "GZIP", "ZLIB")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The content of a split's `_SUCCESS`.

    Attributes:
        rows: number of rows in all shards.
        layout: one of `LAYOUTS`.
        compression: one of `COMPRESSIONS`.
        shards: {"rows", "bytes", "sha256"} of each shard, by file name.
    """

    rows: int
    layout: str
    compression: str
    shards: dict[str, dict[str, Any]]


def statistics(directory: str | os.PathLike) -> dict[str, Any]:
    """The data set's `statistics.json`. Raises `UserError` if it is absent or names no splits."""
    path = join(directory, STATISTICS)
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("days"), dict):
        received = sorted(content)[:10] if isinstance(content, dict) else content
        raise UserError(f"{path} must have the section 'days'. Received: {received!r}.")
    return content


def read_manifest(directory: str | os.PathLike, split: str) -> Manifest:
    """The manifest of `split`. Raises `UserError` naming the file if it is absent or not one of ours."""
    path = join(directory, split, MANIFEST)
    content = read_json(path)
    try:
        found = Manifest(content["rows"], content["layout"], content["compression"], content["shards"])
        names = [n for n in found.shards if re.fullmatch(r"[^/\\]+\.tfrecord-\d+-of-\d+", n)]
        whole = type(found.rows) is int and found.layout in LAYOUTS and found.compression in COMPRESSIONS
        whole &= len(names) == len(found.shards)
        whole &= all(type(s["rows"]) is int and type(s["bytes"]) is int and type(s["sha256"]) is str
                     for s in found.shards.values())
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise UserError(
            f"{path} must hold rows, a layout of {LAYOUTS}, a compression of {COMPRESSIONS} and shards with rows, "
            f"bytes and sha256. Received: {str(content)[:200]}."
        )
    return found


def suffix(split: str) -> str:
    """"random" of "20240101_random", "" of a logged day: splits with the same suffix are comparable."""
    return split.partition("_")[2]


def measured_by_default(splits: Sequence[str]) -> str:
    """The split that is measured where none is named: "test", or the last logged day."""
    whole = [split for split in splits if not suffix(split)] or list(splits)
    return "test" if "test" in whole else whole[-1]


def parse_days(text: str, known: Sequence[str]) -> list[str]:
    """Parse the names of splits from "20220425..20220504", "20220425,20220427" or a mix; a range takes only days.

    Raises:
        UserError: a day, or an end of a range, is not among `known`, or a range runs backwards.
    """
    days: list[str] = []
    whole = {day for day in known if day.isdigit()}
    for part in filter(None, (p.strip() for p in text.split(","))):
        first, dots, last = part.partition("..")
        found = [d for d in known if d in whole and first <= d <= last] if dots else [d for d in known if d == part]
        if not found or dots and not {first, last} <= whole:
            raise UserError(f"days must name days of the data set, and a range two of them in order. "
                            f"Received: {part!r}. Known: {list(known)}.")
        days += [d for d in found if d not in days]
    if not days:
        raise UserError(f"days must name at least one day. Received: {text!r}. Known: {list(known)}.")
    return days


@dataclasses.dataclass(frozen=True)
class Shards:
    """The shards of some splits: their paths in order, the number of rows of each, and how to read them."""

    paths: tuple[str, ...]
    rows: tuple[int, ...]
    layout: str
    compression: str


def shards(directory: str | os.PathLike, days: Sequence[str], whole: bool = True) -> Shards:
    """The shards of `days`, in order.

    Args:
        directory: a data set.
        days: its splits.
        whole: refuse shards whose length differs from their manifest.

    Raises:
        UserError: a day is not in the data set, a shard is missing or has the wrong length, or the days have
            different layouts or compressions.
    """
    known = statistics(directory)["days"]
    for day in days:
        if day not in known:
            raise UserError(f"{directory} has no day {day!r}. Known: {list(known)}.")
    manifests = {day: read_manifest(directory, day) for day in days}
    paths, rows = [], []
    for day, found in manifests.items():
        for name, entry in sorted(found.shards.items()):
            path = join(directory, day, name)
            received = size(path)
            if received < 0 or whole and received != entry["bytes"]:
                raise UserError(
                    f"shard {path} must be {entry['bytes']} bytes long, as {MANIFEST} says. Received: "
                    + ("no such file." if received < 0 else f"{received} bytes (truncated, or overwritten).")
                )
            paths.append(path)
            rows.append(entry["rows"])
    forms = {(found.layout, found.compression): day for day, found in manifests.items()}
    if len(forms) > 1:
        raise UserError(f"days that are read together must have the same layout and compression. Received: {forms}.")
    layout, compression = next(iter(forms), ("example", ""))
    return Shards(tuple(paths), tuple(rows), layout, compression)


def counts(directory: str | os.PathLike, days: Iterable[str], features: Iterable[str]) -> dict[str, dict[Any, int]]:
    """The counts of each value of `features`, which have learned vocabularies, on `days`: {feature: {value: count}}.

    Raises:
        UserError: a day's counts are missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    total: dict[str, dict[Any, int]] = {name: {} for name in features}
    for day in days:
        path = join(directory, day, COUNTS)
        try:
            table = pq.read_table(pa.BufferReader(read_bytes(path)))
            columns = [table.column(name).to_pylist() for name in ("feature", "id", "text", "count")]
        except (pa.ArrowInvalid, KeyError, OSError) as error:
            raise UserError(f"{path} must be a Parquet file of counts. Received: {error}.") from error
        for feature, number, text, count in zip(*columns, strict=True):
            if feature in total:
                value = text if number is None else number
                total[feature][value] = total[feature].get(value, 0) + count
    return total


