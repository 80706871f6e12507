"""Vocabularies that are learned from the training days."""

import dataclasses
import json

import pyarrow as pa
import pytest

from dlen_cam2 import data
from dlen_cam2.data.preprocessing import Indexer
from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.schema.pbtxt import dumps, load, loads
from dlen_cam2.utils.errors import UserError
from pipelines.writer import dataset
from pipelines.writer.shards import Form

import tensorflow as tf  # isort: skip
from tests.support.features import ints, learned, strings


@pytest.mark.parametrize(("dtype", "counts", "wanted"), [
    ("string", {"b": 3, "a": 3, "c": 2, "rare": 1, "": 99, "快": 7}, ("快", "a", "b", "c")),
    ("int", {10: 3, 9: 3, 2**62 + 1: 2, 8: 1, -1: 99, -(2**63): 50, 0: 4}, (0, 9, 10, 2**62 + 1)),
])
def test_a_vocabulary_is_what_occurs_often_most_frequent_first_then_by_value(dtype, counts, wanted):
    schema = Schema("s", (learned(dtype=dtype, oov_buckets=3), strings("given")), ())
    for some in (counts, dict(reversed(counts.items()))):  # in whatever order it was counted
        found = schema.learn({"f": some}).features
        assert found[0].vocabulary == wanted and found[1] == schema.features[1]
    assert (schema.features[0].rows, found[0].rows) == (1 + 3, 1 + 4 + 3)
    again = schema.learn({"f": counts})
    assert again.learn({"f": {wanted[-1]: 2}}).features[0].vocabulary == wanted[-1:]  # nothing stays of other days
    assert loads(dumps(again)) == again and loads(dumps(schema)) == schema
    assert Schema.from_dict(json.loads(json.dumps(dataclasses.asdict(again)))) == again


def test_single_values_that_share_a_table_count_together_and_lists_only_among_themselves():
    counts = {"a": {"x": 1, "y": 5}, "b": {"x": 1, "z": 1}, "l": {"z": 9, "l": 2}, "m": {"l": 1, "z": 1}}
    a, b, one, other = (learned(n, table="t", max_length=1 + 3 * (n in "lm")) for n in "ablm")
    for features, wanted in (((a, b, one), ("y", "x")), ((one, a), ("y",)), ((one, other), ("z", "l")), ((b,), ())):
        found = Schema("s", features, ()).learn(counts).features
        assert [f.vocabulary for f in found] == [wanted] * len(features)
    with pytest.raises(UserError, match="feature 'b' must have counts"):
        Schema("s", (a, b), ()).learn({"a": counts["a"]})


@pytest.mark.parametrize("buckets", [0, 1, 4])
@pytest.mark.parametrize(("dtype", "values", "missing"), [("string", ["b", "a"], ""), ("int", [2**62 + 1, 3], -1)])
def test_values_outside_the_vocabulary_are_unknown_or_share_rows(dtype, values, missing, buckets):
    single, listed = (learned(n, dtype, table="t", oov_buckets=buckets, max_length=m) for n, m in (("f", 1), ("l", 2)))
    schema = Schema("s", (single, listed), ()).learn({"f": {values[0]: 9, values[1]: 8}})
    strange = [f"w{i}" for i in range(60)] if dtype == "string" else [10**6 + i for i in range(60)]
    column = tf.constant([*values, missing, *strange], tf.string if dtype == "string" else tf.int64)
    found = Indexer(schema)({"f": column, "l": tf.stack([column, column[::-1]], 1)})["user_content"]
    rows = found["f"].numpy().tolist()
    assert rows[:3] == [1, 2, 0]
    assert set(rows[3:]) == (set(range(3, 3 + buckets)) if buckets else {0}) and max(rows) < schema.features[0].rows
    in_list = [-1 if i == 2 else row for i, row in enumerate(rows)]  # where a list's missing value is padding
    assert found["l"].numpy().tolist() == [list(pair) for pair in zip(in_list, reversed(in_list), strict=True)]
    blank = Indexer(Schema("s", (single,), ()))({"f": column})["user_content"]["f"].numpy()  # before it has learned
    assert blank[2] == 0 and (blank > 0).sum() == (62 if buckets else 0) and blank.max() <= buckets


@pytest.fixture(scope="module")
def days_of_words(tmp_path_factory):
    """Three days, the last with words of its own; a shard may hold any part of a day's rows."""
    directory = tmp_path_factory.mktemp("words") / "set"
    schema = Schema("s", (
        learned("word"), learned("words", table="word", max_length=3), learned("id", "int", min_count=3),
        learned("last", "int", table="id", min_count=3), ints("plain"), learned("tags", max_length=2, oov_buckets=1),
    ), (Task("t"),))
    days = {}
    for day, (words, ids) in {"1": ("aabc", [5, 5, 7, -1]), "2": ("bbc", [7, 8, 8]), "3": ("zzz", [9, 9, 9])}.items():
        days[day] = pa.table({
            "word": list(words), "words": pa.array([["q", w, ""] for w in words], pa.list_(pa.string())), "id": ids,
            "last": ids[::-1], "plain": ids, "tags": pa.array([[w] for w in words], pa.list_(pa.string())),
            "t": [0] * len(words),
        })
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "ROWS_PER_SHARD", 2)
        statistics = dataset.write_dataset(directory, schema, days.items(), {}, form=Form("block"))
    return directory, schema, statistics


@pytest.mark.parametrize(("days", "word", "ids", "tags"), [
    (["1"], ("a",), (5,), ("a",)),
    (["2"], ("b",), (8,), ("b",)),
    (["1", "2"], ("b", "a", "c"), (5, 7, 8), ("b", "a", "c")),
    (["2", "3"], ("z", "b"), (9, 8), ("z", "b")),
])
def test_vocabularies_are_fitted_on_the_given_days_only(days_of_words, days, word, ids, tags):
    directory, schema, _ = days_of_words
    for known in (schema, load(directory)):  # what was learned before does not matter
        found = {f.name: f.vocabulary for f in data.fit(directory, known, days).features}
        assert found == {"word": word, "words": word, "id": ids, "last": ids, "plain": (), "tags": tags}
    only_lists = data.fit(directory, schema.select(features=["words"]), ["1"]).features[0]
    assert only_lists.vocabulary == ("q", "a")


def test_the_stored_vocabularies_are_of_all_days_but_the_last(days_of_words):
    directory, schema, statistics = days_of_words
    assert statistics["vocabularies_of"] == ["1", "2"]
    names = [f.name for f in schema.features if f.min_count]
    assert load(directory) == schema.learn(data.counts(directory, ["1", "2"], names))
    assert data.counts(directory, ["1"], names)["word"] == {"a": 2, "b": 1, "c": 1}
    assert data.counts(directory, ["1", "3"], names)["id"] == {5: 2, 7: 1, -1: 1, 9: 3}
    with pytest.raises(UserError, match="has no day '4'"):
        data.fit(directory, schema, ["1", "4"])


@pytest.mark.parametrize(
    "damage", [lambda p: p.unlink(), lambda p: p.write_bytes(b"PAR1"), lambda p: p.write_bytes(b"")]
)
def test_counts_that_are_absent_or_damaged_are_named(tmp_path, damage):
    schema = Schema("s", (learned(),), (Task("t"),))
    dataset.write_dataset(tmp_path / "set", schema, [("1", pa.table({"f": ["a"], "t": [0]}))], {}, form=Form("block"))
    damage(tmp_path / "set" / "1" / "counts.parquet")
    with pytest.raises(UserError, match=r"1/counts\.parquet .*Received"):
        data.fit(tmp_path / "set", schema, ["1"])


def test_a_key_keeps_its_type_where_its_feature_is_left_out():
    texts = Schema(
        "log", (Feature("who", "string", "user", "content", size=8, hashed=True, width=2),), (Task("click"),),
        keys={"user": "who", "item": "what", "time": "ts"}, text_keys=("what",),
    )
    for schema in (texts, texts.select(without=["who"]), dataclasses.replace(texts, features=())):
        assert schema.columns == {**{f.name: "string" for f in schema.features}, "click": "int", "who": "string",
                                  "what": "string", "ts": "int"}
        assert loads(dumps(schema)) == schema
        assert Schema.from_dict(json.loads(json.dumps(dataclasses.asdict(schema)))) == schema
