"""How features are computed, and when feedback is known: the rules, and their tags."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlen_cam2.schema import Computed, Feature, Known, Schema, Task
from dlen_cam2.schema.computed import KINDS
from dlen_cam2.schema.pbtxt import dumps, loads
from dlen_cam2.utils.errors import UserError

DAY = 86_400
RATE = {"kind": "rate", "of": "click"}


def feature(c, name="own", **how):
    if c.kind == "sequence":
        return Feature(name, "int", "user", "content", computed=c, **{"size": 9, "width": 2, "max_length": 4} | how)
    return Feature(name, **{"dtype": "float", "side": "user", "cause": "statistical"} | how, computed=c)


def schema_of(*computed, known=None, targets=("price",)):
    features = tuple(feature(c, f"own {n}") for n, c in enumerate(computed))
    return Schema("shop", features, (Task("click"), Task("buy", mask="shown"), Task("stars", kind="regression")),
                  targets, known=known or {})


def both_ways(schema):
    """The schema after each of its two ways to a file."""
    return loads(dumps(schema)), Schema.from_dict(json.loads(json.dumps(dataclasses.asdict(schema))))


# === Round trips ===

@pytest.mark.parametrize("c", [
    Computed("count", ("who",)), Computed("count", ("who", "brand", "tab"), of="buy"),
    Computed("count", ("who",), over="10m"), Computed("count", ("who",), over="90s"),
    Computed("count", ("who",), over="session 30m"), Computed("sum", ("who",), of="buy", value="price", over="400d"),
    Computed("sum", ("who",), value="price", over="last 7"), Computed("mean", ("who",), value="price", missing=-2.5),
    Computed("mean", ("who",), of="buy", value="price", over="last 1", missing=1 / 3),
    Computed("rate", ("who",), of="click", strength=12.5, start=1 / 3),
    Computed("rate", ("who",), of="buy", among="click", prior="0.25"),
    Computed("rate", ("who", "brand"), of="click", prior="own 0", over="6h"),
    Computed("rate", ("who",), value="played", among="offered", strength=1e-9, start=1e-3),
    Computed("rate", ("who",), of="click", value="played", among="offered", strength=1e15),
    Computed("last", ("who",), value="price", missing=1e-7), Computed("last", ("who",), of="buy", value="price"),
    Computed("age", ("who",), of="buy", missing=0), Computed("age", ("who",), of="buy", over="7d", missing=1e9),
    Computed("distinct", ("who",), of="click", value="brand", over="1d"),
    Computed("distinct", ("who",), value="brand", over="last 20"), Computed("same", ("who",), value="brand"),
    Computed("same", ("who",), of="buy", value="brand", over="last 3"),
    Computed("sequence", ("who",), of="click", value="what"), Computed("count", ("größe m²", "a:b"), of="ist da"),
], ids=str)
def test_every_attribute_comes_back_from_a_file(c):
    schema = schema_of(Computed("rate", ("who",), of="click"), c)
    for found in both_ways(schema):
        assert found == schema
        assert found.features[1].computed == c and type(found.features[1].computed) is Computed
        assert isinstance(found.features[1].computed.by, tuple)


@pytest.mark.parametrize("by", [("a,b",), ("a", "b,c"), (" a",), ("a", "b ")])
def test_a_key_of_any_name_comes_back_from_a_file_or_is_refused(by):
    """Commas stand between the columns of a key: a name that has one must not become two columns in silence."""
    try:
        schema = schema_of(Computed("count", by))
        text = dumps(schema)
    except UserError as error:
        assert repr(next(name for name in by if not name.isalpha())) in str(error)
    else:
        assert loads(text) == schema


NAMES = st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=1, max_size=5)
OVER = st.sampled_from(["all", "1s", "10m", "6h", "7d", "400d", "last 1", "last 20", "session 30m", "session 12h"])
NUMBERS = st.floats(1e-300, 1e300, allow_nan=False)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.fixed_dictionaries(
    {"kind": st.sampled_from(KINDS), "by": st.lists(NAMES, min_size=1, max_size=3, unique=True)},
    optional={"of": NAMES, "value": NAMES, "among": NAMES, "over": OVER, "strength": NUMBERS, "start": st.floats(0, 1),
              "prior": st.floats(0.01, 0.99).map(repr), "missing": st.floats(-1e300, 1e300)}))
def test_what_can_be_declared_comes_back_from_a_file(how):
    try:
        schema = schema_of(Computed(**how))
    except UserError as error:
        assert "Received: " in str(error)
        return
    assert both_ways(schema) == (schema, schema)


@pytest.mark.parametrize("known", [
    Known(), Known(at="bought_at"), Known(at="bought_at", within=DAY), Known(at="bought_at", within=30 * DAY),
    Known(at="bought_at", within=0.5), Known(after="dwell s"), Known(seconds=1), Known(seconds=0.25),
    Known(seconds=20 * DAY), Known(seconds=1_234_567), Known(seconds=3600.001),
], ids=str)
@pytest.mark.parametrize("column", ["click", "buy", "shown", "stars", "price"])
def test_when_feedback_is_known_comes_back_from_a_file(column, known):
    schema = schema_of(known={column: known})
    text, values = both_ways(schema)
    assert values == schema
    assert text == schema if known != Known() else text == dataclasses.replace(schema, known={})


def test_a_number_that_is_a_feature_and_a_target_keeps_both_tags():
    price = feature(Computed("sum", ("who",), value="bid"), "price")
    schema = Schema("s", (price,), (Task("click"),), ("price",), known={"price": Known(after="dwell")})
    assert both_ways(schema) == (schema, schema)


def test_what_has_its_default_has_no_tag():
    text = dumps(schema_of(Computed("rate", ("who", "brand"), of="click")))
    assert [tag for tag in ("value:", "among:", "over:", "strength:", "prior:", "start:", "missing:", "known")
            if f'"{tag}' in text] == []
    for tag in ("computed:rate", "by:who", "by:brand", "of:click"):
        assert f'tag: "{tag}"' in text


# === Rules ===

@pytest.mark.parametrize(("how", "message"), [
    ({"kind": "average"}, r"computed must be one of .*Received: 'average'"),
    ({"by": ()}, "by must name the columns of the key, each once. Received: ''"),
    ({"by": ("", "who")}, "by must name the columns of the key, each once. Received: ',who'"),
    ({"by": ("who", "who")}, "by must name the columns of the key, each once. Received: 'who,who'"),
    ({"over": "1w"}, "over must be all, a time such as 10m, 6h or 7d, last N, or session 30m. Received: '1w'"),
    ({"over": ""}, "over must be all, .*Received: ''"), ({"over": "last"}, "over must be all, .*Received: 'last'"),
    ({"over": "1.5h"}, "over must be all, .*Received: '1.5h'"),
    ({"over": "0m"}, "over must be at least 1 event or second, and at most 400 days. Received: '0m'"),
    ({"over": "401d"}, "over must be at least 1 event.*Received: '401d'"),
    ({"over": "session 0s"}, "over must be at least 1 event.*Received: 'session 0s'"),
    ({"kind": "same", "value": "brand", "over": "last 0"}, "over must be at least 1 event.*Received: 'last 0'"),
    ({"of": "buy", "over": "session 30m"}, "only a count of exposures may be over a session.*'session 30m'"),
    ({"kind": "age", "over": "session 30m"}, "only a count of exposures may be over a session.*'session 30m'"),
    ({"over": "session 13h"}, "only a count of .*whose pause is at most 12h. Received: 'session 13h'"),
    ({"kind": "same", "value": "brand", "over": "1h"}, "same must have over:last N, not a time. Received: '1h'"),
    ({"kind": "last", "value": "brand", "over": "1h"},
     "last must have no over: it is of the last events. Received: '1h'"),
    ({"kind": "last", "value": "brand", "over": "last 2"}, "last must have no over.*Received: 'last 2'"),
    ({"kind": "sequence", "value": "what", "over": "last 2"}, "sequence must have no over.*Received: 'last 2'"),
    ({"over": "last 3"}, "count must not be over the last events.*Received: 'last 3'"),
    ({"kind": "age", "over": "last 3"}, "age must not be over the last events.*Received: 'last 3'"),
    (RATE | {"over": "last 3"}, "rate must not be over the last events.*Received: 'last 3'"),
    ({"value": "price"}, "count must not have a value. Received: 'price'"),
    ({"kind": "age", "value": "price"}, "age must not have a value. Received: 'price'"),
    *(({"kind": kind}, f"{kind} must have a value. Received: ''")
      for kind in ("sum", "mean", "last", "distinct", "same", "sequence")),
    ({"among": "click"}, "only a rate may have among. Received: 'click'"),
    ({"prior": "0.5"}, "only a rate may have a prior. Received: '0.5'"),
    ({"kind": "rate"}, "a rate must be of a column. Received: 'exposures'"),
    ({"kind": "rate", "value": "played"}, "a rate of numbers must be among numbers. Received: ''"),
    (RATE | {"strength": 0}, "strength must be above 0. Received: 0.0"),
    (RATE | {"strength": float("inf")}, "strength must be above 0. Received: inf"),
    (RATE | {"strength": float("nan")}, "strength must be above 0. Received: nan"),
    (RATE | {"start": 1}, "start must be between 0 and 1. Received: 1.0"),
    (RATE | {"start": 0.0}, "start must be between 0 and 1. Received: 0.0"),
    (RATE | {"start": float("nan")}, "start must be between 0 and 1. Received: nan"),
    (RATE | {"prior": "1.5"}, "a prior that is a number must be between 0 and 1. Received: '1.5'"),
    (RATE | {"prior": "nan"}, "a prior that is a number must be between 0 and 1. Received: 'nan'"),
    ({"kind": "mean", "value": "price", "missing": float("nan")}, "missing must be finite. Received: nan"),
    ({"missing": 0}, "count must not have missing. Received: 0.0"),
    (RATE | {"missing": 0.5}, "rate must not have missing. Received: 0.5"),
    ({"kind": "sum", "value": "price", "missing": 1}, "sum must not have missing. Received: 1.0"),
], ids=str)
def test_a_rule_that_is_broken_is_named_with_the_feature_and_what_was_received(how, message):
    how = {"kind": "count", "by": ("who",)} | how
    with pytest.raises(UserError, match=message):
        Computed(**how)
    tags = [f"computed:{how['kind']}", *(f"by:{column}" for column in how["by"]),
            *(f"{name}:{value}" for name, value in how.items() if name not in ("kind", "by"))]
    with pytest.raises(UserError, match=f"feature 'own': {message}"):
        loads(tagged("own", tags))


def tagged(name, tags):
    """A schema of a click and a feature with these tags."""
    lines = "\n".join(f'tag: "{tag}"' for tag in sorted(tags))
    lines = f'tag: "side:user" tag: "cause:statistical" {lines}'
    return dumps(Schema("s", (), (Task("click"),))) + (
        f'feature {{ name: "{name}" type: FLOAT annotation {{ {lines} }} }}')


@pytest.mark.parametrize(("tags", "message"), [
    (["by:who"], r"the tag computed:KIND must stand beside \['by'\]. Received: none"),
    (["of:click", "over:1h"], r"the tag computed:KIND must stand beside \['of', 'over'\]. Received: none"),
    (["computed:count"], "by must name the columns of the key, each once. Received: ''"),
    (["computed:count", "computed:age", "by:who"], r".* each tag once. Received twice: \['computed'\]"),
    (["computed:rate", "by:who", "of:click", "strength:many"], "tag strength must be a number. Received: 'many'"),
    (["computed:rate", "by:who", "of:click", "start:half"], "tag start must be a number. Received: 'half'"),
    (["computed:age", "by:who", "missing:never"], "tag missing must be a number. Received: 'never'"),
])
def test_tags_that_say_nothing_are_named(tags, message):
    with pytest.raises(UserError, match=f"feature 'own': {message}"):
        loads(tagged("own", tags))


@pytest.mark.parametrize("tag", ["computd:count", "amongst:click", "strenght:3", "known_aftr:x", "knwon_at:x"])
def test_a_tag_that_is_almost_one_of_these_is_named(tag):
    with pytest.raises(UserError, match=f"the tag '{tag.partition(':')[0]}' is not known. Did you mean"):
        loads(tagged("own", ["computed:count", "by:who", tag]))


@pytest.mark.parametrize(("c", "how", "message"), [
    (Computed("sequence", ("who",), value="what"), {"max_length": 1}, "a list of ids or texts.*Received: 'int'"),
    (Computed("count", ("who",)), {"dtype": "int", "size": 9, "width": 2}, "a computed count must be FLOAT.*'int'"),
    (Computed("same", ("who",), value="brand"), {"dtype": "int", "size": 9, "width": 2}, "same must be FLOAT.*'int'"),
    (Computed("last", ("who",), value="what"), {"dtype": "int", "size": 9, "width": 2, "max_length": 3},
     "a computed last must be single-valued. Received: 3"),
    (Computed("rate", ("who",), of="click"), {"transform": "log1p"}, "the transform logit, or none. Received: 'log1p'"),
])
def test_a_feature_has_the_type_of_what_is_computed(c, how, message):
    with pytest.raises(UserError, match=f"feature 'own': .*{message}"):
        feature(c, **how)


# === When feedback is known ===

@pytest.mark.parametrize(("how", "message"), [
    ({"seconds": -1}, "must be at least 0 seconds. Received: -1.0"),
    ({"seconds": float("nan")}, "must be at least 0 seconds. Received: nan"),
    ({"at": "t", "within": -1}, "must be at least 0 seconds. Received: -1.0"),
    ({"at": "t", "within": float("inf")}, "must be at least 0 seconds. Received: inf"),
    ({"at": "t", "after": "s"}, "either at a time, or after a column or number of seconds. Received: .*at='t'"),
    ({"at": "t", "seconds": 5}, "either at a time, or after a column or number of seconds. Received: .*seconds=5.0"),
    ({"after": "s", "seconds": 5}, "either at a time, or after .*Received: .*after='s'"),
    ({"within": 5}, "within must stand beside known_at, the time that it limits. Received: within:5"),
    ({"after": "s", "within": 5}, "within must stand beside known_at.*Received: within:5, and no known_at"),
])
def test_when_feedback_is_known_has_rules(how, message):
    with pytest.raises(UserError, match=message):
        Known(**how)


def labelled(*tags):
    lines = " ".join(f'tag: "{tag}"' for tag in tags)
    return dumps(schema_of()).replace('tag: "task:click"', f'tag: "task:click" {lines}')


@pytest.mark.parametrize(("tags", "message"), [
    (["known_at:t", "known_after:5m"], ".* either at a time, or after a column or number of seconds. Received: .*'t'"),
    (["known_at:t", "known_at:u"], r"it must be said once when it is known. Received twice: \['known_at'\]"),
    (["known_after:5m", "within:1h"], "within must stand beside known_at.*Received: .*3600"),
    (["known_at:t", "within:soon"], "tag within must be a time such as 24h, or seconds. Received: 'soon'"),
    (["known_at:t", "within:-5"], "tag within must be a time such as 24h, or seconds. Received: '-5'"),
])
def test_tags_of_when_feedback_is_known_name_the_column(tags, message):
    with pytest.raises(UserError, match=f"column 'click': {message}"):
        loads(labelled(*tags))


@pytest.mark.parametrize(("text", "seconds"), [
    ("90", 90), ("90s", 90), ("1.5h", 5400), ("10m", 600), ("7d", 7 * DAY), ("0", 0),
])
def test_a_delay_may_have_a_unit(text, seconds):
    assert loads(labelled(f"known_after:{text}")).known["click"] == Known(seconds=seconds)
    assert loads(labelled("known_at:t", f"within:{text}")).known["click"] == Known(at="t", within=seconds)


def test_only_feedback_says_when_it_is_known():
    message = ("column 'own': only a label, a mask, a target or an event may say when it is known.*"
               "Received tags: .*'known_at:t'")
    with pytest.raises(UserError, match=message):
        loads(tagged("own", ["known_at:t"]))


# === A part of a schema ===

def test_what_is_selected_keeps_when_feedback_is_known_that_features_may_read():
    known = {"click": Known(seconds=5), "buy": Known(at="bought_at"), "shown": Known(seconds=1),
             "stars": Known(after="dwell"), "price": Known(seconds=9)}
    schema = schema_of(Computed("count", ("who",)), known=known)
    assert schema.select().known == known
    assert schema.select(tasks=["click"]).known == known
    assert schema.select(without=["own 0"]).known == known and not schema.select(without=["own 0"]).features
    assert loads(dumps(schema.select(tasks=["buy"]))) == schema.select(tasks=["buy"])


def test_what_is_learned_weighed_or_fitted_keeps_how_it_is_computed():
    schema = schema_of(Computed("rate", ("who",), of="click"), known={"click": Known(seconds=5)})
    for found in (schema.weigh((1.0, 2.0, 3.0)), schema.learn({}), schema.select(tasks=["click"])):
        assert found.features[0].computed == schema.features[0].computed and found.known == schema.known
