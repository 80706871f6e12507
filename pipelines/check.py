"""Is a data set what it says, and fit to learn from? `python -m pipelines.check DIR`.

Prints one line for each check, and with `--output=PAGE.html` writes a page with pictures. Exit status 1 if a check
fails. What could not be checked is a warning, never a pass. A logged day is compared with logged days only, and
`DAY_random` (or another suffix) only with splits of the same suffix, for they differ by design.
"""

import hashlib
import math
import os
import pathlib
import sys
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from absl import flags

from dlen_cam2 import data
from dlen_cam2.schema import Schema, pbtxt
from dlen_cam2.utils import commands
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import join, names, read_bytes, size, write_text
from pipelines import drift, leaks
from pipelines.findings import FAIL, PASS, SHOWN, WARN, Finding, Report, suffix
from pipelines.raw import Column, Split, read_split

FLAGS = flags.FLAGS

RATE_Z = 6.0  # standard errors, and relative change, by which a day's label rate departs from the other days'
RATE_CHANGE = 0.5
SAME_RECORDS = 0.01  # share of the rows that repeat another one whole, above which that fails; any is a warning
_BATCH = 4096
_LEAKS_SHOWN = 20  # on the line: each is a decision to make


def check(directory: str | os.PathLike, leak_auc: float = 0.95, psi: float = 0.25) -> Report:
    """Run all checks, one split in memory at a time.

    Args:
        directory: a data set.
        leak_auc: single-feature AUC above which a feature fails as a leak suspect.
        psi: population stability index above which a feature's drift is a warning.

    Raises:
        UserError: the schema or the statistics cannot be used, so nothing can be checked.
    """
    schema = pbtxt.load(directory)
    statistics = data.statistics(directory)
    _check_statistics(join(directory, data.STATISTICS), statistics)
    report = Report(str(directory))
    _files(report, str(directory), statistics)
    _rows(report, directory, schema, statistics, psi, leak_auc)
    return report


def _check_statistics(path: str, statistics: Mapping[str, Any]) -> None:
    for name, entry in statistics["days"].items():
        if not isinstance(entry, dict) or type(entry.get("rows")) is not int:
            raise UserError(f"{path}: {name!r} of 'days' must have the integer 'rows'. Received: {str(entry)[:200]}.")
    if not statistics["days"]:
        raise UserError(f"{path} must name at least one day. Received: none.")


def _files(report: Report, directory: str, statistics: Mapping[str, Any]) -> None:
    """Shards against their manifests: there, as long, with the same bytes; and no others."""
    faults, changed, extra, count = [], [], [], 0
    for split, entry in statistics["days"].items():
        try:
            found = data.read_manifest(directory, split)
        except UserError as error:
            faults.append(str(error).rstrip("."))
            continue
        count += len(found.shards)
        if sum(shard["rows"] for shard in found.shards.values()) != found.rows or found.rows != entry["rows"]:
            faults.append(f"{split}: {data.MANIFEST}, its shards and {data.STATISTICS} count different rows")
        for name, shard in found.shards.items():
            path = join(directory, split, name)
            if (length := size(path)) < 0:
                faults.append(f"{split}/{name} is missing")
            elif length != shard["bytes"]:
                faults.append(f"{split}/{name} has {length:,} bytes, not {shard['bytes']:,}")
            elif hashlib.sha256(read_bytes(path)).hexdigest() != shard["sha256"]:
                changed.append(f"{split}/{name} has other bytes than were written")
        extra += [f"{split}/{name}" for name in names(join(directory, split))
                  if ".tfrecord" in name and name not in found.shards]
    # Hidden directories are what a killed command left; no reader looks there.
    extra += [name for name in names(directory) if name not in statistics["days"] and not name.startswith(".")
              and size(join(directory, name, data.MANIFEST)) >= 0]
    report.add("shard files", FAIL, f"{count} listed", faults)
    report.add("unlisted shards", FAIL, f"{len(extra)} found", [f"{name} is not listed" for name in sorted(extra)])
    report.add("checksums", FAIL, f"SHA-256 of {count} shards", changed)


def _rows(report: Report, directory: str | os.PathLike, schema: Schema, statistics: Mapping[str, Any],
          limit: float, leak_auc: float) -> None:
    """Everything that needs the rows, split by split."""
    unread: list[str] = []
    wrong: list[str] = []
    tracker = drift.Tracker(schema, {name: entry["rows"] for name, entry in statistics["days"].items()})
    sample: dict[str, list[Column]] = {}
    hashes: dict[str, dict[str, np.ndarray]] = {"records": {}, "keys": {}}
    quota = leaks.ROWS // len(statistics["days"])
    for name, entry in statistics["days"].items():
        try:
            with data.explained(directory, schema, [name]):
                for _ in data.read(directory, schema, [name], _BATCH):
                    pass
            split = read_split(directory, schema, name)
        except UserError as error:
            unread.append(str(error).rstrip("."))
            continue
        _count(report, schema, name, split, entry, wrong)
        hashes["records"][name] = split.records
        if split.keys is not None:
            hashes["keys"][name] = split.keys
        if not split.rows:
            continue
        for column, values in split.columns.items():
            sample.setdefault(column, []).append(values.head(quota))
        tracker.add(name, split)

    days = len(statistics["days"])
    report.add("rows readable", FAIL, f"{days - len(unread)} of {days} splits as the schema says", unread)
    read = sum(len(h) for h in hashes["records"].values())
    report.add("counts", FAIL, f"{read:,} rows and the positives of {len(schema.tasks)} tasks compared", wrong)
    _label_rates(report, tracker.small)
    _drift(report, tracker, limit)
    _leaks(report, schema, {n: Column.concatenate(parts) for n, parts in sample.items()}, leak_auc)
    _duplicates(report, schema, hashes)


def _count(report: Report, schema: Schema, name: str, split: Split, entry: Mapping[str, Any],
           wrong: list[str]) -> None:
    """Rows and positives against the statistics, which set every model's base rates."""
    if split.rows != entry["rows"]:
        wrong.append(f"{name} has {split.rows:,} rows, not {entry['rows']:,}")
    for task in schema.tasks:
        label = split.columns[task.label].values if split.rows else np.zeros(0, np.int64)
        mask = split.columns[task.mask].values if split.rows and task.mask else np.ones_like(label)
        counts = {"rows": int(mask.sum()), "positives": int((label * mask).sum())}
        report.rates.setdefault(task.name, {})[name] = (counts["rows"], counts["positives"])
        said = (entry.get("tasks") or {}).get(task.name)
        if said != counts:
            wrong.append(f"{name}, task {task.name!r}: {counts}, but {data.STATISTICS} says {said}")


def _drift(report: Report, tracker: drift.Tracker, limit: float) -> None:
    """Features that moved, one fault each; counts that grow as the log goes on are told apart and are no fault."""
    report.psi, report.references = {f: v for f, v in tracker.psi.items() if v}, tracker.references
    small = ""
    if tracker.small:
        names = [f"{name} ({rows:,} rows)" for name, rows in tracker.small.items()]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        small = f", left out as too small: {', '.join(names[:SHOWN])}{more}"
    if not report.psi:
        report.unchecked("drift", f"no split has an earlier one of its suffix to compare with{small}")
        return
    drifted, growing = tracker.moves(limit)
    report.growing = tuple(sorted({m.feature for m in growing} - {m.feature for m in drifted}))
    references = ", ".join(tracker.references.values())
    report.add("drift", WARN, f"PSI of {len(report.psi)} features against {references}, limit {limit:g}{small}",
               [m.text for m in drifted])
    if growing:
        found = f"{len(growing)} counts above the limit rise steadily, as counts do while a log goes on"
        report.findings.append(Finding("growing counters", PASS, found, tuple(m.text for m in growing)))


def departs(rows: int, positives: int, other_rows: int, other_positives: int) -> bool:
    """Does a day's rate depart from that of the other days pooled?

        z = (r - r_o) / sqrt(r_p (1 - r_p) (1 / n + 1 / n_o)),  r_p the rate of all days

    Yes if |z| > 6 and |r / r_o - 1| > .5: rows of a user or an hour are not independent, so with many rows a small
    change is beyond chance too, and the second condition asks that it also matters.
    """
    if not rows or not other_rows:
        return False
    rate, other = positives / rows, other_positives / other_rows
    pooled = (positives + other_positives) / (rows + other_rows)
    error = math.sqrt(pooled * (1 - pooled) * (1 / rows + 1 / other_rows))
    return abs(rate - other) > RATE_Z * error and abs(rate - other) > RATE_CHANGE * other


def _label_rates(report: Report, small: Collection[str]) -> None:
    """Days that are too small for drift are too small here: ten minutes at midnight have rates of their own."""
    faults, compared = [], 0
    for task, days in report.rates.items():
        days = {name: counts for name, counts in days.items() if name not in small}
        for name, (rows, positives) in days.items():
            others = [c for n, c in days.items() if n != name and suffix(n) == suffix(name)]
            other_rows, other_positives = sum(r for r, _ in others), sum(p for _, p in others)
            compared += bool(rows and other_rows)
            if departs(rows, positives, other_rows, other_positives):
                other = other_positives / other_rows
                faults.append(f"{task!r} on {name}: {positives / rows:.4f}, other days {other:.4f}")
    if compared:
        report.add("label rates", WARN, f"{compared} rates against the other days'", faults)
    else:
        report.unchecked("label rates", "no task has two readable splits of one suffix")


def _leaks(report: Report, schema: Schema, sample: Mapping[str, Column], limit: float) -> None:
    report.aucs, pure = leaks.search(schema, sample) if sample else ({}, [])
    report.sampled = len(sample[schema.tasks[0].label].values) if sample and schema.tasks else 0
    if not any(report.aucs.values()):
        report.unchecked("leak suspects", f"no task has {leaks.LEAST} positives and {leaks.LEAST} negatives")
        return
    best = sorted(((a, f, t) for t, found in report.aucs.items() for f, a in found.items()), reverse=True)
    left_out = [t.name for t in schema.tasks if t.name not in report.aucs]
    text = (f"{report.sampled:,} rows (the first of each split), best single feature {best[0][1]!r} with AUC "
            f"{best[0][0]:.4f} for {best[0][2]!r}")
    if left_out:
        text += f", too few positives or negatives: {', '.join(left_out)}"
    report.add("leak suspects", FAIL, text, leaks.faults(report.aucs, pure, limit), _LEAKS_SHOWN)


def _duplicates(report: Report, schema: Schema, hashes: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Rows that repeat an earlier one, over all splits."""
    for kind, check_name in (("keys", "same keys"), ("records", "identical records")):
        if not hashes["records"]:
            report.unchecked(check_name, "no split could be read")
            continue
        if not hashes[kind]:
            report.unchecked(check_name, f"the schema has the keys {sorted(schema.keys)}, not user, item and time")
            continue
        names = list(hashes[kind])
        everything = np.concatenate(list(hashes[kind].values()))
        repeats = np.ones(len(everything), bool)
        repeats[np.unique(everything, return_index=True)[1]] = False
        where = np.repeat(np.arange(len(names)), [len(h) for h in hashes[kind].values()])
        counts = np.bincount(where[repeats], minlength=len(names))
        found = f"{repeats.sum():,} of {len(everything):,} rows repeat an earlier one"
        # Without keys two rows may well be equal: people who give the same answers, say.
        status = FAIL if kind == "records" and schema.keys and repeats.mean() > SAME_RECORDS else WARN
        report.add(check_name, status, found, [f"{c:,} on {n}" for n, c in zip(names, counts, strict=True) if c])


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "The data set to check.")
    flags.DEFINE_string("output", None, "HTML page to write; without it only the table is printed.")
    flags.DEFINE_float("leak_auc", 0.95, "AUC of a single feature above which it fails as a leak.", 0.5, 1.0)
    flags.DEFINE_float("drift", 0.25, "Population stability index above which a feature's drift is a warning.", 0.0)


def main() -> None:
    from pipelines.check_page import render

    page = pathlib.Path(FLAGS.output).resolve() if FLAGS.output else None
    if page and (page.is_dir() or not page.parent.is_dir()):
        raise UserError(f"--output must be a file in a directory that exists. Received: {FLAGS.output!r}.")
    report = check(FLAGS.data_dir, FLAGS.leak_auc, FLAGS.drift)
    for finding in report.findings:
        print(finding.line)
    if page:
        write_text(page, render(report))
        print(f"The page is {page}")
    if report.failed:
        sys.exit(1)


if __name__ == "__main__":
    commands.run(main, define_flags, positional="data_dir")
