"""`Schema`: its rules, its text form, and what training days fit into it."""

import dataclasses
import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlen_cam2.cli import UserError
from dlen_cam2.schema import CAUSES, SIDES, TRANSFORMS, Feature, Schema, Task
from dlen_cam2.schema_pbtxt import FILE, dumps, load, loads, save
from pipelines import dataset

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6) | st.sampled_from(
    ['"', "'", "\n", "\\", "a:b", "快手", "😀", "\t\r", "#", "\x00", "\u2028"])
REAL = st.floats(-1e300, 1e300, allow_nan=False) | st.sampled_from([1 / 3, 1e-310, -0.1, 2.5e17])
POSITIVE = st.floats(1e-300, 1e300, allow_nan=False) | st.just(1 / 3)


@st.composite
def categorical(draw, dtype):
    kind = {"dtype": dtype, "width": draw(st.integers(1, 64))}
    hashed = draw(st.booleans())
    if dtype == "int" or hashed:
        return kind | {"hashed": hashed, "size": draw(st.integers(1, 2**31))}
    return kind | {"vocabulary": tuple(draw(st.lists(TEXT, min_size=1, max_size=5, unique=True)))}


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
    "a vocabulary is for string features": lambda: ints(vocabulary=("a",)),
    "vocabulary .* not hashed": lambda: strings(hashed=True),
    "vocabulary .* have no size": lambda: strings(size=2),
    "vocabulary must hold each value once": lambda: strings(vocabulary=("a", "b", "a")),
    "must not hold the empty string": lambda: strings(vocabulary=("a", "")),
    "size must be at least 1": lambda: ints(size=0),
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
    return {"days": {day: dataset._statistics(schema, table) for day, table in tables.items()}}


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
