"""The log of updates: what was appended is read again, and damage is told."""

import errno
import os

import pytest

from dlen_cam2.utils.errors import UserError
from pipelines.features.online.update_log import UpdateLog

RECORDS = [{"exposure": {"user": "ü\n", "x": 0.1}}, {"feedback": 2**60, "known": None}, {}, {"long": "a" * 5000}]


def written(path, records=RECORDS):
    log = UpdateLog(path, 1.0)
    assert list(log.read()) == []
    places = [log.append(record) for record in records]
    log.close()
    return places


def read(path):
    log = UpdateLog(path, 1.0)
    found = list(log.read())
    log.close()
    return found


def test_records_are_read_as_they_were_written(tmp_path):
    """Numbers and texts come back exactly, with the places that append returned."""
    places = written(tmp_path / "log")
    assert read(tmp_path / "log") == list(zip(places, RECORDS, strict=True))


def test_a_torn_end_is_dropped_at_every_byte(tmp_path, capsys):
    """A crash may leave any part of the last record; the others stay, and the log goes on after them."""
    *_, last = written(tmp_path / "log", RECORDS[:3])
    whole = (tmp_path / "log").read_bytes()
    for size in range(last + 1, len(whole)):
        (tmp_path / "log").write_bytes(whole[:size])
        log = UpdateLog(tmp_path / "log", 1.0)
        assert [record for _, record in log.read()] == RECORDS[:2]
        assert f"its {size - last} bytes are dropped" in capsys.readouterr().err
        log.append({"next": size})
        log.close()
        assert [record for _, record in read(tmp_path / "log")] == [*RECORDS[:2], {"next": size}]
    for tail in (b"\0" * 4096, whole[last:-1] + b"?"):  # the file had its length before its bytes
        (tmp_path / "log").write_bytes(whole[:last] + tail)
        assert [record for _, record in read(tmp_path / "log")] == RECORDS[:2]


def test_damage_in_the_middle_is_an_error_at_every_byte(tmp_path):
    """A damaged record must not hide those after it, nor be read as another."""
    _, second, third, _ = written(tmp_path / "log")
    whole = (tmp_path / "log").read_bytes()
    for place in range(second, third):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        (tmp_path / "log").write_bytes(damaged)
        with pytest.raises(UserError, match=rf"the record at byte {second} of {len(whole)} must have the checksum"):
            read(tmp_path / "log")


def test_a_record_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    """A full disk may take a part of a record; what comes later must not follow it."""
    log = UpdateLog(tmp_path / "log", 1.0)
    log.append({"first": 1})
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:5]))
    with pytest.raises(UserError, match="log cannot be written. Received: 5 of"):
        log.append({"second": 2})
    monkeypatch.setattr(os, "write", lambda file, data: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(UserError, match="log cannot be written. Received: .*full"):
        log.append({"second": 2})
    monkeypatch.setattr(os, "write", write)
    log.append({"third": 3})
    log.close()
    assert [record for _, record in read(tmp_path / "log")] == [{"first": 1}, {"third": 3}]


@pytest.mark.parametrize(("fsync_s", "flushes"), [(0.0, 4), (1e9, 0)])
def test_records_are_flushed_as_often_as_asked(fsync_s, flushes, tmp_path, monkeypatch):
    found = []
    log = UpdateLog(tmp_path / "log", fsync_s)
    monkeypatch.setattr(os, "fsync", found.append)
    for record in RECORDS:
        log.append(record)
    assert len(found) == flushes
    log.close()
    assert len(found) == flushes + 1
