"""Writes a table to one TFRecord file, in this process or in one beside it.

The module does not import TensorFlow, so that a worker process starts in a fraction of a second.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import multiprocessing
import os
import pathlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import google_crc32c
import pyarrow as pa

from dlen_cam2.data.manifest import COMPRESSIONS, LAYOUTS
from dlen_cam2.utils.errors import UserError
from pipelines.writer.encode import block, examples

ROWS_PER_SHARD = 16384
ROWS_PER_BLOCK = 8192
_WBITS = {"GZIP": 31, "ZLIB": 15}


@dataclasses.dataclass(frozen=True)
class Form:
    """How rows are written.

    Attributes:
        layout: "example": a record is a row; "block": a record is some thousand rows as columns.
        compression: "", "GZIP" or "ZLIB".
        workers: the number of processes that encode shards; 1: this process only.

    Raises:
        UserError: a value is not one of these.
    """

    layout: str = "example"
    compression: str = ""
    workers: int = 1

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise UserError(f"layout must be one of {LAYOUTS}. Received: {self.layout!r}.")
        if self.compression not in COMPRESSIONS:
            raise UserError(f"compression must be one of {COMPRESSIONS}. Received: {self.compression!r}.")
        if self.workers < 1:
            raise UserError(f"workers must be at least 1. Received: {self.workers}.")


@contextlib.contextmanager
def processes(form: Form) -> Iterator[concurrent.futures.Executor | None]:
    """The pool of the form's workers; None if this process does the work."""
    if form.workers == 1:
        yield None
        return
    # Not forked: the engines and TensorFlow run threads, which a forked process would miss.
    with concurrent.futures.ProcessPoolExecutor(form.workers, multiprocessing.get_context("spawn")) as pool:
        # They are there before the first rows, whose rate would otherwise be that of their start.
        concurrent.futures.wait([pool.submit(os.getpid) for _ in range(form.workers)])
        yield pool


def write_shards(
    tables: Iterable[pa.Table], directory: pathlib.Path, name: str, form: Form, binary: Iterable[str],
    pool: concurrent.futures.Executor | None = None,
) -> dict[str, dict[str, Any]]:
    """Write each table as a shard `NAME.tfrecord-00000-of-00002`; returns the manifest's entries for them.

    Memory holds the tables of `workers` + 1 shards, and their encoded form.

    Raises:
        UserError: a file cannot be written, for example because the disk is full.
    """
    binary = tuple(binary)
    written: list[dict[str, Any]] = []
    jobs: list[concurrent.futures.Future] = []
    for index, table in enumerate(tables):
        path = str(directory / f"{index:05d}")
        if pool is None:
            written.append(_write(path, table, form, binary))
            continue
        if len(jobs) > form.workers:
            written.append(jobs.pop(0).result())
        jobs.append(pool.submit(_write_serialised, path, _to_ipc(table), form, binary))
    written += [job.result() for job in jobs]
    shards = {}
    for index, entry in enumerate(written):
        final = f"{name}.tfrecord-{index:05d}-of-{len(written):05d}"
        (directory / f"{index:05d}").rename(directory / final)
        shards[final] = entry
    return shards


def _to_ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _write_serialised(path: str, ipc: bytes, form: Form, binary: tuple[str, ...]) -> dict[str, Any]:
    return _write(path, pa.ipc.open_stream(ipc).read_all(), form, binary)


def _write(path: str, table: pa.Table, form: Form, binary: tuple[str, ...]) -> dict[str, Any]:
    content = b"".join(_framed(_records(table, form.layout, binary)))
    if form.compression:
        compressor = zlib.compressobj(wbits=_WBITS[form.compression])
        content = compressor.compress(content) + compressor.flush()
    try:
        pathlib.Path(path).write_bytes(content)
    except OSError as error:
        raise UserError(f"a shard of {os.path.dirname(path)} cannot be written. Received: {error}.") from error
    return {"rows": table.num_rows, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _records(table: pa.Table, layout: str, binary: tuple[str, ...]) -> Iterator[bytes]:
    if layout == "example":
        yield from examples(table)
        return
    for start in range(0, table.num_rows, ROWS_PER_BLOCK):
        yield block(table.slice(start, ROWS_PER_BLOCK), binary)


def _framed(records: Iterable[bytes]) -> Iterator[bytes]:
    """Frame records as TFRecord does: length, its CRC, the record, its CRC (tensorflow/core/lib/io/record_writer.h)."""
    for record in records:
        yield _head(len(record))
        yield record
        yield _masked_crc(record)


@functools.lru_cache(maxsize=65536)
def _head(length: int) -> bytes:
    head = struct.pack("<Q", length)
    return head + _masked_crc(head)


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
