"""A file of records that only grows: each is framed by its length and checksums, so that a torn end is told."""

import json
import os
import pathlib
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from dlen_cam2.utils import console
from dlen_cam2.utils.errors import UserError

_LENGTHS = struct.Struct("<II")  # of the record's JSON: its bytes and their CRC32
_CHECK = struct.Struct("<I")  # the CRC32 of these two
_HEAD = _LENGTHS.size + _CHECK.size


class UpdateLog:
    """The records of a file, to read and then to append to.

    A record is written by one call before `append` returns, so it outlives the process. To outlive the machine, too,
    it must be flushed to the disk, which happens in the first `append` after `fsync_s` seconds, and at the end.

    Args:
        path: the file; it is created if it does not exist.
        fsync_s: seconds between two flushes; 0: flush each record; infinity: leave it to the system.
    """

    def __init__(self, path: pathlib.Path, fsync_s: float):
        self.path, self._fsync_s = path, fsync_s
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        directory = os.open(path.parent, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        self._end = 0
        self._flushed = time.monotonic()

    def read(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The records from the beginning, with their places; a last one that is torn is cut off, with a warning.

        Raises:
            UserError: a record that is not the last is damaged.
        """
        size = os.fstat(self._file).st_size
        with open(self.path, "rb") as file:
            while self._end < size:
                payload = self._next(file, size)
                if payload is None:
                    console.warn(f"{self.path}: the last record is torn, as after a crash: its {size - self._end} "
                                 "bytes are dropped")
                    os.ftruncate(self._file, self._end)
                    return
                place = self._end
                self._end += _HEAD + len(payload)
                yield place, json.loads(payload)

    def _next(self, file: BinaryIO, size: int) -> bytes | None:
        """The bytes of the next record; None if it is the last and torn."""
        head = file.read(_HEAD)
        if len(head) < _HEAD:
            return None
        length, checksum = _LENGTHS.unpack_from(head)
        right = _CHECK.unpack_from(head, _LENGTHS.size)[0] == zlib.crc32(head[:_LENGTHS.size])
        if right and self._end + _HEAD + length > size:
            return None
        payload = file.read(length) if right else b""
        if right and zlib.crc32(payload) == checksum:
            return payload
        if right and self._end + _HEAD + length == size or not any(head) and not any(file.read()):
            return None  # the file had its length before its bytes
        raise UserError(f"{self.path}: the record at byte {self._end} of {size} must have the checksum that was "
                        "written with it: restore the file, or cut it off there and lose the rest. Received: another.")

    def append(self, record: Mapping[str, Any]) -> int:
        """Write a record, and return its place. Raises `UserError` if the disk is full."""
        payload = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
        lengths = _LENGTHS.pack(len(payload), zlib.crc32(payload))
        frame = lengths + _CHECK.pack(zlib.crc32(lengths)) + payload
        try:
            written = os.write(self._file, frame)
            if written < len(frame):
                raise OSError(f"{written} of {len(frame)} bytes were written")
            if time.monotonic() - self._flushed >= self._fsync_s:
                self.flush()
        except OSError as error:
            os.ftruncate(self._file, self._end)  # so that the next record does not follow half of this one
            raise UserError(f"{self.path} cannot be written. Received: {error}.") from error
        place = self._end
        self._end += len(frame)
        return place

    def flush(self) -> None:
        """Wait until all records are on the disk."""
        os.fsync(self._file)
        self._flushed = time.monotonic()

    def close(self) -> None:
        self.flush()
        os.close(self._file)
