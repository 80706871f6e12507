"""Search hyperparameters.

    dlen_cam2 tune --config=FILE --data_dir=DIR --train_days=A..B --validation_days=C --output=DIR

Tries `--trials` choices of a search space (`dlen_cam2/configs/spaces.py`) with keras-tuner, trains each as
`dlen_cam2 train` does on the training days, and measures it on the validation days. OUTPUT gets `tune.md` with
`search.png`, `best.py` for `dlen_cam2 train --config=`, and `tensorboard`. The same command goes on where it was
killed.
"""

import runpy
import shlex
import sys

from absl import flags
from ml_collections import config_flags

from dlen_cam2 import tuning
from dlen_cam2.config import Config
from dlen_cam2.configs import spaces
from dlen_cam2.utils import commands
from dlen_cam2.utils.errors import UserError

FLAGS = flags.FLAGS


def define_flags() -> None:
    config_flags.DEFINE_config_file("config", None, "Experiment file, such as dlen_cam2/configs/kuairand_ple.py.")
    flags.DEFINE_string("data_dir", None, "Data set that a pipeline wrote.", required=True)
    flags.DEFINE_string("train_days", None, "Days to train on: 20220425..20220503 or a,b,c.", required=True)
    flags.DEFINE_string("validation_days", None, "Days to measure on.", required=True)
    flags.DEFINE_string("output", None, "Directory of the search.", required=True)
    flags.DEFINE_string("objective", "ne", "What to improve: ne, auc, gauc (means over tasks), or of a task: click/ne.")
    flags.DEFINE_enum("tuner", "random", tuning.TUNERS, "How values are chosen.")
    flags.DEFINE_integer("trials", 20, "How many choices to try, besides the configuration as given.", lower_bound=1)
    flags.DEFINE_string("space", None, f"Parts of the space, joined by +: {', '.join(spaces.PARTS)}. Default: "
                        "space(hp) of the experiment file, or what fits its trunk and head.")
    flags.DEFINE_integer("seed", 0, "Of the choices.", lower_bound=0)
    flags.DEFINE_integer("processes", 1, "Trials at the same time; each gets its share of the cores.", lower_bound=1)
    flags.DEFINE_bool("restart", False, "Drop what another search left in the output.")


def _space() -> spaces.Space:
    if FLAGS.space is not None:
        return spaces.named(FLAGS.space)
    own = runpy.run_path(config_flags.get_config_filename(FLAGS["config"])).get("space")
    return own or spaces.fitting(FLAGS.config)


def main() -> None:
    if not isinstance(FLAGS.config, Config):
        raise UserError("--config must name a Python file whose get_config() returns a Config.")
    found = tuning.search(
        FLAGS.config, _space(), FLAGS.data_dir, FLAGS.train_days, FLAGS.validation_days, FLAGS.objective, FLAGS.tuner,
        FLAGS.trials, FLAGS.seed, FLAGS.output, FLAGS.processes, FLAGS.restart,
    )
    command = shlex.join(["python", "-m", "dlen_cam2", "tune", *sys.argv[1:]])
    tuning.write(found, FLAGS.output, command)
    print(tuning.report.page(found, command))


if __name__ == "__main__":
    commands.run(main, define_flags)
