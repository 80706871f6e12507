"""Schemas as files of TensorFlow Metadata: round trips, and files that are damaged."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.schema.columns import CAUSES, SIDES, TRANSFORMS
from dlen_cam2.schema.pbtxt import FILE, dumps, load, loads, save
from dlen_cam2.utils.errors import UserError
from tests.support.features import floats, learned

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6) | st.sampled_from(
    ['"', "'", "\n", "\\", "a:b", "快手", "😀", "\t\r", "#", "\x00", "\u2028"])
REAL = st.floats(-1e300, 1e300, allow_nan=False) | st.sampled_from([1 / 3, 1e-310, -0.1, 2.5e17])
POSITIVE = st.floats(1e-300, 1e300, allow_nan=False) | st.just(1 / 3)


@st.composite
def categorical(draw, dtype):
    kind = {"dtype": dtype, "width": draw(st.integers(1, 64))}
    how = draw(st.sampled_from(["plain", "hashed", "vocabulary", "learned"]))
    if how == "hashed" or how == "plain" and dtype == "int":
        return kind | {"hashed": how == "hashed", "size": draw(st.integers(1, 2**31))}
    values = st.integers(0, 2**63 - 1) if dtype == "int" else TEXT
    least = draw(st.integers(1, 2**31)) if how == "learned" else 0
    return kind | {
        "vocabulary": tuple(draw(st.lists(values, min_size=0 if least else 1, max_size=5, unique=True))),
        "min_count": least, "oov_buckets": draw(st.integers(0, 2**31)),
    }


@st.composite
def schemas(draw):
    """Any valid schema: shared tables, masks, negative tasks, keys and targets that are features or are not."""
    names = draw(st.lists(TEXT, min_size=12, max_size=12, unique=True))
    take = iter(names)
    features = []
    for _ in range(draw(st.integers(0, 5))):
        name = next(take)
        common = {"side": draw(st.sampled_from(SIDES)), "cause": draw(st.sampled_from(CAUSES))}
        shared = [f for f in features if not f.is_numeric]
        kind = draw(st.sampled_from(["int", "float", "string", "shared"]))
        if kind == "shared" and shared:
            first = draw(st.sampled_from(shared))
            feature = dataclasses.replace(first, name=name, **common, max_length=draw(st.integers(1, 9)))
        elif kind in ("int", "string"):
            table = draw(st.just("") | TEXT.map(lambda t: "table " + t))
            table = "" if any(f.table == table or f.table == name for f in features) else table
            feature = Feature(
                name, **common, **draw(categorical(kind)), table=table, max_length=draw(st.integers(1, 9))
            )
        else:
            transform = draw(st.sampled_from(TRANSFORMS))
            feature = Feature(name, "float", **common, transform=transform, mean=draw(REAL), std=draw(POSITIVE))
        features.append(feature)
    mask = draw(st.sampled_from(["", next(take)]))
    tasks = [
        Task(draw(TEXT) + str(i), next(take), draw(st.sampled_from(["", mask])), draw(st.booleans()),
             draw(POSITIVE | st.just(0.0)), draw(st.floats(0, 1)))
        for i in range(draw(st.integers(0, 2)))
    ]
    targets = [next(take)] * draw(st.integers(0, 1)) + [f.name for f in features if f.is_numeric][
        : draw(st.integers(0, 2))
    ]
    columns = [f.name for f in features] + targets + [next(take)]
    keys = {
        r: draw(st.sampled_from(columns))
        for r in draw(st.permutations(["user", "item", "time"]))[: draw(st.integers(0, 3))]
    }
    return Schema(draw(TEXT), tuple(features), tuple(tasks), tuple(draw(st.permutations(targets))), keys)


@pytest.mark.slow
@settings(max_examples=250, deadline=None)
@given(schemas())
def test_round_trips(schema):
    text = dumps(schema)
    assert loads(text) == schema
    assert dumps(loads(text)) == text
    assert Schema.from_dict(json.loads(json.dumps(dataclasses.asdict(schema)))) == schema
    assert loads(text).columns == schema.columns


def test_round_trip_through_a_file(tmp_path):
    schema = Schema(
        "日", (Feature("s", "string", "user", "content", vocabulary=("a\nb", '"q"', "é"), width=3),), (Task("t"),)
    )
    save(schema, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [FILE]
    assert load(tmp_path) == schema


@pytest.mark.parametrize(
    "text", ["{", "<html>", "feature { name: 3 }", "hello: 1", "feature { colour: 1 }", "\x00\x01"]
)
def test_a_file_that_is_no_schema_is_named(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match=r"schema\.pbtxt: the text must be a tensorflow-metadata schema. Received"):
        load(tmp_path)


def test_an_absent_or_binary_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"schema\.pbtxt cannot be read.*Received"):
        load(tmp_path)
    (tmp_path / FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"schema\.pbtxt cannot be read.*Received"):
        load(tmp_path)


@pytest.mark.parametrize("tags", ["", 'tag: "colour:red"', 'tag: "weight:2"'])
def test_a_column_whose_tags_say_nothing_is_refused(tags):
    with pytest.raises(UserError, match=r"column 'x' must be tagged as a feature.*Received tags"):
        loads(f'feature {{ name: "x" type: INT annotation {{ {tags} }} }}')


@pytest.mark.parametrize(("old", "new", "message"), [
    ("mean:0.0", "mean:zero", "column 'f': tag mean must be a number. Received: 'zero'"),
    ("side:user", "side:author", "feature 'f': side must be one of .*Received: 'author'"),
    ("type: FLOAT", "type: STRUCT", "feature 'f': type must be INT, FLOAT or BYTES. Received"),
    ("std:1.0", "std:-1", "feature 'f': .*std positive. Received"),
    ("mean:0.0", "mean:nan", "column 'f': tag mean must be finite. Received: 'nan'"),
    ("std:1.0", "std:inf", "column 'f': tag std must be finite. Received: 'inf'"),
    ("weight:1.0", "weight:inf", "column 't': tag weight must be finite. Received: 'inf'"),
    ("positive_rate:0.0", "positive_rate:nan", "column 't': tag positive_rate must be finite. Received: 'nan'"),
    ("dataset:s", "set:s", r"the schema must be tagged dataset:NAME. Received tags: \['set:s'\]"),
    ("transform:log1p", "transform:log", "feature 'f': transform must be one of .*Received: 'log'"),
])
def test_a_damaged_tag_is_named(old, new, message):
    text = dumps(Schema("s", (floats(transform="log1p"),), (Task("t"),)))
    assert old in text
    with pytest.raises(UserError, match=message):
        loads(text.replace(old, new))


@pytest.mark.parametrize("tags, received", [
    (["side:user", "side:item", "cause:content"], r"Received side: \['user', 'item'\]"),
    (["side:user", "cause:content", "cause:statistical"], r"Received cause: \['content', 'statistical'\]"),
    (["side:user"], r"Received cause: \[\]"),
    (["cause:content"], r"Received side: \[\]"),
])
def test_a_feature_belongs_to_one_group(tags, received):
    """CAM2's branches divide the features, so one of two groups, or of none, has no place."""
    lines = " ".join(f'tag: "{tag}"' for tag in tags)
    with pytest.raises(UserError, match="'x' must be tagged with exactly one side: and one cause:.*" + received):
        loads(f'feature {{ name: "x" type: FLOAT annotation {{ {lines} }} }}')


@pytest.mark.parametrize(("old", "new"), [
    ("min_count:2", "min_cuont:2"), ("embedding_width:2", "embeding_width:2"), ("task:t", "tasks:t"),
])
def test_a_tag_that_is_almost_one_of_ours_is_named(old, new):
    text = dumps(Schema("s", (learned(),), (Task("t"),)))
    assert old in text
    tag, known = (tag.partition(":")[0] for tag in (new, old))
    with pytest.raises(UserError, match=f"the tag '{tag}' is not known. Did you mean .{known}.. Received.*Known: cau"):
        loads(text.replace(old, new))


def test_other_tags_of_a_column_are_left_to_other_readers():
    text = dumps(Schema("s", (floats(),), (Task("t"),)))
    assert loads(text.replace('tag: "side:user"', 'tag: "colour:red"\n    tag: "side:user"')) == loads(text)


def test_numpy_numbers_round_trip():
    schema = Schema("s", (floats(mean=np.float64(0.5), std=np.float64(2)),), (Task("t", weight=np.float64(2)),))
    assert loads(dumps(schema)) == schema
    numbers = (schema.features[0].mean, schema.features[0].std, schema.tasks[0].weight, schema.tasks[0].positive_rate)
    assert {type(n) for n in numbers} == {float}


def test_an_empty_file_is_no_schema():
    with pytest.raises(UserError, match="the schema must be tagged dataset:NAME. Received"):
        loads("")
