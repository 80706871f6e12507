"""Experiments where the truth is known: tasks of known correlation, and the simulated feed."""

import pathlib

from dlen_cam2.config import Config
from dlen_cam2.configs import correlated_ple
from dlen_cam2.experiments import pages
from dlen_cam2.experiments.papers import dlen_truth, task_correlation
from dlen_cam2.utils import page
from dlen_cam2.utils.files import write_json

# DESIGN: with 50,000 rows one network a task had an AUC above .999 and nothing to gain from another task; with 10,000
# (seed 0 at p = 0 and 1 was looked at) it has .995; the mean of five worlds is .87.
FEWER = 20


def run(config: Config, output: pathlib.Path, seeds: int, size: int, processes: int) -> None:
    """Make the data, train, and write the page.

    Args:
        config: of the models on the feed; those of the correlation sweep have `configs/correlated_ple.py`.
        output: for data, cells and page.
        seeds: of every model, and worlds of each correlation.
        size: rows of the feed; the correlated worlds have a twentieth, see `FEWER`.
        processes: cells at a time, see `grid.run`.
    """
    few = size // FEWER
    sweep = task_correlation.run(correlated_ple.get_config(), output, seeds, few, processes)
    caps, told = dlen_truth.run(config, output, seeds, size, processes)
    task_correlation.draw(output / task_correlation.PICTURE, sweep)
    dlen_truth.draw(output / dlen_truth.PICTURE, caps, told)
    write_json(output / pages.RESULTS, pages.plain({
        "correlation": task_correlation.plain(sweep),
        "caps": {"use": caps.use, "true_use": caps.true_use, "p_up": caps.way, "error": caps.error},
        "story": {"level": told.level, "changes": told.changes, "lost": told.lost, "p_up": told.way},
    }))
    parts = ["# Where the truth is known", *task_correlation.section(sweep, seeds, few),
             *dlen_truth.section(caps, told, seeds, size)]
    page.write(output / pages.REPORT, "\n\n".join(parts) + "\n")
