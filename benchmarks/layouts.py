"""A data set in both layouts, for benchmarks: the same rows, as often as needed."""

import os
import pathlib

import pyarrow as pa

from dlen_cam2 import data
from dlen_cam2.data.manifest import LAYOUTS
from dlen_cam2.schema import pbtxt
from pipelines.writer.dataset import write_dataset
from pipelines.writer.shards import Form
from pipelines.writer.stored_rows import tables


def rows_of(data_dir: str) -> pa.Table:
    """All rows of a data set."""
    schema = pbtxt.load(data_dir)
    return pa.concat_tables(t for day in data.statistics(data_dir)["days"] for t in tables(data_dir, schema, day))


def write_layouts(data_dir: str, directory: pathlib.Path, copies: int) -> dict[str, str]:
    """Write the rows of `data_dir`, `copies` times, in every layout; returns the directories by layout."""
    schema, rows = pbtxt.load(data_dir), rows_of(data_dir)
    for layout in LAYOUTS:
        splits = ((f"202401{copy + 1:02d}", rows) for copy in range(copies))
        write_dataset(directory / layout, schema, splits, {}, form=Form(layout))
    os.sync()  # what is still on its way to the disk would slow the first reader
    return {layout: str(directory / layout) for layout in LAYOUTS}
