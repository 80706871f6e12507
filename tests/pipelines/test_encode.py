"""`pipelines.writer.encode` against protobuf itself and against `tf.io.parse_example`."""

import pathlib
import re
import tempfile

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dlen_cam2.data import parsing
from dlen_cam2.data.manifest import COMPRESSIONS, LAYOUTS, Shards
from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.utils.errors import UserError
from pipelines.writer import shards
from pipelines.writer.encode import block, examples
from pipelines.writer.shards import Form

import tensorflow as tf  # isort: skip

INT64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-3, 300),
    st.sampled_from([2**63 - 1, -(2**63), -1, 0, 127, 128, 2**24 + 1]),
)
FLOAT32 = st.floats(width=32, allow_subnormal=True)
TEXT = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=8), st.sampled_from(["", "快手", "😀\n\x00", "ä" * 300])
)
KINDS = {
    "int": (pa.int64(), INT64),
    "float": (pa.float32(), FLOAT32),
    "string": (pa.string(), TEXT),
    "ints": (pa.list_(pa.int64()), st.one_of(st.lists(INT64, max_size=4), st.just(list(range(-60, 200))))),
    "strings": (pa.list_(pa.string()), st.one_of(st.lists(TEXT, max_size=4), st.just(["x"] * 150))),
}


@st.composite
def tables(draw):
    """A table of up to 6 rows with up to two columns of each kind, under unicode names, in any order."""
    rows = draw(st.integers(1, 6))
    columns = draw(st.permutations([(f"{kind}_{suffix}", kind) for kind in KINDS for suffix in ("a", "é" * 70)]))
    return pa.table({
        name: pa.array(draw(st.lists(KINDS[kind][1], min_size=rows, max_size=rows)), KINDS[kind][0])
        for name, kind in columns[:draw(st.integers(1, len(columns)))]
    })


def same(column, found):
    """Equality of one cell, of floats by their bits (the sign of zero, subnormals), any NaN equal to any NaN."""
    if pa.types.is_float32(column.type):
        wanted, found = np.float32(column.as_py()), np.float32(found[0])
        return wanted.tobytes() == found.tobytes() or (np.isnan(wanted) and np.isnan(found))
    wanted = column.as_py() if isinstance(column.as_py(), list) else [column.as_py()]
    return [v.encode() if isinstance(v, str) else v for v in wanted] == list(found)


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


# === Shards, written and read back ===

EVERY = Schema("every", (
    Feature("id", "int", "user", "content", size=9, width=1, hashed=True),
    Feature("number", "float", "user", "statistical"),
    Feature("wörd", "string", "item", "content", width=1, size=9, hashed=True),
    Feature("ids", "int", "user", "content", width=1, min_count=1, max_length=3),
    Feature("words", "string", "item", "content", width=1, min_count=2, max_length=2),
), (Task("t"), Task("u", mask="m")), ("number", "watch"), {"user": "id", "time": "ms"})
BIT = st.integers(0, 1)
COLUMNS = {
    "id": KINDS["int"], "number": KINDS["float"], "wörd": KINDS["string"], "ids": KINDS["ints"],
    "words": KINDS["strings"], "t": (pa.int64(), BIT), "u": (pa.int64(), BIT), "m": (pa.int64(), BIT),
    "watch": KINDS["float"], "ms": KINDS["int"],
}


@st.composite
def rows_of_every(draw):
    rows = draw(st.integers(0, 7))
    return pa.table({
        name: pa.array(draw(st.lists(values, min_size=rows, max_size=rows)), dtype)
        for name, (dtype, values) in COLUMNS.items()
    })


def write_and_read(directory, tables, form):
    """What is said of the shards, and chunk by chunk the raw columns."""
    said = shards.write_shards(tables, directory, "every", form, EVERY.binary_columns)
    assert sorted(p.name for p in directory.iterdir()) == sorted(said)
    for name, entry in said.items():
        assert entry["bytes"] == (directory / name).stat().st_size
    found = Shards(tuple(str(directory / n) for n in said), tuple(e["rows"] for e in said.values()),
                   form.layout, form.compression)
    parse = parsing.parser(EVERY, form.layout)
    read = parsing.open_shard(list(found.paths), form.compression).batch(parsing.chunk(form.layout))
    return said, [parse(serialized) for serialized in read]


def lists_of(column):
    """The rows of a list column as lists."""
    if isinstance(column, tf.RaggedTensor):
        return [row.numpy().tolist() for row in column]
    rows = zip(column.values.numpy().tolist(), column.lengths.numpy().tolist(), strict=True)
    return [row[:length] for row, length in rows]


@settings(max_examples=60, deadline=None)
@given(st.lists(rows_of_every(), min_size=1, max_size=3), st.sampled_from(LAYOUTS), st.sampled_from(COMPRESSIONS),
       st.integers(1, 8))
def test_every_form_gives_back_what_was_written(tables, layout, compression, rows_of_a_block):
    with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "ROWS_PER_BLOCK", rows_of_a_block)
        said, chunks = write_and_read(pathlib.Path(home), tables, Form(layout, compression))
    assert [entry["rows"] for entry in said.values()] == [len(t) for t in tables]
    table = pa.concat_tables(tables)
    for name in EVERY.columns:
        if pa.types.is_list(table.column(name).type):
            found = [row for raw in chunks for row in lists_of(raw[name])]
        else:
            found = [[value] for raw in chunks for value in raw[name].numpy().tolist()]
        assert len(found) == len(table)
        for row in range(len(table)):
            assert same(table.column(name)[row], found[row]), (name, row)
    padded = [parsing.padded(raw, EVERY) for raw in chunks]
    for name, width, fill in (("ids", 3, -1), ("words", 2, b"")):
        found = [row for raw in padded for row in raw[name].numpy().tolist()]
        given = [[v.encode() if isinstance(v, str) else v for v in row] for row in table.column(name).to_pylist()]
        assert found == [(row + [fill] * width)[:width] for row in given]


def test_a_block_keeps_integers_of_32_bits_in_32_bits():
    sizes = {}
    for name, last in (("narrow", 2**31 - 1), ("wide", 2**31)):
        table = pa.table({"x": [-(2**31)] * 999 + [last], "t": [0, 1] * 500})
        sizes[name] = len(block(table, ["t"]))
    assert 5000 < sizes["narrow"] < 5100 and 9000 < sizes["wide"] < 9100


@pytest.mark.parametrize("layout", LAYOUTS)
def test_blocks_of_slices_and_chunks_are_the_same(layout):
    form = Form(layout)
    table = pa.table({
        "id": range(10), "number": np.arange(10, dtype=np.float32), "wörd": [f"v{i % 3}" for i in range(10)],
        "ids": [list(range(i)) for i in range(10)], "words": [["a"] * i for i in range(10)], "t": [0, 1] * 5,
        "u": [1] * 10, "m": [0] * 10, "watch": np.ones(10, np.float32), "ms": range(10),
    })
    chunked = pa.concat_tables([table.slice(0, 4), table.slice(4, 0), table.slice(4)])
    wanted = list(shards._records(table, form.layout, EVERY.binary_columns))
    assert list(shards._records(chunked, form.layout, EVERY.binary_columns)) == wanted
    part = list(shards._records(table.slice(3, 4), form.layout, EVERY.binary_columns))
    assert part == list(shards._records(pa.table(table.slice(3, 4).to_pydict(), table.schema), form.layout,
                                        EVERY.binary_columns))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_processes_write_the_same_bytes_in_the_same_order(tmp_path, layout):
    tables = [pa.table({"x": [i] * (1 + i), "t": [1] * (1 + i)}) for i in range(7)]
    written = {}
    for workers in (1, 2):
        form, directory = Form(layout, "GZIP", workers), tmp_path / str(workers)
        directory.mkdir()
        with shards.processes(form) as pool:
            written[workers] = shards.write_shards(iter(tables), directory, "x", form, ["t"], pool)
        assert list(written[workers]) == [f"x.tfrecord-{i:05d}-of-00007" for i in range(7)]
    assert written[1] == written[2]
    for path in (tmp_path / "1").iterdir():
        assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes()


@pytest.mark.parametrize(("changes", "message"), [
    ({"layout": "rows"}, "layout must be one of .*Received: 'rows'"),
    ({"compression": "gzip"}, "compression must be one of .*Received: 'gzip'"),
    ({"workers": 0}, "workers must be at least 1. Received: 0"),
])
def test_a_form_that_is_none(changes, message):
    with pytest.raises(UserError, match=message):
        Form(**changes)
