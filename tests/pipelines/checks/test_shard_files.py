"""Shards that are damaged, missing or not listed."""

import hashlib
import json

import pytest
import tensorflow as tf

from pipelines import check
from tests.support.checked_sets import DAYS, ROWS, SCHEMA, edit, faults, named, shard, statuses


def test_manifests_record_the_sha256_of_every_shard(clean):
    for day in DAYS:
        manifest = json.loads((clean / day / "_SUCCESS").read_text())
        content = shard(clean, day).read_bytes()
        entry = {"rows": ROWS, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        assert manifest == {"rows": ROWS, "layout": "example", "compression": "", "shards": {shard(clean).name: entry}}


def test_a_flipped_byte(clean):
    content = bytearray(shard(clean).read_bytes())
    content[len(content) // 2] ^= 1
    shard(clean).write_bytes(content)
    report = check.check(clean)
    assert report.failed and statuses(report) == {"checksums": "FAIL", "rows readable": "FAIL"}
    assert named(shard(clean)) in faults(report, "checksums") and named(shard(clean)) in faults(report, "rows readable")


def test_other_rows_of_the_same_size_are_caught_by_the_checksum_alone(clean):
    records = [r.numpy() for r in tf.data.TFRecordDataset(str(shard(clean)))]
    with tf.io.TFRecordWriter(str(shard(clean))) as writer:
        for record in reversed(records):
            writer.write(record)
    assert statuses(check.check(clean)) == {"checksums": "FAIL"}


def test_a_truncated_and_a_missing_shard(clean):
    shard(clean).write_bytes(shard(clean).read_bytes()[:-100])
    shard(clean, DAYS[2]).unlink()
    report = check.check(clean)
    found = faults(report, "shard files")
    assert report.failed and f"{named(shard(clean))} has " in found
    assert f"{named(shard(clean, DAYS[2]))} is missing" in found
    assert "1 of 3 splits" in faults(report, "rows readable")
    assert statuses(report)["drift"] == "WARN" and "not checked" in faults(report, "drift")


@pytest.mark.parametrize(
    "name", ["../x.tfrecord-00000-of-00001", "/etc/passwd", "a/b.tfrecord-00000-of-00001", "x", ""]
)
def test_a_listed_name_outside_the_directory_is_not_opened(clean, name):
    entry = {"rows": 1, "bytes": 1, "sha256": ""}
    edit(clean / DAYS[1] / "_SUCCESS", lambda manifest: manifest["shards"].update({name: entry}))
    report = check.check(clean)
    assert report.failed and "_SUCCESS must hold rows, a layout" in faults(report, "shard files")
    assert "2 of 3 splits" in faults(report, "rows readable")


@pytest.mark.parametrize("change", [
    lambda manifest: manifest.pop("shards"), lambda manifest: manifest.update(layout="rows"),
    lambda manifest: manifest.update(compression="LZ4"), lambda manifest: manifest.update(rows="600"),
    lambda manifest: manifest["shards"][f"{SCHEMA.name}.tfrecord-00000-of-00001"].pop("sha256"),
])
def test_a_manifest_that_cannot_be_used_fails_its_split_only(clean, change):
    edit(clean / DAYS[1] / "_SUCCESS", change)
    report = check.check(clean)
    assert report.failed and f"{DAYS[1]}/_SUCCESS must hold rows, a layout" in faults(report, "shard files")
    assert "2 of 3 splits" in faults(report, "rows readable")


def test_a_split_without_a_manifest_and_one_that_no_one_names(clean):
    (clean / DAYS[1] / "_SUCCESS").unlink()
    edit(clean / "statistics.json", lambda content: content["days"].pop(DAYS[2]))
    report = check.check(clean)
    assert statuses(report) | {"shard files": "FAIL", "unlisted shards": "FAIL"} == statuses(report)
    assert f"{DAYS[1]}/_SUCCESS does not exist" in faults(report, "shard files")
    assert f"{DAYS[2]} is not listed" in faults(report, "unlisted shards")
