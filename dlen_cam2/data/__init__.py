"""Reading a data set: from TFRecord shards to batches of feature groups and labels."""

from dlen_cam2.data.manifest import (
    MANIFEST,
    STATISTICS,
    TRUTH,
    Shards,
    counts,
    measured_by_default,
    parse_days,
    read_manifest,
    shards,
    statistics,
    suffix,
)
from dlen_cam2.data.parsing import padded, raw_columns
from dlen_cam2.data.reader import POLICIES, explained, fit, read

__all__ = [
    "MANIFEST", "POLICIES", "STATISTICS", "TRUTH", "Shards", "counts", "explained", "fit", "measured_by_default",
    "padded", "parse_days", "raw_columns", "read", "read_manifest", "shards", "statistics", "suffix",
]
