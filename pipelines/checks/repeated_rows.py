"""Rows that occur twice in a data set."""

from collections.abc import Mapping

import numpy as np

from dlen_cam2.schema import Schema
from pipelines.checks.findings import FAIL, WARN, Report

SAME_RECORDS = 0.01  # share of the rows that repeat another one whole, above which that fails; any is a warning


def check(report: Report, schema: Schema, hashes: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Report rows that repeat an earlier one, over all splits."""
    for kind, check_name in (("keys", "same keys"), ("records", "identical records")):
        if not hashes["records"]:
            report.unchecked(check_name, "no split could be read")
            continue
        if not hashes[kind]:
            report.unchecked(check_name, f"the schema has only the keys {sorted(schema.keys)}")
            continue
        names = list(hashes[kind])
        everything = np.concatenate(list(hashes[kind].values()))
        repeats = np.ones(len(everything), bool)
        repeats[np.unique(everything, return_index=True)[1]] = False
        where = np.repeat(np.arange(len(names)), [len(h) for h in hashes[kind].values()])
        counts = np.bincount(where[repeats], minlength=len(names))
        found = f"{repeats.sum():,} of {len(everything):,} rows repeat an earlier one"
        # Without times two rows may well be equal: a user who sees an item twice, people who give the same answers.
        status = FAIL if kind == "records" and "time" in schema.keys and repeats.mean() > SAME_RECORDS else WARN
        report.add(check_name, status, found, [f"{c:,} on {n}" for n, c in zip(names, counts, strict=True) if c])
