"""`Schema`: its rules, its text form, and what training days fit into it."""

import dataclasses
import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlen_cam2 import data
from dlen_cam2.data.preprocessing import Indexer
from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.schema.columns import CAUSES, SIDES, TRANSFORMS
from dlen_cam2.schema.pbtxt import FILE, dumps, load, loads, save
from dlen_cam2.utils.errors import UserError
from pipelines.writer import dataset
from pipelines.writer.shards import Form
from pipelines.writer.statistics import Statistics

import tensorflow as tf  # isort: skip

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


def ints(name="f", **changes):
    return Feature(name, **({"dtype": "int", "side": "user", "cause": "content", "size": 3, "width": 2} | changes))


def floats(name="f", **changes):
    return Feature(name, "float", **({"side": "user", "cause": "statistical"} | changes))


def strings(name="f", **changes):
    return Feature(name, "string", "user", "content", **({"width": 2, "vocabulary": ("a", "b")} | changes))


RULES = {
    "name must not be empty": lambda: ints(""),
    "dtype must be one of": lambda: ints(dtype="bool"),
    "side must be one of": lambda: ints(side="author"),
    "cause must be one of": lambda: ints(cause="luck"),
    "max_length must be at least 1": lambda: ints(max_length=0),
    "float feature must be single-valued": lambda: floats(max_length=2),
    "float feature has no vocabulary": lambda: floats(width=4),
    "float feature has no .*size": lambda: floats(size=4),
    "float feature has no .*table": lambda: floats(table="t"),
    "mean must be finite": lambda: floats(mean=math.nan),
    "std positive": lambda: floats(std=0.0),
    "and std positive": lambda: floats(std=math.inf),
    "width of a categorical feature": lambda: ints(width=0),
    "transform, mean and std are for float": lambda: ints(transform="log1p"),
    "transform must be one of": lambda: floats(transform="log"),
    "mean and std are for float features": lambda: strings(mean=1.0),
    "vocabulary must hold values of type int": lambda: ints(size=0, vocabulary=("a",)),
    "vocabulary must hold values of type str": lambda: strings(vocabulary=("a", 1)),
    "must not hold ids below 0": lambda: ints(size=0, vocabulary=(3, -1)),
    "is not hashed and .*: remove the tag hash_buckets .* or else min_count, oov": lambda: strings(hashed=True),
    "vocabulary .* has no size": lambda: strings(size=2),
    "vocabulary is not hashed and has no size": lambda: ints(min_count=1),
    "float feature has no vocabulary, size": lambda: floats(min_count=1),
    "float feature has no vocabulary, .* hash": lambda: floats(oov_buckets=1),
    "min_count and oov_buckets must be at least 0": lambda: strings(min_count=-1),
    "oov_buckets must be at least 0": lambda: strings(oov_buckets=-1),
    "oov_buckets are for features with a vocabulary: remove the tag, or else hash_buckets": lambda: ints(oov_buckets=4),
    "vocabulary must hold each value once": lambda: strings(vocabulary=("a", "b", "a")),
    "must not hold the empty string": lambda: strings(vocabulary=("a", "")),
    "size must be at least 1: .* needs the tag hash_buckets, or an int_domain": lambda: ints(size=0),
    "string feature needs a vocabulary or hashing": lambda: strings(vocabulary=(), size=5),
    "a task needs a name": lambda: Task(""),
    "weight must be finite": lambda: Task("t", weight=math.nan),
    "weight must be .*>= 0": lambda: Task("t", weight=-1.0),
    "positive_rate must be in": lambda: Task("t", positive_rate=1.5),
    "each column may be named once": lambda: Schema("s", (ints(), floats()), ()),
    "column may be named once.*'f'": lambda: Schema("s", (ints(),), (Task("t", label="f"),)),
    "column may be named once.*'t'": lambda: Schema("s", (), (Task("t"),), targets=("t",)),
    "each target may be named once": lambda: Schema("s", (floats(),), (), targets=("f", "f")),
    "each task may be named once": lambda: Schema("s", (), (Task("t", "a"), Task("t", "b"))),
    "keys must be among": lambda: Schema("s", (), (), keys={"customer": "id"}),
    "share the table 't'": lambda: Schema("s", (ints("a", table="t"), ints("b", table="t", width=9)), ()),
    "share the table 'a'": lambda: Schema("s", (ints("a"), strings("b", table="a")), ()),
    "min_count, oov_buckets and width must be equal": lambda: Schema(
        "s", (strings("a"), strings("b", table="a", oov_buckets=1)), ()
    ),
    "share the table 'a', so .*min_count": lambda: Schema(
        "s", (strings("a"), strings("b", table="a", min_count=2)), ()
    ),
    "one weight for each task": lambda: Schema("s", (), (Task("t"),)).weigh([1, 2]),
    "has no day 'x'": lambda: Schema("s", (), ()).fit({"days": {"d": {"rows": 1}}}, ["d", "x"]),
}


@pytest.mark.parametrize("message", RULES)
def test_a_broken_rule_is_one_error_that_says_what_was_received(message):
    with pytest.raises(UserError, match=message) as error:
        RULES[message]()
    assert "Received" in str(error.value)


def test_properties():
    assert (ints(size=9).rows, strings().rows, ints(table="t").table, ints("n").table) == (10, 3, "t", "n")
    assert ints(hashed=True, size=8).rows == 9
    assert [
        ints(side=s, cause=c).group for s, c in (("user", "content"), ("context", "context"), ("context", "content"))
    ] == ["user_content", "context", "context_content"]
    schema = Schema(
        "s", (ints("b"), floats("a"), ints("c")), (Task("t", mask="m"),), ("y", "a"), {"user": "b", "time": "ms"}
    )
    assert {g: [f.name for f in fs] for g, fs in schema.groups.items()} == {
        "user_content": ["b", "c"], "user_statistical": ["a"]}
    assert schema.columns == {"b": "int", "a": "float", "c": "int", "t": "int", "m": "int", "y": "float", "ms": "int"}


def test_select_keeps_order_and_weigh_sets_weights():
    schema = Schema("s", (ints("a"), floats("b"), strings("c")), (Task("t"), Task("u", weight=0.5)))
    assert schema.select() == schema
    some = schema.select(tasks=["u"], features=["c", "a"], without=["a"])
    assert ([f.name for f in some.features], some.task_names) == (["c"], ("u",))
    assert [f.name for f in schema.select(features=["c", "a"]).features] == ["a", "c"]
    assert [t.weight for t in schema.weigh([2, 3]).tasks] == [2.0, 3.0]
    assert schema.weigh([]) == schema
    for wrong in ({"tasks": ["x"]}, {"features": ["x"]}, {"without": ["x"]}):
        with pytest.raises(UserError, match=r"the schema 's' has no (task|feature) \['x'\]. Known"):
            schema.select(**wrong)


def statistics_of_days(schema, days):
    tables = {day: dataset._checked(schema, day, pa.table(columns)) for day, columns in days.items()}
    found = {day: Statistics(schema) for day in days}
    for day, table in tables.items():
        for start in range(0, max(1, len(table)), 9):  # shard by shard, as the writer does
            found[day].add(table.slice(start, 9))
    return {"days": {day: statistics.result() for day, statistics in found.items()}}


def test_fit_equals_numpy_on_the_rows_of_the_given_days():
    rng = np.random.default_rng(0)
    days = {}
    for day, rows in (("1", 7), ("2", 50), ("3", 400)):
        days[day] = {
            "heavy": rng.lognormal(2, 2, rows).astype(np.float32),
            "plain": rng.normal(5, 3 * rows, rows).astype(np.float32),
            "flat": np.full(rows, 0.1, np.float32),
            "t": rng.integers(0, 2, rows),
            "u": rng.integers(0, 2, rows),
            "m": rng.integers(0, 2, rows),
        }
    schema = Schema(
        "s", (floats("heavy", transform="log1p"), floats("plain"), floats("flat"), ints("i")),
        (Task("t"), Task("u", mask="m")),
    )
    for day, columns in days.items():
        columns["i"] = np.arange(len(days[day]["t"])) % 3
    fitted = schema.fit(statistics_of_days(schema, days), ["1", "3"])
    both = {name: np.concatenate([days["1"][name], days["3"][name]]).astype(float) for name in days["1"]}
    heavy, plain, flat, other = fitted.features
    assert (heavy.mean, heavy.std) == pytest.approx(
        (np.log1p(both["heavy"]).mean(), np.log1p(both["heavy"]).std()), rel=1e-12
    )
    assert (plain.mean, plain.std) == pytest.approx((both["plain"].mean(), both["plain"].std()), rel=1e-12)
    assert (flat.mean, flat.std) == (pytest.approx(np.float32(0.1)), 1.0)
    assert other == schema.features[3]
    assert fitted.tasks[0].positive_rate == pytest.approx(both["t"].mean(), rel=1e-14)
    assert fitted.tasks[1].positive_rate == pytest.approx((both["u"] * both["m"]).sum() / both["m"].sum(), rel=1e-14)
    assert loads(dumps(fitted)) == fitted


def test_fit_survives_days_without_rows_and_names_a_missing_column():
    schema = Schema("s", (floats(),), (Task("t"),))
    nothing = {"f": np.zeros(0, np.float32), "t": np.zeros(0, int)}
    statistics = statistics_of_days(schema, {"1": nothing, "2": {"f": np.float32([1, 3]), "t": [0, 1]}})
    fitted = schema.fit(statistics, ["1", "2"])
    assert (fitted.features[0].mean, fitted.features[0].std, fitted.tasks[0].positive_rate) == (2.0, 1.0, 0.5)
    assert schema.fit(statistics, ["1"]) == schema
    with pytest.raises(UserError, match="no moments of the float feature 'g'"):
        Schema("s", (floats("g"),), ()).fit(statistics, ["2"])


@pytest.mark.parametrize(
    "text", ["{", "<html>", "feature { name: 3 }", "hello: 1", "feature { colour: 1 }", "\x00\x01"]
)
def test_a_file_that_is_no_schema_is_named(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match=r"schema\.pbtxt: not a tensorflow-metadata schema. Received"):
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
    with pytest.raises(UserError, match="feature 'x' must be tagged with one side: and one cause:.*" + received):
        loads(f'feature {{ name: "x" type: FLOAT annotation {{ {lines} }} }}')


@pytest.mark.parametrize(("old", "new"), [
    ("min_count:2", "min_cuont:2"), ("embedding_width:2", "embeding_width:2"), ("task:t", "tasks:t"),
])
def test_a_tag_that_is_almost_one_of_ours_is_named(old, new):
    text = dumps(Schema("s", (learned(),), (Task("t"),)))
    assert old in text
    tag, known = (tag.partition(":")[0] for tag in (new, old))
    with pytest.raises(UserError, match=f"the tag '{tag}' is not known, but '{known}' is. Received tags.*Known: cau"):
        loads(text.replace(old, new))


def test_other_tags_of_a_column_are_left_to_other_readers():
    text = dumps(Schema("s", (floats(),), (Task("t"),)))
    assert loads(text.replace('tag: "side:user"', 'tag: "colour:red"\n    tag: "side:user"')) == loads(text)


def test_numpy_numbers_round_trip():
    schema = Schema("s", (floats(mean=np.float64(0.5), std=np.float64(2)),), (Task("t", weight=np.float64(2)),))
    assert loads(dumps(schema)) == schema
    numbers = (schema.features[0].mean, schema.features[0].std, schema.tasks[0].weight, schema.tasks[0].positive_rate)
    assert {type(n) for n in numbers} == {float}


def test_a_mask_may_be_the_label_of_another_task():
    schema = Schema("s", (), (Task("click"), Task("buy", label="bought", mask="click"), Task("keep", mask="bought")))
    assert schema.columns == {"click": "int", "bought": "int", "keep": "int"}
    assert loads(dumps(schema)) == schema
    assert schema.select(tasks=["buy"]).columns == {"bought": "int", "click": "int"}
    columns = {"click": [1, 1, 0, 1], "bought": [1, 0, 0, 1], "keep": [1, 0, 0, 0]}
    fitted = schema.fit(statistics_of_days(schema, {"1": columns}), ["1"])
    assert [t.positive_rate for t in fitted.tasks] == [3 / 4, 2 / 3, 1 / 2]
    with pytest.raises(UserError, match=r"each column may be named once. Received more than once: \['a'\]"):
        Schema("s", (ints("a"),), (Task("t", mask="a"),))


def test_an_empty_file_is_no_schema():
    with pytest.raises(UserError, match="the schema must be tagged dataset:NAME. Received"):
        loads("")


def test_fit_names_a_task_without_statistics():
    with pytest.raises(UserError, match="'t'"):
        Schema("s", (), (Task("t"),)).fit({"days": {"1": {"rows": 3, "tasks": {}, "features": {}}}}, ["1"])


# === Learned vocabularies ===

def learned(name="f", dtype="string", **changes):
    return Feature(name, dtype, "user", "content", **({"width": 2, "min_count": 2} | changes))


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
    with pytest.raises(UserError, match="no counts of the feature 'b'"):
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
