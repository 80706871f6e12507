"""Shards in every form, written and read back."""

import pathlib
import tempfile

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from dlen_cam2.data import parsing
from dlen_cam2.data.manifest import COMPRESSIONS, LAYOUTS, Shards
from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.utils.errors import UserError
from pipelines.writer import shards
from pipelines.writer.encode import block
from pipelines.writer.shards import Form
from tests.support.columns import KINDS, same

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


@pytest.mark.slow
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


@pytest.mark.slow
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
