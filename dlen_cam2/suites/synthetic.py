"""Experiments where the truth is known: tasks of known correlation, and the simulated feed."""

import pathlib

from dlen_cam2.config import Config
from dlen_cam2.configs import correlated_mmoe
from dlen_cam2.files import write_json, write_text
from dlen_cam2.suites import correlation, page, story


def run(config: Config, output: pathlib.Path, seeds: int, size: int, processes: int) -> None:
    """Make the data, train, and write the page.

    Args:
        config: of the models on the feed; those of the correlation sweep have `configs/correlated_mmoe.py`.
        output: for data, cells and page.
        seeds: of every model, and worlds of each correlation.
        size: rows of the feed; the correlated worlds have a quarter.
        processes: cells at a time, see `grid.run`.
    """
    sweep = correlation.run(correlated_mmoe.get_config(), output, seeds, size // 4, processes)
    caps, told = story.run(config, output, seeds, size, processes)
    correlation.draw(output / correlation.PICTURE, sweep)
    story.draw(output / story.PICTURE, caps, told)
    write_json(output / page.RESULTS, page.plain({
        "correlation": correlation.plain(sweep),
        "caps": {"use": caps.use, "p_up": caps.way, "error": caps.error},
        "story": {"changes": told.changes, "lost": told.lost, "p_up": told.way},
    }))
    parts = ["# Where the truth is known", *correlation.section(sweep, seeds, size // 4),
             *story.section(caps, told, seeds, size)]
    write_text(output / page.REPORT, "\n\n".join(parts) + "\n")
