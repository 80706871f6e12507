"""Reproduce a paper's tables on your data.

    dlen_cam2 run_suite --suite=NAME --data_dir=DIR --output=DIR --seeds=5

| suite | tables |
|---|---|
| dlen | DLEN's tables 1 and 3: MMOE and PLE with and without DLEN, and baselines, on a log with several tasks |
| cam2 | the five variants of CAM2's table 1 by recurring training, with slices, rankings and causal scores |
| mtl | PLE's table of multi-task against single-task models, on pipelines.census or any other log |
| synthetic | data with a known truth: MTL gain by the tasks' correlation, DLEN's cap, DLEN where its story is broken |

The command writes `report.md`, `report.html`, `results.json` and pictures. Finished cells are kept in `OUTPUT/cells`;
the same command resumes after it was stopped. All rows use the sizes and rates of the experiment file `--config`.
Without it, a data set of one of our pipelines uses its own file in dlen_cam2/configs, and any other data set uses
`own/mmoe.py` there; only cam2 has no such default.
"""

import pathlib
from collections.abc import Callable

from absl import flags

from dlen_cam2 import config_file, data
from dlen_cam2.config import Config
from dlen_cam2.configs import (
    aliccp_ple,
    census_ple,
    kuairand_cam2,
    kuairand_mmoe,
    movielens_mmoe,
    quickstart_mmoe,
    simulated_cam2,
)
from dlen_cam2.configs.own import mmoe as own_mmoe
from dlen_cam2.experiments import pages
from dlen_cam2.experiments.papers import cam2, cam2_report, dlen, ple, synthetic
from dlen_cam2.experiments.rows import Log
from dlen_cam2.experiments.tables import Asked
from dlen_cam2.schema import pbtxt
from dlen_cam2.utils import commands, console, page
from dlen_cam2.utils.errors import UserError

FLAGS = flags.FLAGS
_TABLES = {
    "kuairand": kuairand_mmoe.get_config, "simulated": quickstart_mmoe.get_config, "aliccp": aliccp_ple.get_config,
    "census": census_ple.get_config, "movielens": movielens_mmoe.get_config,
}
# {suite: {the data set's name: its configuration}}
CONFIGS: dict[str, dict[str, Callable[[], Config]]] = {
    "dlen": _TABLES, "mtl": _TABLES,
    "cam2": {"kuairand": kuairand_cam2.get_config, "simulated": simulated_cam2.get_config},
}
SUITES = (*CONFIGS, "synthetic")


def define_flags() -> None:
    flags.DEFINE_enum("suite", None, SUITES, "Which tables to make.", required=True)
    config_file.define("Python file of the experiment. Default: the one of the data set, by its name.")
    flags.DEFINE_string("data_dir", None, "Directory of a data set that a pipeline wrote; synthetic needs none.")
    flags.DEFINE_string("output", None, "Directory to write the report, its pictures and the cells to.", required=True)
    flags.DEFINE_integer("seeds", 5, "Number of seeds (0, 1, …) that every row is trained with.", lower_bound=1)
    flags.DEFINE_integer("processes", 0, "Number of cells to train at the same time; 0: one per core.", lower_bound=0)
    flags.DEFINE_string("train_days", "", "dlen, mtl: days to train on. Default: all but the measured ones.")
    flags.DEFINE_string("eval_days", "", "dlen, mtl: days to measure on. Default: `test` if there is one, else the "
                        "last day.")
    flags.DEFINE_integer("trials", 0, "dlen, mtl: trials of the hyperparameter search of each network; 0: no search.",
                         lower_bound=0)
    flags.DEFINE_string("validation_days", "", "dlen, mtl: days to measure the trials on. Default: `validation` if "
                        "there is one, else the last training day.")
    flags.DEFINE_integer("rows", 200_000, "synthetic: rows of the simulated feed.", lower_bound=2000)
    flags.DEFINE_integer("warm_days", 0, "cam2: days to train on before the first measured day; 0: half of them.",
                         lower_bound=0)
    flags.DEFINE_integer("top_k", 3, "cam2: number of first rows of a user's ranking that count as shown.",
                         lower_bound=1)
    flags.DEFINE_string("age", "video_age_days", "cam2: column of the item's age in days.")
    flags.DEFINE_string("popularity", "video_impressions", "cam2: column of the item's popularity before the row.")


def _config() -> Config:
    name, known = pbtxt.load(FLAGS.data_dir).name, CONFIGS[FLAGS.suite]
    if FLAGS.config is None and name not in known and FLAGS.suite == "cam2":  # whose causes nobody can guess
        raise UserError(
            f"--config must name an experiment file, since there is none for the data set {name!r}. Received: none. "
            f"Data sets that have one: {sorted(known)}."
        )
    return config_file.get(known.get(name, own_mmoe.get_config), processes=True)


def _log() -> Log:
    """The days to train and to measure on."""
    known = list(data.statistics(FLAGS.data_dir)["days"])
    # Splits such as 20240108_random are measured only where they are asked for.
    whole = [day for day in known if not data.suffix(day)]
    measured = data.parse_days(FLAGS.eval_days or data.measured_by_default(known), known)
    earlier = [day for day in whole if day not in (*measured, "validation")] or whole
    trained = data.parse_days(FLAGS.train_days, known) if FLAGS.train_days else earlier
    return Log(FLAGS.data_dir, tuple(trained), tuple(measured))


def _asked() -> Asked:
    log, known = _log(), list(data.statistics(FLAGS.data_dir)["days"])
    usual = "validation" if "validation" in known and "validation" not in log.train else log.train[-1]
    validation = data.parse_days(FLAGS.validation_days or usual, known) if FLAGS.trials else []
    return Asked(
        _config(), log, pathlib.Path(FLAGS.output), FLAGS.seeds, FLAGS.processes, FLAGS.trials, tuple(validation)
    )


def _cam2() -> None:
    config, output = _config(), pathlib.Path(FLAGS.output)
    results = cam2.run(
        config, FLAGS.data_dir, output, FLAGS.seeds, FLAGS.warm_days, FLAGS.top_k, FLAGS.age, FLAGS.popularity,
        FLAGS.processes,
    )
    cam2_report.write(results, output)


def main() -> None:
    if FLAGS.suite != "synthetic" and not FLAGS.data_dir:
        raise UserError(f"--data_dir must name a data set for --suite={FLAGS.suite}. Received: none.")
    output = pathlib.Path(FLAGS.output)
    if output.is_dir() and any(output.iterdir()) and not (output / "cells").is_dir():
        raise UserError(f"--output must be empty or hold an earlier run (a directory `cells`). Received: {output}.")
    if FLAGS.suite == "cam2":
        _cam2()
    elif FLAGS.suite == "dlen":
        dlen.run(_asked())
    elif FLAGS.suite == "mtl":
        ple.run(_asked())
    else:
        config = config_file.get(quickstart_mmoe.get_config, processes=True)
        synthetic.run(config, output, FLAGS.seeds, FLAGS.rows, FLAGS.processes)
    console.page((output / pages.REPORT).read_text(encoding="utf-8"))
    console.next_step(f"open {page.html_of(output / pages.REPORT)}")


if __name__ == "__main__":
    commands.run(main, define_flags)
