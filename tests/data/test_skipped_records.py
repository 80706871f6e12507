"""Reading on without the records that are damaged, and what is said of them."""

import re
import shutil

import pyarrow as pa
import pytest

from dlen_cam2 import data
from dlen_cam2.data.manifest import LAYOUTS
from dlen_cam2.utils.errors import UserError
from pipelines.writer import dataset
from pipelines.writer.encode import block, examples
from pipelines.writer.shards import Form
from tests.support.shards import SCHEMA, TABLES, boundary, flip, plain, resized, run, shard, times, written

import tensorflow as tf  # isort: skip

pytestmark = pytest.mark.slow


# === Reading on without what is damaged ===
def encoded(table, layout):
    """The records of a shard, and the rows of each."""
    table = dataset._checked(SCHEMA, "1", table)
    if layout == "example":
        return list(examples(table)), [1] * len(table)
    parts = [table.slice(start, 3) for start in range(0, len(table), 3)]
    return [block(part, SCHEMA.binary_columns) for part in parts], [len(part) for part in parts]


def with_value(table, name, row, value):
    """`table`, one value changed, as no pipeline would write it."""
    values = table.column(name).to_pylist()
    values[row] = value
    return table.set_column(table.column_names.index(name), name, pa.array(values, table.column(name).type))


def put(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


# Ways to damage the shard at `path`, which holds `table`; they return the places of the rows that are lost.
def change_record(record):
    def damage(path, layout, table):
        records, rows = encoded(table, layout)
        put(path, [b"\xff\xff" if i == record else r for i, r in enumerate(records)])
        return [sum(rows[:record]) + i for i in range(rows[record])]
    return damage


def change_value(name, row, value):
    def damage(path, layout, table):
        # The writer would refuse it, so the records are made of the changed table without its checks.
        table = with_value(dataset._checked(SCHEMA, "1", table), name, row, value)
        if layout == "example":
            put(path, list(examples(table)))
            return [row]
        put(path, [block(part, SCHEMA.binary_columns) for part in (table.slice(0, 3), table.slice(3))])
        return [0, 1, 2] if row < 3 else [3]
    return damage


def before(path, layout, table, place):
    """How many rows stand in records that end at or before `place`, a number of bytes."""
    content, end, kept = path.read_bytes(), 0, 0
    for rows in encoded(table, layout)[1]:
        end += boundary(content[end:])
        kept += rows if end <= place else 0
    return kept


def cut(length_of):
    def damage(path, layout, table):
        length = length_of(path.read_bytes())
        kept = before(path, layout, table, length)
        path.write_bytes(path.read_bytes()[:length])
        return list(range(kept, 4))
    return damage


def flip_byte(place):
    def damage(path, layout, table):
        kept = before(path, layout, table, int(place * path.stat().st_size))
        flip(path, place)
        return list(range(kept, 4))
    return damage


DAMAGE = [  # of five shards at once
    (flip_byte(0.5), change_value("click", 1, 2), cut(lambda content: len(content) - 9),
     change_value("count", 3, float("nan")), change_record(1)),
    (cut(boundary), flip_byte(0.99), change_value("watch", 0, float("inf")), change_record(0), flip_byte(0)),
    (cut(lambda content: 0), change_value("shareable", 3, 7), change_value("count", 2, -1.0), cut(lambda content: 5),
     change_value("share", 0, -1)),
]


def skipped(text):
    """{shard: rows left out} and (rows left out, rows) in all, as standard error says."""
    shards_said = re.findall(r"^warning: skipped ([\d,]+) of ([\d,]+) rows of (\S+): \S.*$", text, re.MULTILINE)
    totals = re.findall(r"^warning: skipped ([\d,]+) of ([\d,]+) rows in all \([\d.]+%\)$", text, re.MULTILINE)
    assert len(text.splitlines()) == len(shards_said) + len(totals) and len(totals) == (1 if shards_said else 0)
    return {path: int(lost) for lost, _, path in shards_said}, [tuple(map(int, t)) for t in totals]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", range(len(DAMAGE)))
def test_bad_records_are_left_out_and_counted(written_once, tmp_path, capfd, case, layout):
    stored = shutil.copytree(written_once[layout, ""], tmp_path / "set")
    lost = {}
    for index, damage in enumerate(DAMAGE[case]):
        path = shard(stored, index)
        lost[str(path)] = [4 * index + row for row in damage(path, layout, TABLES["1"].slice(4 * index, 4))]
    rows = sum(lost.values(), [])
    wanted = [t for i, t in enumerate(written("1", "2")) if i not in rows]
    capfd.readouterr()
    for shuffle in (0, 100):
        found = times(data.read(stored, SCHEMA, ["1", "2"], 5, shuffle=shuffle, on_bad_record="skip"))
        said, total = skipped(capfd.readouterr().err)
        assert said == {path: len(places) for path, places in lost.items()} and total == [(len(rows), 34)]
        assert (sorted(found) if shuffle else found) == wanted


@pytest.mark.parametrize("damage", [change_value("click", 1, 2), change_record(1), flip_byte(0.5)])
def test_a_damaged_block_is_an_error_that_names_its_shard(written_once, tmp_path, damage):
    stored = shutil.copytree(written_once["block", ""], tmp_path / "set")
    damage(shard(stored), "block", TABLES["1"].slice(8, 4))
    resized(shard(stored))
    with pytest.raises(UserError, match=rf"shard {shard(stored)} is damaged"):
        run(stored)


def without_column(path, record, name):
    """Take a column away from a record of the block layout."""
    found = [tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(path))]
    del found[record].features.feature[name]
    put(path, [example.SerializeToString() for example in found])
    resized(path)


def test_a_block_that_lacks_a_column_is_left_out(written_once, tmp_path, capfd):
    stored = shutil.copytree(written_once["block", ""], tmp_path / "set")
    for index, name in enumerate(("city", "user/int32", "ms/int64", "count", "seen/lengths")):
        without_column(shard(stored, index), 1, name)
    capfd.readouterr()
    found = times(data.read(stored, SCHEMA, ["1", "2"], 5, on_bad_record="skip"))
    said, total = skipped(capfd.readouterr().err)
    assert said == {str(shard(stored, index)): 1 for index in range(5)} and total == [(5, 34)]
    assert found == [t for i, t in enumerate(written("1", "2")) if i not in (3, 7, 11, 15, 19)]


@pytest.mark.parametrize("name", ["city", "user/int32", "ms/int64", "count"])
def test_a_block_that_lacks_a_column_is_an_error_that_names_its_shard(written_once, tmp_path, name):
    stored = shutil.copytree(written_once["block", ""], tmp_path / "set")
    without_column(shard(stored), 1, name)
    with pytest.raises(UserError, match=rf"shard {shard(stored)} is damaged"):
        run(stored)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_day_without_rows_and_lists_of_nothing(tmp_path, layout):
    lists = pa.array([None, [1], None, [], *[[2]] * 19], pa.list_(pa.int64()))
    table = TABLES["1"].set_column(TABLES["1"].column_names.index("seen"), "seen", lists)
    days = [("1", table), ("2", table.slice(0, 0))]
    dataset.write_dataset(tmp_path / "set", SCHEMA, days, {}, form=Form(layout, "GZIP"))
    for shuffle in (0, 9):
        assert times(data.read(tmp_path / "set", SCHEMA, ["2"], 5, shuffle=shuffle)) == []
    (features, labels), *_ = data.read(tmp_path / "set", SCHEMA, ["2", "1"], 5)
    assert features["user_content"]["seen"].numpy()[:, 0].tolist() == [-1, 2, -1, -1, 3]
    assert labels["ms"].numpy().tolist() == written("1")[:5]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_whole_data_set_is_read_whole_and_in_silence(written_once, capfd, layout):
    stored = written_once[layout, ""]
    capfd.readouterr()
    batches = data.read(stored, SCHEMA, ["1", "2"], 5, on_bad_record="skip")
    assert capfd.readouterr().err == ""
    assert plain(batches) == plain(data.read(stored, SCHEMA, ["1", "2"], 5))
    with pytest.raises(UserError, match=r"on_bad_record must be one of \('fail', 'skip'\). Received: 'ignore'"):
        data.read(stored, SCHEMA, ["1"], 5, on_bad_record="ignore")


@pytest.mark.parametrize("shuffle", [0, 100])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_several_damaged_shards_and_input_pipelines(written_once, tmp_path, capfd, layout, shuffle):
    stored = shutil.copytree(written_once[layout, ""], tmp_path / "set")
    lost = [8 + row for row in change_record(1)(shard(stored, 2), layout, TABLES["1"].slice(8, 4))]
    lost += [20 + row for row in range(3)]
    shard(stored, 5).write_bytes(b"")
    lost += [23 + row for row in range(4)]
    flip(shard(stored, 0, "2"), 0.01)
    wanted = [t for i, t in enumerate(written("1", "2")) if i not in lost]
    capfd.readouterr()
    parts = []
    for pipeline in range(2):
        context = tf.distribute.InputContext(2, pipeline, num_replicas_in_sync=2)
        batches = data.read(stored, SCHEMA, ["1", "2"], 4, shuffle=shuffle, context=context, on_bad_record="skip")
        said, total = skipped(capfd.readouterr().err)
        assert list(said.values()) == [len(lost) - 7, 3, 4] and total == [(len(lost), 34)]
        parts.append(times(batches))
    assert sorted(parts[0] + parts[1]) == wanted and all(parts)


@pytest.mark.parametrize("compression", ["GZIP", "ZLIB"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_left_out_of_compressed_shards_is_counted(written_once, tmp_path, capfd, layout, compression):
    stored = shutil.copytree(written_once[layout, compression], tmp_path / "set")
    shard(stored, 1).write_bytes(shard(stored, 1).read_bytes()[:-30])
    flip(shard(stored, 3), 0.5)
    capfd.readouterr()
    found = times(data.read(stored, SCHEMA, ["1"], 5, on_bad_record="skip"))
    said, total = skipped(capfd.readouterr().err)
    assert set(said) == {str(shard(stored, 1)), str(shard(stored, 3))}
    assert total == [(23 - len(found), 23)] and 0 < 23 - len(found) <= 8
    bad = {*written("1")[4:8], *written("1")[12:16]}
    assert [t for t in found if t not in bad] == [t for t in written("1") if t not in bad]
    assert found == sorted(set(found))


def test_the_reason_is_said(stored, capfd):
    for index, (name, value) in {2: ("click", 2), 4: ("count", float("nan"))}.items():
        change_value(name, 1, value)(shard(stored, index), "example", TABLES["1"].slice(4 * index, 4))
    capfd.readouterr()
    data.read(stored, SCHEMA, ["1"], 5, on_bad_record="skip")
    lines = capfd.readouterr().err.splitlines()
    assert re.search(r"00002-of-00006: column \[click\] must be 0 or 1\. Received: \[2\]$", lines[0])
    assert re.search(r"00004-of-00006: column \[count\] must be finite.*Received: \[nan\]$", lines[1])
