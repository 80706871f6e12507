"""python -m dlen_cam2.experiments --suite=cam2 --data_dir=DIR --output=DIR --seeds=5: a paper's tables on your data.

cam2: the five variants of CAM2's Table 1 by recurring training (each day is measured by the model of the day before),
with slices, rankings and causal scores. Writes `report.md`, `results.json` and pictures; finished runs are kept in
`OUTPUT/cells`, so the command goes on where it was stopped. `--config` is an experiment file; without it, data sets of
pipelines.kuairand and pipelines.simulate take theirs from dlen_cam2/configs.
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from dlen_cam2 import cli, schema_pbtxt
from dlen_cam2 import config as config_module
from dlen_cam2.config import Config
from dlen_cam2.configs import kuairand_cam2, simulated_cam2
from dlen_cam2.suites import cam2, cam2_report

FLAGS = flags.FLAGS
CONFIGS = {"kuairand": kuairand_cam2.get_config, "simulated": simulated_cam2.get_config}


def define_flags() -> None:
    flags.DEFINE_enum("suite", None, ["cam2"], "Which tables.", required=True)
    config_flags.DEFINE_config_file("config", None, "Experiment file; the default follows the data set's name.")
    flags.DEFINE_string("data_dir", None, "Data set that a pipeline wrote.", required=True)
    flags.DEFINE_string("output", None, "Directory for the page, its pictures and the cells.", required=True)
    flags.DEFINE_integer("seeds", 5, "Seeds 0, 1, … of every variant.", lower_bound=1)
    flags.DEFINE_integer("warm_days", 0, "Days to train on before the first is measured; 0: half.", lower_bound=0)
    flags.DEFINE_integer("top_k", 3, "Rows of a user's ranking that count as shown.", lower_bound=1)
    flags.DEFINE_string("age", "video_age_days", "Column of the item's age in days.")
    flags.DEFINE_string("popularity", "video_impressions", "Column of the item's popularity before the row.")


def _config() -> Config:
    if isinstance(FLAGS.config, Config):
        return FLAGS.config
    name = schema_pbtxt.load(FLAGS.data_dir).name
    if name not in CONFIGS:
        raise cli.UserError(
            f"--config must name an experiment file, since the data set {name!r} has none of its own. Known: "
            f"{sorted(CONFIGS)}."
        )
    return CONFIGS[name]()


def main() -> None:
    output = pathlib.Path(FLAGS.output)
    if output.is_dir() and any(output.iterdir()) and not (output / "cells").is_dir():
        raise cli.UserError(f"{output} is not empty and holds no earlier run (it has no cells), so it is left alone.")
    config = _config()
    config_module.check(config)
    results = cam2.run(
        config, FLAGS.data_dir, output, FLAGS.seeds, FLAGS.warm_days, FLAGS.top_k, FLAGS.age, FLAGS.popularity
    )
    cam2_report.write(results, output)
    print((output / cam2_report.REPORT).read_text(encoding="utf-8"))


if __name__ == "__main__":
    cli.run(main, define_flags)
