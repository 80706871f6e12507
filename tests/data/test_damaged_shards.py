"""What the reader says of shards that are damaged or break the schema."""

import pytest

from dlen_cam2 import data
from dlen_cam2.schema import Feature, Schema
from dlen_cam2.utils.errors import UserError
from tests.support.shards import SCHEMA, boundary, flip, resized, rewrite, run, shard, times, written

import tensorflow as tf  # isort: skip


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
    flip(path, place)
    with pytest.raises(UserError, match=rf"shard .*{path.name} is damaged"):
        run(stored)


def test_a_shard_cut_within_a_record_whose_size_agrees_is_named(stored):
    path = shard(stored)
    path.write_bytes(path.read_bytes()[:-9])
    resized(path)
    with pytest.raises(UserError, match=rf"shard .*{path.name} is damaged.*"):
        run(stored)


@pytest.mark.slow
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
        UserError, match=r"shard .*1/tiny\.tfrecord-00000-of-00006 has no column \['mood'\].*Received: .*'city'"
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
