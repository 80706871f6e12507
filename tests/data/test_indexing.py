"""From values to rows of tables: hashes, and that they are the same everywhere."""

import numpy as np
import pytest

from dlen_cam2 import data
from dlen_cam2.data.preprocessing import Indexer
from dlen_cam2.schema import Feature, Schema
from tests.support.shards import SCHEMA, TABLES, rewrite, splitmix

import tensorflow as tf  # isort: skip


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
