"""Schemas: their rules, what is selected and fitted."""

import math

import numpy as np
import pyarrow as pa
import pytest

from dlen_cam2.schema import Schema, Task
from dlen_cam2.schema.pbtxt import dumps, loads
from dlen_cam2.utils.errors import UserError
from pipelines.writer import dataset
from pipelines.writer.statistics import Statistics
from tests.support.features import floats, ints, strings

RULES = {
    "name must not be empty": lambda: ints(""),
    "dtype must be one of": lambda: ints(dtype="bool"),
    "side must be one of": lambda: ints(side="author"),
    "cause must be one of": lambda: ints(cause="luck"),
    "max_length must be at least 1": lambda: ints(max_length=0),
    "float feature must be single-valued": lambda: floats(max_length=2),
    "float feature must have no vocabulary": lambda: floats(width=4),
    "float feature must have no .*size": lambda: floats(size=4),
    "float feature must have no .*table": lambda: floats(table="t"),
    "mean must be finite": lambda: floats(mean=math.nan),
    "std positive": lambda: floats(std=0.0),
    "and std positive": lambda: floats(std=math.inf),
    "width of a categorical feature": lambda: ints(width=0),
    "only a float feature may have transform": lambda: ints(transform="log1p"),
    "transform must be one of": lambda: floats(transform="log"),
    "may have transform, mean and std": lambda: strings(mean=1.0),
    "vocabulary must hold values of type int": lambda: ints(size=0, vocabulary=("a",)),
    "vocabulary must hold values of type str": lambda: strings(vocabulary=("a", 1)),
    "must not hold ids below 0": lambda: ints(size=0, vocabulary=(3, -1)),
    "must have no hash and .*: remove the tag hash_buckets .* or else min_count, oov": lambda: strings(hashed=True),
    "vocabulary .* no size": lambda: strings(size=2),
    "vocabulary must have no hash and no size": lambda: ints(min_count=1),
    "float feature must have no vocabulary, size": lambda: floats(min_count=1),
    "float feature must have no vocabulary, .* hash": lambda: floats(oov_buckets=1),
    "min_count and oov_buckets must be at least 0": lambda: strings(min_count=-1),
    "oov_buckets must be at least 0": lambda: strings(oov_buckets=-1),
    "oov_buckets need a vocabulary: remove the tag, or give min_count": lambda: ints(oov_buckets=4),
    "vocabulary must hold each value once": lambda: strings(vocabulary=("a", "b", "a")),
    "must not hold the empty string": lambda: strings(vocabulary=("a", "")),
    "size must be at least 1: .* needs the tag hash_buckets, or an int_domain": lambda: ints(size=0),
    "string feature needs a vocabulary or hashing": lambda: strings(vocabulary=(), size=5),
    "a task must have a name": lambda: Task(""),
    "weight must be finite": lambda: Task("t", weight=math.nan),
    "weight must be .*>= 0": lambda: Task("t", weight=-1.0),
    "positive_rate must be in": lambda: Task("t", positive_rate=1.5),
    "each column may be named only once": lambda: Schema("s", (ints(), floats()), ()),
    "column may be named only once.*'f'": lambda: Schema("s", (ints(),), (Task("t", label="f"),)),
    "column may be named only once.*'t'": lambda: Schema("s", (), (Task("t"),), targets=("t",)),
    "each target may be named only once": lambda: Schema("s", (floats(),), (), targets=("f", "f")),
    "each task may be named only once": lambda: Schema("s", (), (Task("t", "a"), Task("t", "b"))),
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
    with pytest.raises(UserError, match="no moments of the feature 'g'"):
        Schema("s", (floats("g"),), ()).fit(statistics, ["2"])


def test_a_mask_may_be_the_label_of_another_task():
    schema = Schema("s", (), (Task("click"), Task("buy", label="bought", mask="click"), Task("keep", mask="bought")))
    assert schema.columns == {"click": "int", "bought": "int", "keep": "int"}
    assert loads(dumps(schema)) == schema
    assert schema.select(tasks=["buy"]).columns == {"bought": "int", "click": "int"}
    columns = {"click": [1, 1, 0, 1], "bought": [1, 0, 0, 1], "keep": [1, 0, 0, 0]}
    fitted = schema.fit(statistics_of_days(schema, {"1": columns}), ["1"])
    assert [t.positive_rate for t in fitted.tasks] == [3 / 4, 2 / 3, 1 / 2]
    with pytest.raises(UserError, match=r"each column may be named only once. Received more than once: \['a'\]"):
        Schema("s", (ints("a"),), (Task("t", mask="a"),))


def test_fit_names_a_task_without_statistics():
    with pytest.raises(UserError, match="'t'"):
        Schema("s", (), (Task("t"),)).fit({"days": {"1": {"rows": 3, "tasks": {}, "features": {}}}}, ["1"])
