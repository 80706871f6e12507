"""A check of the shards against the manifests that list them."""

import hashlib
from collections.abc import Mapping
from typing import Any

from dlen_cam2 import data
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import join, names, read_bytes, size
from pipelines.checks.findings import FAIL, Report


def check(report: Report, directory: str, statistics: Mapping[str, Any]) -> None:
    """Check that the shards of the manifests exist with the same length and bytes, and that there are no others."""
    faults, changed, extra, count = [], [], [], 0
    for split, entry in statistics["days"].items():
        try:
            found = data.read_manifest(directory, split)
        except UserError as error:
            faults.append(str(error).rstrip("."))
            continue
        count += len(found.shards)
        if sum(shard["rows"] for shard in found.shards.values()) != found.rows or found.rows != entry["rows"]:
            faults.append(f"{split}: {data.MANIFEST}, its shards and {data.STATISTICS} have different numbers of rows")
        for name, shard in found.shards.items():
            path = join(directory, split, name)
            if (length := size(path)) < 0:
                faults.append(f"{split}/{name} is missing")
            elif length != shard["bytes"]:
                faults.append(f"{split}/{name} has {length:,} bytes, not {shard['bytes']:,}")
            elif hashlib.sha256(read_bytes(path)).hexdigest() != shard["sha256"]:
                changed.append(f"{split}/{name} was changed after it was written")
        extra += [f"{split}/{name}" for name in names(join(directory, split))
                  if ".tfrecord" in name and name not in found.shards]
    # Hidden directories are what a killed command left; no reader looks there.
    extra += [name for name in names(directory) if name not in statistics["days"] and not name.startswith(".")
              and size(join(directory, name, data.MANIFEST)) >= 0]
    report.add("shard files", FAIL, f"{count} shards are listed", faults)
    report.add("unlisted shards", FAIL, f"{len(extra)} were found", [f"{name} is not listed" for name in sorted(extra)])
    report.add("checksums", FAIL, f"SHA-256 of {count} shards was compared", changed)
