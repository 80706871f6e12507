"""KuaiRand-Pure's real files, where they are at hand, and what a data set of them holds."""

import csv
import hashlib
import pathlib
import shutil

import pyarrow as pa

from dlen_cam2.data import manifest
from dlen_cam2.schema import pbtxt
from pipelines.writer.stored_rows import tables

REAL = pathlib.Path(__file__).resolve().parents[3] / "shared/data/kuairand_pure"
LOG = "log_standard_4_22_to_5_08_pure.csv"


def everything(directory):
    """All rows by split, sorted, as Python values; floats keep every bit."""
    schema = pbtxt.load(directory)
    found = {}
    for split in manifest.statistics(directory)["days"]:
        table = pa.concat_tables(tables(directory, schema, split))
        found[split] = sorted(repr(row) for row in table.to_pylist())
    return found


def hashes(directory, splits):
    """What the manifests say of the shards, checked against the files, and the files of counts."""
    found = {}
    for split in splits:
        for name, shard in manifest.read_manifest(directory, split).shards.items():
            content = (pathlib.Path(directory) / split / name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == shard["sha256"]
            found[split, name] = shard["sha256"]
        counts = (pathlib.Path(directory) / split / manifest.COUNTS).read_bytes()
        found[split, manifest.COUNTS] = hashlib.sha256(counts).hexdigest()
    return found


def some_users(target, days, one_in):
    """The real files with the exposures of one user in `one_in` on the given days."""
    target.mkdir()
    for path in REAL.glob("*_pure.csv"):
        if path.name != LOG:
            shutil.copy(path, target)
    for name in (LOG, "user_history_before_4_25.csv"):
        with (REAL / name).open(newline="") as source, (target / name).open("w", newline="") as file:
            rows = csv.DictReader(source)
            writer = csv.DictWriter(file, rows.fieldnames)
            writer.writeheader()
            writer.writerows(r for r in rows if int(r["user_id"]) % one_in == 0 and r.get("date", days[0]) in days)
    return target
