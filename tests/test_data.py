"""The reader: shards -> batches of feature groups, and what it says about damaged ones."""

import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pytest

from dlen_cam2 import data, schema_pbtxt
from dlen_cam2.cli import UserError
from dlen_cam2.indexing import Indexer
from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.storage import COMPRESSIONS, LAYOUTS
from pipelines import dataset, shards
from pipelines.shards import Form

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


@pytest.fixture
def blocks(written_once, tmp_path):
    return shutil.copytree(written_once["block", ""], tmp_path / "blocks")


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


def test_batches_have_groups_types_and_values(stored):
    batches = list(data.read(stored, SCHEMA, ["1"], 10))
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


@pytest.mark.parametrize(("days", "shuffle"), [  # 9 shards; 1 shard for 2 pipelines
    (["1", "2"], 0), (["1", "2"], 16), (["2_random"], 0), (["2_random"], 16)])
def test_input_pipelines_share_the_rows(stored, days, shuffle):
    parts = []
    for pipeline in range(2):
        context = tf.distribute.InputContext(2, pipeline, num_replicas_in_sync=2)
        batches = data.read(stored, SCHEMA, days, 4, shuffle=shuffle, seed=1, context=context)
        parts.append([times(batches), times(batches)])
        assert max(len(labels["ms"]) for _, labels in batches) == 2
    for n in range(2):  # in every pass
        assert not set(parts[0][n]) & set(parts[1][n]) and parts[0][n] and parts[1][n]
        assert sorted(parts[0][n] + parts[1][n]) == sorted(written(*days))


def test_a_batch_is_divided_among_the_replicas_of_one_pipeline(stored):
    context = tf.distribute.InputContext(1, 0, num_replicas_in_sync=2)
    assert len(next(iter(data.read(stored, SCHEMA, ["1"], 4, context=context)))[1]["ms"]) == 2


def test_parse_days():
    known = ["20220430", "20220430_random", "20220501", "20220502"]
    for text, days in (
        ("20220430..20220501", ["20220430", "20220501"]),
        (" 20220502 ,20220430", ["20220502", "20220430"]),
        ("20220430_random", ["20220430_random"]),
        ("20220501,2022..2023", ["20220501", "20220430", "20220502"]),
    ):
        assert data.parse_days(text, known) == days
    for wrong in ("", ",", "20220503", "20220502..20220430", "20220430..x,y", "2022"):
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


@pytest.mark.parametrize("place", [0.02, 0.5, 0.97])
def test_a_flipped_bit_is_an_error_that_names_the_shard(stored, place):
    path = shard(stored)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)
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

    schema = schema_pbtxt.load(tmp_path / "set")
    assert schema == RATED and schema.features[0].domain == (0.0, 1.0)
    fitted = schema.fit(statistics, ["1"])
    assert (fitted.features[0].mean, fitted.features[0].std) == (found["model_mean"], found["model_std"])
    assert schema_pbtxt.loads(schema_pbtxt.dumps(fitted)) == fitted
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
