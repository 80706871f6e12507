"""Check that a data set is intact and fit to learn from: `python -m pipelines.check DIR`.

The command prints one line for each check, and with `--output=PAGE.html` writes a page with pictures. The exit status
is 1 if a check fails. A check that could not be made is a warning, never a pass. A logged day is compared with logged
days only, and `DAY_random` (or another suffix) with splits of the same suffix only, since these differ by design.
"""

import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import flags

from dlen_cam2 import data
from dlen_cam2.schema import Schema, pbtxt
from dlen_cam2.utils import commands, console
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import join, write_text
from pipelines.checks import distribution_shift, label_rates, leaks, repeated_rows, shard_files
from pipelines.checks.findings import FAIL, PASS, Report
from pipelines.checks.html_page import render
from pipelines.writer.dataset import default_train_days
from pipelines.writer.stored_rows import Column, read_split

FLAGS = flags.FLAGS
_BATCH = 4096


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
    shard_files.check(report, str(directory), statistics)
    _rows(report, directory, schema, statistics, psi, leak_auc)
    return report


def _check_statistics(path: str, statistics: Mapping[str, Any]) -> None:
    for name, entry in statistics["days"].items():
        if not isinstance(entry, dict) or type(entry.get("rows")) is not int:
            raise UserError(f"{path}: {name!r} of 'days' must have the integer 'rows'. Received: {str(entry)[:200]}.")
    if not statistics["days"]:
        raise UserError(f"{path} must name at least one day. Received: none.")


def _rows(report: Report, directory: str | os.PathLike, schema: Schema, statistics: Mapping[str, Any],
          limit: float, leak_auc: float) -> None:
    """Run the checks that need the rows, split by split."""
    unread: list[str] = []
    wrong: list[str] = []
    tracker = distribution_shift.Tracker(schema, {name: entry["rows"] for name, entry in statistics["days"].items()})
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
        label_rates.count(report, schema, name, split, entry, wrong)
        hashes["records"][name] = split.records
        if split.keys is not None:
            hashes["keys"][name] = split.keys
        if not split.rows:
            continue
        for column, values in split.columns.items():
            sample.setdefault(column, []).append(values.head(quota))
        tracker.add(name, split)

    days = len(statistics["days"])
    report.add("rows readable", FAIL, f"{days - len(unread)} of {days} splits agree with the schema", unread)
    read = sum(len(h) for h in hashes["records"].values())
    report.add("counts", FAIL, f"{read:,} rows and the positives of {len(schema.tasks)} tasks were compared", wrong)
    label_rates.check(report, tracker.small)
    distribution_shift.check(report, tracker, limit)
    leaks.check(report, schema, {n: Column.concatenate(parts) for n, parts in sample.items()}, leak_auc)
    repeated_rows.check(report, schema, hashes)


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "Directory of the data set to check; required.")
    flags.DEFINE_string("output", None, "HTML page to write. Default: the checks are only printed.")
    flags.DEFINE_float("leak_auc", 0.95, "AUC of a single feature above which it counts as a leak.", 0.5, 1.0)
    flags.DEFINE_float("drift", 0.25, "Population stability index above which drift is a warning.", 0.0)


def main() -> None:
    page = pathlib.Path(FLAGS.output).resolve() if FLAGS.output else None
    if page and (page.is_dir() or not page.parent.is_dir()):
        raise UserError(f"--output must be a file in a directory that exists. Received: {FLAGS.output!r}.")
    report = check(FLAGS.data_dir, FLAGS.leak_auc, FLAGS.drift)
    for finding in report.findings:
        # With --quiet what is not as it should be is still shown.
        (console.say if finding.status == PASS else print)(finding.line)
    if page:
        write_text(page, render(report))
        console.say(f"report: {page}")
    if report.failed:
        sys.exit(1)
    days = list(data.statistics(FLAGS.data_dir)["days"])
    trained = default_train_days(days)
    console.next_step(commands.line(
        "train", config="own/mmoe", data_dir=FLAGS.data_dir, model_dir="models/mmoe",
        train_days="..".join(dict.fromkeys((trained[0], trained[-1]))), eval_days=data.measured_by_default(days)))


if __name__ == "__main__":
    commands.run(main, define_flags, positional="data_dir")
