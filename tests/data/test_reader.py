"""The reader: shards -> batches of feature groups, in every form, order and place."""

import shutil

import numpy as np
import pytest

from dlen_cam2 import data
from dlen_cam2.data.manifest import LAYOUTS
from dlen_cam2.schema import pbtxt
from dlen_cam2.utils.errors import UserError
from tests.support.shards import ROWS, SCHEMA, TABLES, plain, splitmix, times, written

import tensorflow as tf  # isort: skip


def expected(split):
    """Groups of the features, as plain Python says they must be."""
    t = {n: TABLES[split].column(n).to_pylist() for n in TABLES[split].column_names}

    def padded(lists, index, length):
        return [([index(v) for v in row] + [-1] * length)[:length] for row in lists]

    tags = {"": -1, "a": 1, "b": 2}
    return {
        "user_content": {
            "user": [v + 1 if 0 <= v < 5 else 0 for v in t["user"]], "device": [splitmix(v, 11) for v in t["device"]],
            "city": [{"Zürich": 1, "東京": 2}.get(v, 0) for v in t["city"]],
            "seen": padded(t["seen"], lambda v: -1 if v < 0 else v + 1 if v < 9 else 0, 3)},
        "item_content": {"word": [WORDS[v] for v in t["word"]], "tags": padded(t["tags"], lambda v: tags.get(v, 0), 2)},
        "item_statistical": {"count": (np.log1p(np.float32(t["count"])) - 0.5) / 2},
        "context": {"seconds": (np.float32(t["seconds"]) - 10) / 4},
    }


WORDS = {"": 0, "x": 2, "快手": 2}  # FarmHash of TensorFlow, see test_hashes_never_change


@pytest.mark.parametrize("layout", LAYOUTS)
def test_batches_have_groups_types_and_values(written_once, layout):
    batches = list(data.read(written_once[layout, ""], SCHEMA, ["1"], 10))
    assert [len(labels["ms"]) for _, labels in batches] == [10, 10, 3]
    wanted = expected("1")
    for at, (features, labels) in zip((0, 10, 20), batches, strict=True):
        assert {g: list(f) for g, f in features.items()} == {g: list(f) for g, f in wanted.items()}
        for group, columns in wanted.items():
            for name, values in columns.items():
                found = features[group][name]
                numeric = group in ("item_statistical", "context")
                assert found.dtype == (tf.float32 if numeric else tf.int64)
                assert found.shape[1:] == {"seen": (3,), "tags": (2,)}.get(name, ())
                np.testing.assert_allclose(
                    found, values[at : at + 10], rtol=1e-5 if numeric else 0, atol=1e-6, err_msg=name
                )
        assert sorted(labels) == sorted(["click", "share", "shareable", "seconds", "watch", "user", "ms"])
        for name, value in labels.items():
            assert value.dtype == (tf.int64 if name in ("user", "ms") else tf.float32)
            assert value.numpy().tolist() == TABLES["1"].column(name).to_pylist()[at:at + 10]


@pytest.mark.slow
def test_order_is_as_written_or_shuffled_anew_from_the_seed(stored):
    assert times(data.read(stored, SCHEMA, ["1", "2"], 5)) == written("1", "2")
    assert times(data.read(stored, SCHEMA, ["2", "1"], 100)) == written("2", "1")
    first, again, other = (data.read(stored, SCHEMA, ["1", "2"], 5, shuffle=8, seed=s) for s in (7, 7, 8))
    passes = [times(first), times(first), times(again), times(again)]
    assert passes[0] == passes[2] and passes[1] == passes[3]
    assert passes[0] != passes[1] and passes[0] != times(other) and passes[0] != written("1", "2")
    for order in passes:
        assert sorted(order) == sorted(written("1", "2"))


def test_a_single_shard_can_be_shuffled(stored):
    batches = data.read(stored, SCHEMA, ["2_random"], 4, shuffle=16)
    passes = [times(batches) for _ in range(4)]
    assert all(sorted(order) == written("2_random") for order in passes)
    assert len(set(map(tuple, passes))) > 1


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("days", "shuffle"), [  # 9 shards; 1 shard for 2 pipelines
    (["1", "2"], 0), (["1", "2"], 16), (["2_random"], 0), (["2_random"], 16)])
def test_input_pipelines_share_the_rows(written_once, days, shuffle, layout):
    stored = written_once[layout, ""]
    parts = []
    for pipeline in range(2):
        context = tf.distribute.InputContext(2, pipeline, num_replicas_in_sync=2)
        batches = data.read(stored, SCHEMA, days, 4, shuffle=shuffle, seed=1, context=context)
        parts.append([times(batches), times(batches)])
        assert max(len(labels["ms"]) for _, labels in batches) == min(2, len(parts[-1][0]))
    for n in range(2):  # in every pass
        assert not set(parts[0][n]) & set(parts[1][n]) and parts[0][n] and parts[1][n]
        assert sorted(parts[0][n] + parts[1][n]) == sorted(written(*days))


def test_a_batch_is_divided_among_the_replicas_of_one_pipeline(stored):
    context = tf.distribute.InputContext(1, 0, num_replicas_in_sync=2)
    assert len(next(iter(data.read(stored, SCHEMA, ["1"], 4, context=context)))[1]["ms"]) == 2


@pytest.mark.slow
def test_every_form_reads_as_the_same_rows(written_once):
    days = ["1", "2", "2_random"]
    wanted = plain(data.read(written_once["example", ""], SCHEMA, days, 100))
    assert len(set(wanted)) == sum(ROWS.values())
    for batch, (form, directory) in enumerate(written_once.items(), start=2):
        assert plain(data.read(directory, SCHEMA, days, batch)) == wanted, form


@pytest.mark.parametrize("shuffle", [8, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 1000))])
def test_shuffled_rows_of_every_form_stay_whole_and_none_is_lost_or_doubled(written_once, shuffle):
    days = ["1", "2", "2_random"]
    wanted = sorted(plain(data.read(written_once["example", ""], SCHEMA, days, 100)))
    for form in (("example", "GZIP"), ("block", "")):
        batches = data.read(written_once[form], SCHEMA, days, 7, shuffle=shuffle, seed=3)
        first, second = plain(batches), plain(batches)
        assert first != second and sorted(first) == sorted(second) == wanted, form


def test_days_of_different_forms_are_not_read_together(written_once, tmp_path):
    mixed = shutil.copytree(written_once["example", ""], tmp_path / "mixed")
    shutil.rmtree(mixed / "2")
    shutil.copytree(written_once["block", "GZIP"] / "2", mixed / "2")
    assert times(data.read(mixed, SCHEMA, ["2"], 8)) == written("2")
    with pytest.raises(UserError, match=r"must have the same layout and compression. Received: .*'block', 'GZIP'"):
        data.read(mixed, SCHEMA, ["1", "2"], 8)


@pytest.fixture(scope="module")
def remote(written_once):
    """Data sets in TensorFlow's file system in memory, by layout."""
    found = {}
    for layout in LAYOUTS:
        found[layout] = f"ram://data/{layout}"
        source = written_once[layout, ""]
        for path in source.rglob("*"):
            target = f"{found[layout]}/{path.relative_to(source)}"
            if path.is_file():
                tf.io.gfile.makedirs(target.rpartition("/")[0])
                with tf.io.gfile.GFile(target, "wb") as file:
                    file.write(path.read_bytes())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_remote_data_set_reads_as_a_local_one(written_once, remote, layout):
    local, directory = written_once[layout, ""], remote[layout]
    assert pbtxt.load(directory) == SCHEMA
    assert data.statistics(directory) == data.statistics(local)
    assert data.read_manifest(directory, "1") == data.read_manifest(local, "1")
    assert data.fit(directory, SCHEMA, ["1"]) == data.fit(local, SCHEMA, ["1"])
    wanted = plain(data.read(local, SCHEMA, ["1", "2"], 8))
    for policy in data.POLICIES:
        assert plain(data.read(directory, SCHEMA, ["1", "2"], 8, on_bad_record=policy)) == wanted
    assert sorted(plain(data.read(directory, SCHEMA, ["1", "2"], 8, shuffle=50))) == sorted(wanted)


def test_a_remote_data_set_that_is_damaged_is_named(remote):
    directory = remote["example"]
    path = f"{directory}/2/tiny.tfrecord-00001-of-00003"
    with tf.io.gfile.GFile(path, "rb") as file:
        content = file.read()
    tf.io.gfile.remove(path)  # this file system would append
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(content[:-9])
    with pytest.raises(UserError, match=rf"shard {path} must be {len(content)} bytes long.* {len(content) - 9} bytes"):
        data.read(directory, SCHEMA, ["2"], 8)
    assert times(data.read(directory, SCHEMA, ["2"], 8, on_bad_record="skip")) == written("2")[:7] + written("2")[8:]
    tf.io.gfile.remove(path)
    for policy in data.POLICIES:
        with pytest.raises(UserError, match=rf"shard {path} .*no such file"):
            data.read(directory, SCHEMA, ["2"], 8, on_bad_record=policy)
    for absent in ("ram://data/nothing", "ram://nothing"):
        with pytest.raises(UserError, match=f"{absent}/statistics.json does not exist"):
            data.read(absent, SCHEMA, ["2"], 8)
        with pytest.raises(UserError, match=f"{absent}/schema.pbtxt cannot be read"):
            pbtxt.load(absent)


def test_parse_days():
    known = ["20220430", "20220430_random", "20220501", "20220502"]
    for text, days in (
        ("20220430..20220501", ["20220430", "20220501"]),
        (" 20220502 ,20220430", ["20220502", "20220430"]),
        ("20220430_random", ["20220430_random"]),
        ("20220501,20220430..20220502", ["20220501", "20220430", "20220502"]),
    ):
        assert data.parse_days(text, known) == days
    for wrong in ("", ",", "20220503", "20220502..20220430", "20220430..x,y", "2022", "2022..2023"):
        with pytest.raises(UserError, match="Known: |Received"):
            data.parse_days(wrong, known)
