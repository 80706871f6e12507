"""Full disks, and what stands where the data set goes: one message, and nothing is changed."""

import errno
import pathlib

import pytest

from dlen_cam2.data import manifest
from dlen_cam2.utils import files
from dlen_cam2.utils.errors import UserError
from pipelines import check
from pipelines.from_logs import convert
from pipelines.options import Options
from pipelines.writer import dataset
from tests.support.logs import write
from tests.support.whole_logs import ROLES, SCHEMA, TYPES, content_of, log_rows


# Where the data set goes.
@pytest.mark.parametrize(("make", "message"), [
    (lambda p: p.write_text("mine"), "out must be a directory. Received: a file"),
    (lambda p: (p.mkdir(), (p / "mine.txt").write_text("mine")), r"out is not empty.*Received.*mine\.txt"),
    (lambda p: (p.parent / "real").symlink_to(p.parent / "log.csv") or p.symlink_to("log.csv"), "must be a directory"),
])
def test_what_is_not_a_data_set_is_not_replaced(tmp_path, make, message):
    write(tmp_path / "log.csv", log_rows(), TYPES)
    make(tmp_path / "out")
    before = {str(p): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=message):
        convert(str(tmp_path / "log.csv"), SCHEMA, ROLES, str(tmp_path / "out"))
    assert {str(p): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert not list(tmp_path.glob(".*"))


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def half(path, text, **_):
    """Write a part, as a full disk does."""
    with open(path, "w" if isinstance(text, str) else "wb") as file:
        file.write(text[: len(text) // 2])
    full()


_WRITE_TEXT = pathlib.Path.write_text


def half_of_statistics(path, text, **how):
    if manifest.STATISTICS in path.name:
        half(path, text)
    return _WRITE_TEXT(path, text, **how)


FULL = {
    "a shard": (pathlib.Path, "write_bytes", half),
    "counts": (dataset.pq, "write_table", full),
    "a split's manifest": (pathlib.Path, "write_text", half),
    "statistics": (pathlib.Path, "write_text", half_of_statistics),
    "what is flushed": (files, "_fsync", full),
    "metadata for TFDS": (dataset, "_write_tfds", full),
}


@pytest.mark.slow
@pytest.mark.parametrize("since", ["", "20220426"])
@pytest.mark.parametrize("where", FULL)
def test_a_full_disk_is_one_message_and_changes_nothing(tmp_path, monkeypatch, where, since):
    write(tmp_path / "in" / "0.csv", log_rows()[:10], TYPES)
    convert(str(tmp_path / "in" / "0.csv"), SCHEMA, ROLES, str(tmp_path / "out"))
    write(tmp_path / "in" / "1.csv", log_rows()[10:], TYPES)
    before = content_of(tmp_path)
    with monkeypatch.context() as patch, pytest.raises((UserError, OSError), match="No space left on device"):
        patch.setattr(*FULL[where])  # an OSError too is one message of the command, see dlen_cam2.utils.commands
        convert(str(tmp_path / "in" / "*.csv"), SCHEMA, ROLES, str(tmp_path / "out"), how=Options(since=since))
    assert content_of(tmp_path) == before
    assert not check.check(tmp_path / "out").failed
    convert(str(tmp_path / "in" / "*.csv"), SCHEMA, ROLES, str(tmp_path / "out"), how=Options(since=since))
    assert len(manifest.statistics(tmp_path / "out")["days"]) == 2 and not check.check(tmp_path / "out").failed
