"""`pipelines.writer.encode` against protobuf itself and against `tf.io.parse_example`."""

import re

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.writer.encode import block, examples
from tests.support.columns import INT64, KINDS, same


@st.composite
def tables(draw):
    """A table of up to 6 rows with up to two columns of each kind, under unicode names, in any order."""
    rows = draw(st.integers(1, 6))
    columns = draw(st.permutations([(f"{kind}_{suffix}", kind) for kind in KINDS for suffix in ("a", "é" * 70)]))
    return pa.table({
        name: pa.array(draw(st.lists(KINDS[kind][1], min_size=rows, max_size=rows)), KINDS[kind][0])
        for name, kind in columns[:draw(st.integers(1, len(columns)))]
    })


def values(feature):
    return getattr(feature, feature.WhichOneof("kind")).value


@settings(max_examples=120, deadline=None)
@given(tables())
def test_protobuf_reads_back_every_value(table):
    records = list(examples(table))
    assert len(records) == table.num_rows
    for row, record in enumerate(records):
        found = tf.train.Example.FromString(record).features.feature
        assert sorted(found) == sorted(table.column_names)
        for name in table.column_names:
            assert same(table.column(name)[row], values(found[name])), name


@settings(max_examples=40, deadline=None)
@given(tables())
def test_parse_example_reads_back_every_value(table):
    spec = {}
    for name in table.column_names:
        kind = name.split("_")[0]
        dtype = {"int": tf.int64, "float": tf.float32}.get(kind.removesuffix("s"), tf.string)
        spec[name] = tf.io.RaggedFeature(dtype) if kind.endswith("s") else tf.io.FixedLenFeature([], dtype)
    parsed = tf.io.parse_example(tf.constant(list(examples(table))), spec)
    for name in table.column_names:
        for row in range(table.num_rows):
            found = parsed[name][row].numpy()
            found = found.tolist() if isinstance(found, np.ndarray) else [found]
            assert same(table.column(name)[row], found), name


@settings(max_examples=60, deadline=None)
@given(st.lists(INT64, min_size=1, max_size=50))
@example([0])
@example([-1, 0])
@example([2**63 - 1, -(2**63)])
@example([2**k - 1 for k in range(1, 64)] + [2**k for k in range(63)])
def test_integers_of_every_width_share_a_column(numbers):
    records = examples(pa.table({"x": pa.array(numbers, pa.int64())}))
    assert [values(tf.train.Example.FromString(r).features.feature["x"])[0] for r in records] == numbers


@pytest.mark.parametrize("chunked", [False, True])
def test_slices_and_chunks_write_the_same_records(chunked):
    table = pa.table({
        "i": pa.array(range(10)), "f": pa.array(np.arange(10), pa.float32()), "s": [f"v{i % 3}" for i in range(10)],
        "li": [list(range(i)) for i in range(10)], "ls": [["a"] * i for i in range(10)],
    })
    if chunked:
        table = pa.concat_tables([table.slice(0, 4), table.slice(4, 0), table.slice(4)])
    whole = [tf.train.Example.FromString(r) for r in examples(table)]
    parts = [
        tf.train.Example.FromString(r) for low in (0, 3, 7) for r in examples(table.slice(low, (3, 4, 3)[low // 3]))
    ]
    assert whole == parts
    assert [len(values(e.features.feature["li"])) for e in parts] == list(range(10))


def test_no_rows_and_no_columns():
    empty = pa.table({name: pa.array([], dtype) for name, (dtype, _) in KINDS.items()})
    assert list(examples(empty)) == []
    assert list(examples(pa.table({"x": pa.array([1])}).select([]))) in ([], [b"\x0a\x00"])


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1], pa.int32()), pa.array([1], pa.uint64()), pa.array([1.0], pa.float64()), pa.array([True]),
        pa.array([b"x"], pa.binary()), pa.array([[1.0]], pa.list_(pa.float32())), pa.array([None], pa.null()),
        pa.array([[[1]]]), pa.array([1], pa.timestamp("ms")),
    ],
    ids=lambda c: str(c.type),
)
def test_other_types_are_refused_by_name(column):
    with pytest.raises(TypeError, match=f"column 'odd' must be .* Received: {re.escape(str(column.type))}"):
        list(examples(pa.table({"fine": pa.array([1]), "odd": column})))


@pytest.mark.parametrize(
    "column", [pa.array([1], pa.int32()), pa.array([1.0]), pa.array([[1.0]], pa.list_(pa.float32()))],
    ids=lambda c: str(c.type),
)
def test_a_block_refuses_other_types_by_name(column):
    with pytest.raises(TypeError, match="column 'odd' must be"):
        block(pa.table({"fine": pa.array([1]), "odd": column}), ())
