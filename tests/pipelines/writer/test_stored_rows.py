"""Rows as they are stored, in every form."""

import pyarrow as pa
import pytest

from pipelines import check
from pipelines.writer.dataset import write_dataset
from pipelines.writer.shards import Form
from pipelines.writer.stored_rows import read_split
from tests.support.checked_sets import DAYS, ROWS, SCHEMA, statuses, tables


@pytest.mark.parametrize("form", [Form("block"), Form("block", "GZIP"), Form("example", "ZLIB")], ids=str)
def test_other_forms_pass_and_hold_the_same_rows(clean, tmp_path, form):
    columns = [(day, pa.table(c)) for day, c in tables().items()]
    write_dataset(tmp_path / "other", SCHEMA, columns, {}, form=form)
    report, wanted = check.check(tmp_path / "other"), check.check(clean)
    assert statuses(report) == {}
    assert (report.rates, report.psi, report.aucs) == (wanted.rates, wanted.psi, wanted.aucs)
    first, second = (read_split(directory, SCHEMA, DAYS[0]) for directory in (clean, tmp_path / "other"))
    assert first.keys.tolist() == second.keys.tolist() and len(set(second.records)) == ROWS
    assert first.columns.keys() == second.columns.keys() == SCHEMA.columns.keys()
    for name, column in first.columns.items():
        assert column.values.tolist() == second.columns[name].values.tolist()
        assert (column.lengths is None) == (second.columns[name].lengths is None)
        assert column.lengths is None or column.lengths.tolist() == second.columns[name].lengths.tolist()
    path = tmp_path / "other" / DAYS[1] / "hand.tfrecord-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert statuses(check.check(tmp_path / "other")) == {"checksums": "FAIL", "rows readable": "FAIL"}


def test_lists_are_read_whole(clean):
    split, written = read_split(clean, SCHEMA, DAYS[0]), tables()[DAYS[0]]["seen"]
    seen = split.columns["seen"]
    assert seen.lengths.tolist() == [len(row) for row in written]
    assert seen.values.tolist() == [v for row in written for v in row]
    assert seen.head(7).values.tolist() == [v for row in written[:7] for v in row]
