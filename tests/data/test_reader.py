"""The reader: shards -> batches of feature groups, and what it says about damaged ones."""

import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pytest

from dlen_cam2 import data
from dlen_cam2.data.manifest import COMPRESSIONS, LAYOUTS
from dlen_cam2.data.preprocessing import Indexer
from dlen_cam2.schema import Feature, Schema, Task, pbtxt
from dlen_cam2.utils.errors import UserError
from pipelines.writer import dataset, shards
from pipelines.writer.encode import block, examples
from pipelines.writer.shards import Form

import tensorflow as tf  # isort: skip

ROWS = {"1": 23, "2": 11, "2_random": 4}
SCHEMA = Schema("tiny", (
    Feature("user", "int", "user", "content", size=5, width=2),
    Feature("device", "int", "user", "content", size=11, hashed=True, width=2),
    Feature("city", "string", "user", "content", vocabulary=("Zürich", "東京"), width=2),
    Feature("word", "string", "item", "content", size=7, hashed=True, width=2),
    Feature("seen", "int", "user", "content", size=9, width=2, max_length=3),
    Feature("tags", "string", "item", "content", vocabulary=("a", "b"), width=2, max_length=2),
    Feature("count", "float", "item", "statistical", transform="log1p", mean=0.5, std=2.0),
    Feature("seconds", "float", "context", "context", mean=10.0, std=4.0),
), (Task("click"), Task("share", mask="shareable")), ("seconds", "watch"), {"user": "user", "time": "ms"})


def table(rows, seed):
    rng = np.random.default_rng(seed)
    lists = [[int(v) for v in rng.integers(-1, 12, n)] for n in rng.integers(0, 6, rows)]
    return pa.table(
        {
            "user": rng.integers(-2, 8, rows),
            "device": rng.integers(-1, 2**62, rows),
            "city": rng.choice(["Zürich", "東京", "", "Bern"], rows).tolist(),
            "word": rng.choice(["x", "", "快手"], rows).tolist(),
            "seen": pa.array(lists, pa.list_(pa.int64())),
            "tags": pa.array([["a", "b", "q", ""][:n] for n in rng.integers(0, 4, rows)], pa.list_(pa.string())),
            "count": rng.integers(0, 50, rows).astype(np.float32),
            "seconds": rng.uniform(0, 60, rows).astype(np.float32),
            "click": rng.integers(0, 2, rows),
            "share": rng.integers(0, 2, rows),
            "shareable": rng.integers(0, 2, rows),
            "watch": rng.uniform(0, 9, rows).astype(np.float32),
            "ms": 2**60 + 1000 * seed + np.arange(rows),
        }
    )


TABLES = {split: table(rows, i) for i, (split, rows) in enumerate(ROWS.items())}


def write(directory, form=Form(), rows=4, block=3):  # noqa: B008
    """Days 1, 2 and 2_random in 6, 3 and 1 shards; a shard of the block layout has a record of 3 rows and one of 1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "ROWS_PER_SHARD", rows)
        patch.setattr(shards, "ROWS_PER_BLOCK", block)
        dataset.write_dataset(directory, SCHEMA, TABLES.items(), {}, form=form)
    return directory


@pytest.fixture(scope="module")
def written_once(tmp_path_factory):
    """A data set of each form, to be read only."""
    home = tmp_path_factory.mktemp("forms")
    forms = [Form(layout, compression) for layout in LAYOUTS for compression in COMPRESSIONS]
    return {(f.layout, f.compression): write(home / f"{f.layout}{f.compression}", f) for f in forms}


@pytest.fixture
def stored(written_once, tmp_path):
    """A data set of one's own."""
    return shutil.copytree(written_once["example", ""], tmp_path / "set")


def times(batches):
    return [int(t) for _, labels in batches for t in labels["ms"]]


def written(*splits):
    return [t for s in splits for t in TABLES[s].column("ms").to_pylist()]


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


def splitmix(value, buckets):
    if value < 0:
        return 0
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        value = (value ^ value >> shift) * factor % 2**64
    return 1 + (value >> 1) % buckets


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


def plain(batches):
    """Every row as plain values: bytes of numbers, so that equal means equal to the last bit.

    Not of features that are logarithms: those of a long column are computed by other instructions than the last few.
    """
    rows = []
    for features, labels in batches:
        columns = [np.round(features["item_statistical"].pop("count"), 4) + 0.0]
        columns += [column.numpy() for column in tf.nest.flatten((features, labels))]
        rows += [tuple(column[row].tobytes() for column in columns) for row in range(len(columns[0]))]
    return rows


def test_every_form_reads_as_the_same_rows(written_once):
    days = ["1", "2", "2_random"]
    wanted = plain(data.read(written_once["example", ""], SCHEMA, days, 100))
    assert len(set(wanted)) == sum(ROWS.values())
    for batch, (form, directory) in enumerate(written_once.items(), start=2):
        assert plain(data.read(directory, SCHEMA, days, batch)) == wanted, form


@pytest.mark.parametrize("shuffle", [2, 8, 1000])
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
    with pytest.raises(UserError, match=r"must have one layout and compression. Received: .*'block', 'GZIP'"):
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


def shard(stored, index=2, day="1"):
    return sorted((stored / day).glob("tiny.tfrecord-*"))[index]


def resized(path, rows=None):
    """Make the split's manifest agree with the size of the shard on disk (and with its rows)."""
    manifest = path.parent / "_SUCCESS"
    content = json.loads(manifest.read_text())
    entry = content["shards"][path.name]
    entry["bytes"] = path.stat().st_size
    if rows is not None:
        content["rows"] += rows - entry["rows"]
        entry["rows"] = rows
    manifest.write_text(json.dumps(content))


def run(stored, schema=SCHEMA):
    with data.explained(stored, schema, ["1"]):
        return times(data.read(stored, schema, ["1"], 8, shuffle=8))


def boundary(content):
    """Where the second record of a shard begins: length (8), its checksum (4), data, its checksum (4)."""
    return int.from_bytes(content[:8], "little") + 16


@pytest.mark.parametrize("where", ["inside", "boundary", "empty", "longer", "missing"])
def test_a_shard_of_another_size_is_named_at_once(stored, where):
    path = shard(stored)
    content = path.read_bytes()
    path.write_bytes(
        {"inside": content[:-9], "boundary": content[: boundary(content)], "longer": content * 2}.get(where, b"")
    )
    if where == "missing":
        path.unlink()
    message = (
        rf"shard .*1/{path.name} must be {len(content)} bytes.*Received: {'no such file' if where == 'missing' else ''}"
    )
    with pytest.raises(UserError, match=message):
        data.read(stored, SCHEMA, ["1"], 8)
    assert times(data.read(stored, SCHEMA, ["2"], 8)) == written("2")  # other days do not suffer


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("place", [0.02, 0.5, 0.97])
def test_a_flipped_bit_is_an_error_that_names_the_shard(stored, place):
    path = shard(stored)
    flip(path, place)
    with pytest.raises(UserError, match=rf"shard .*{path.name} is damaged"):
        run(stored)


def test_a_shard_cut_within_a_record_whose_size_agrees_is_named(stored):
    path = shard(stored)
    path.write_bytes(path.read_bytes()[:-9])
    resized(path)
    with pytest.raises(UserError, match=rf"shard .*{path.name} is damaged.*"):
        run(stored)


def rewrite(stored, **changes):
    """Write the third shard anew, its second record changed: {column: value, or None to leave it out}."""
    path = shard(stored)
    records = [tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(path))]
    for name, value in changes.items():
        columns = records[1].features.feature
        del columns[name]
        if value is not None:
            kind = {int: "int64_list", float: "float_list", bytes: "bytes_list"}[type(value)]
            getattr(columns[name], kind).value.append(value)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record.SerializeToString())
    resized(path)
    return path.name


@pytest.mark.parametrize(("changes", "says"), [
    ({"count": float("nan")}, r"column \[count\] must be finite, .* Received: \[nan\]"),
    ({"watch": float("inf")}, r"column \[watch\] must be finite, .* Received: \[inf\]"),
    ({"click": 2}, r"column \[click\] must be 0 or 1\. Received: \[2\]"),
    ({"shareable": -1}, r"column \[shareable\] must be 0 or 1\. Received: \[-1\]"),
    ({"count": None}, "count"), ({"click": None}, "click"), ({"ms": None}, "ms"), ({"count": 3}, "count"),
    ({"user": b"five"}, "user"), ({"seen": 1.5}, "seen"),
])
def test_a_bad_value_names_column_and_shard(stored, changes, says):
    name = rewrite(stored, **changes)
    with pytest.raises(UserError, match=rf"(?s)shard .*{name} .*{says}"):
        run(stored)


@pytest.mark.parametrize(("value", "received"), [(-3.0, r"\[-3\]"), (-0.5, r"\[-0\.5\]")])
def test_a_value_outside_the_domain_of_its_transform_names_column_and_shard(stored, value, received):
    name = rewrite(stored, count=value)
    message = rf"shard .*{name} .*column \[count\] must be .*log1p: 0 and above.* Received: {received}"
    with pytest.raises(UserError, match=message):
        run(stored)


def test_a_missing_categorical_value_is_unknown(stored):
    rewrite(stored, user=None, city=None, seen=None)
    features = list(data.read(stored, SCHEMA, ["1"], 100))[0][0]["user_content"]
    row = len(list(tf.data.TFRecordDataset([str(shard(stored, i)) for i in range(2)]))) + 1
    assert (features["user"][row], features["city"][row], features["seen"][row].numpy().tolist()) == (
        0,
        0,
        [-1, -1, -1],
    )


def test_a_column_that_is_in_no_record_is_named_at_once(stored):
    schema = Schema(
        "tiny", (*SCHEMA.features, Feature("mood", "int", "user", "content", size=3, width=2)), SCHEMA.tasks
    )
    with pytest.raises(
        UserError, match=r"shard .*1/tiny\.tfrecord-00000-of-00006 has no column \['mood'\].*Known: .*'city'"
    ):
        data.read(stored, schema, ["1"], 8)


def test_a_directory_that_is_no_data_set_is_named(stored):
    with pytest.raises(UserError, match="has no day '3'. Known: "):
        data.read(stored, SCHEMA, ["3"], 8)
    (stored / "statistics.json").write_text("[]")
    with pytest.raises(UserError, match=r"statistics\.json must have the section 'days'. Received"):
        data.statistics(stored)
    (stored / "statistics.json").unlink()
    with pytest.raises(UserError, match=r"statistics\.json does not exist"):
        data.read(stored, SCHEMA, ["1"], 8)


def test_other_columns_than_the_schema_names_are_not_parsed(stored):
    rewrite(stored, count=float("nan"), share=7)
    some = SCHEMA.select(tasks=["click"], features=["city", "seconds"])
    features, labels = list(data.read(stored, some, ["1"], 100))[0]
    assert list(features) == ["user_content", "context"] and list(features["user_content"]) == ["city"]
    assert set(labels) == {"click", "seconds", "watch", "user", "ms"}


def test_hashes_never_change_and_big_ids_stay_exact():
    big = Schema("s", (Feature("id", "int", "item", "content", size=2**40, width=1),
                       Feature("h", "int", "item", "content", size=2**40, hashed=True, width=1),
                       Feature("w", "string", "item", "content", size=10**6, hashed=True, width=1)), ())
    ids = [0, 1, 2**24, 2**24 + 1, 2**40 - 1, 2**40, 2**63 - 1, -1, -(2**63)]
    words = ["", "x", "快手", "a b"]
    index = Indexer(big)
    found = index({"id": tf.constant(ids, tf.int64), "h": tf.constant(ids, tf.int64), "w": tf.constant(words)})[
        "item_content"
    ]
    assert found["id"].numpy().tolist() == [1, 2, 2**24 + 1, 2**24 + 2, 2**40, 0, 0, 0, 0]
    assert found["h"].numpy().tolist() == [splitmix(v, 2**40) for v in ids]
    assert found["h"].numpy().tolist()[:4] == GOLDEN["ints"]
    assert found["w"].numpy().tolist() == GOLDEN["words"]


GOLDEN = {"ints": [1, 62411604723, 613861517924, 1042441645526], "words": [0, 539971, 388011, 357878]}


@pytest.mark.parametrize("buckets", [1, 2, 7, 1000])
def test_hashes_are_in_range_and_even(buckets):
    schema = Schema("s", (Feature("h", "int", "item", "content", size=buckets, hashed=True, width=1),
                          Feature("w", "string", "item", "content", size=buckets, hashed=True, width=1)), ())
    raw = {"h": tf.range(20_000, dtype=tf.int64), "w": tf.strings.as_string(tf.range(20_000))}
    for rows in Indexer(schema)(raw)["item_content"].values():
        counts = np.bincount(rows.numpy(), minlength=buckets + 1)
        assert counts[0] == 0 and len(counts) == buckets + 1
        assert ((counts[1:] - 20_000 / buckets) ** 2).sum() * buckets / 20_000 < buckets + 6 * np.sqrt(2 * buckets)


@pytest.mark.parametrize("mode", ["eager", "graph", "jit"])
def test_indexing_is_the_same_everywhere(stored, mode):
    schema = SCHEMA if mode != "jit" else SCHEMA.select(features=["user", "device", "seen", "count"])
    indexer = Indexer(schema)
    raw = {
        n: tf.constant(TABLES["1"].column(n).to_pylist())
        for n in ("user", "device", "city", "word", "count", "seconds")
    }
    raw |= {
        n: tf.ragged.constant(TABLES["1"].column(n).to_pylist()).to_tensor(pad)
        for n, pad in (("seen", -1), ("tags", ""))
    }
    raw = {n: tf.cast(v, tf.int64) if v.dtype == tf.int32 else v for n, v in raw.items()}
    raw |= {"seen": raw["seen"][:, :3], "tags": raw["tags"][:, :2]}
    call = indexer if mode == "eager" else tf.function(lambda **raw: indexer(raw), jit_compile=mode == "jit")
    found = call({f.name: raw[f.name] for f in schema.features}) if mode == "eager" else call(
        **{f.name: raw[f.name] for f in schema.features})
    features = list(data.read(stored, schema, ["1"], 100))[0][0]
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), dict(found), features)


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
    shards_said = re.findall(r"^skipped ([\d,]+) of ([\d,]+) rows of (\S+): \S.*$", text, re.MULTILINE)
    totals = re.findall(r"^skipped ([\d,]+) of ([\d,]+) rows in all \([\d.]+%\)$", text, re.MULTILINE)
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


# === Log-odds ===

RATES = np.float32([0.0, 1e-4, 0.02, 0.5, 0.9, 1.0])
RATED = Schema("rated", (Feature("rate", "float", "item", "statistical", transform="logit"),), (Task("t"),))


def log_odds(rates):
    """The definition in float64; 0 and 1 count as the rates one millionth beside them."""
    p = np.clip(np.asarray(rates, np.float64), 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


def rated(rates):
    return pa.table({"rate": np.float32(rates), "t": np.arange(len(rates)) % 2})


def test_log_odds_round_trip(tmp_path):
    statistics = dataset.write_dataset(tmp_path / "set", RATED, [("1", rated(RATES))], {})
    found, wanted = statistics["days"]["1"]["features"]["rate"], log_odds(RATES)
    assert (found["min"], found["max"]) == (0.0, 1.0)
    assert found["mean"] == pytest.approx(RATES.mean(dtype=np.float64), rel=1e-12)
    assert found["model_mean"] == pytest.approx(wanted.mean(), rel=1e-9)
    assert found["model_std"] == pytest.approx(wanted.std(), rel=1e-9)

    schema = pbtxt.load(tmp_path / "set")
    assert schema == RATED and schema.features[0].domain == (0.0, 1.0)
    fitted = schema.fit(statistics, ["1"])
    assert (fitted.features[0].mean, fitted.features[0].std) == (found["model_mean"], found["model_std"])
    assert pbtxt.loads(pbtxt.dumps(fitted)) == fitted
    (features, _), = data.read(tmp_path / "set", fitted, ["1"], 10)
    value = features["item_statistical"]["rate"]
    assert value.dtype == tf.float32
    # 1 - 1e-6 in float32 is 2^-24 off at most, 6% of the distance to 1; elsewhere float32 is exact to 1e-5.
    np.testing.assert_allclose(value[:-1], (wanted[:-1] - wanted.mean()) / wanted.std(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(value[-1], (wanted[-1] - wanted.mean()) / wanted.std(), atol=0.06 / wanted.std())


def test_serving_clamps_to_the_domain_of_a_transform():
    features = (
        Feature("rate", "float", "item", "statistical", transform="logit", mean=1.0, std=2.0),
        Feature("count", "float", "item", "statistical", transform="log1p", mean=1.0, std=2.0),
    )
    raw = {"rate": tf.constant([-3.0, 0.0, 1.0, 1.5]), "count": tf.constant([-3.0, -1.0, 0.0, 0.0])}
    found = Indexer(Schema("s", features, ()))(raw)["item_statistical"]
    rate = found["rate"].numpy()
    assert np.isfinite(rate).all() and rate[0] == rate[1] and rate[2] == rate[3]
    assert rate[1] == pytest.approx((np.log(1e-6) - 1) / 2, rel=1e-5)
    assert rate[2] == pytest.approx((-np.log(1e-6) - 1) / 2, abs=0.06 / 2)
    assert found["count"].numpy().tolist() == [-0.5] * 4


@pytest.mark.parametrize("value", [1.5, -0.25])
def test_the_writer_refuses_a_rate_outside_0_and_1(tmp_path, value):
    message = rf"feature 'rate' has the transform 'logit' and must be in \[0\.0, 1\.0\]\. Received: .*{value}"
    with pytest.raises(UserError, match=message):
        dataset.write_dataset(tmp_path / "set", RATED, [("1", rated([0.5, value]))], {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [1.5, -0.25])
def test_the_reader_refuses_a_rate_outside_0_and_1(tmp_path, value):
    free = Schema("rated", (Feature("rate", "float", "item", "statistical"),), (Task("t"),))
    dataset.write_dataset(tmp_path / "set", free, [("1", rated([0.5, value]))], {})
    message = rf"shard .*1/rated\.tfrecord.* column \[rate\] must be .*logit: 0 to 1.* Received: \[{value}\]"
    with pytest.raises(UserError, match=message), data.explained(tmp_path / "set", RATED, ["1"]):
        list(data.read(tmp_path / "set", RATED, ["1"], 8))


@pytest.mark.parametrize("kind", ["int", "string"])
def test_hashing_collides_as_often_as_chance(kind):
    """Of n values in m buckets a share of 1 - (1 - 1/m)^(n-1) shares its bucket with another: here 22.1%."""
    n, m = 5000, 20_000
    feature = Feature("video", kind, "item", "content", size=m, hashed=True, width=4)
    values = tf.range(n, dtype=tf.int64)
    values = tf.strings.as_string(values) if kind == "string" else values
    rows = Indexer(Schema("hashed", (feature,), ()))({"video": values})["item_content"]["video"].numpy()
    assert rows.min() >= 1 and rows.max() <= m
    _, counts = np.unique(rows, return_counts=True)
    shared = counts[counts > 1].sum() / n
    assert shared == pytest.approx(1 - (1 - 1 / m) ** (n - 1), abs=0.02)
