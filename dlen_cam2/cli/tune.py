"""Search hyperparameters.

    dlen_cam2 tune --config=FILE --data_dir=DIR --train_days=A..B --validation_days=C --output=DIR

Tries `--trials` choices of a search space (`dlen_cam2/configs/spaces.py`) with keras-tuner, trains each as
`dlen_cam2 train` does on the training days, and measures it on the validation days. OUTPUT gets `tune.md` with
`search.png`, `best.py` for `dlen_cam2 train --config=`, and `tensorboard`. The same command goes on where it was
killed.
"""

import pathlib
import runpy
import shlex

from absl import flags

from dlen_cam2 import config_file, tuning
from dlen_cam2.config import Config
from dlen_cam2.configs import spaces
from dlen_cam2.utils import commands, console

FLAGS = flags.FLAGS


def define_flags() -> None:
    config_file.define("Experiment file, *.py.")
    flags.DEFINE_string("data_dir", None, "Data set that a pipeline wrote.", required=True)
    flags.DEFINE_string("train_days", None, "Days to train on: 20220425..20220503 or a,b,c.", required=True)
    flags.DEFINE_string("validation_days", None, "Days to measure on.", required=True)
    flags.DEFINE_string("output", None, "Directory of the search.", required=True)
    flags.DEFINE_string("objective", "ne", "What to improve: ne, auc, gauc (means over tasks), or of a task: click/ne.")
    flags.DEFINE_enum("tuner", "random", tuning.TUNERS, "How values are chosen.")
    flags.DEFINE_integer("trials", 20, "How many choices to try, besides the configuration as given.", lower_bound=1)
    flags.DEFINE_string("space", None, "Sections to search, joined by +: training, trunk, head, causal, … Default: "
                        "space(hp) of the experiment file, or all of them.")
    flags.DEFINE_integer("seed", 0, "Of the choices.", lower_bound=0)
    flags.DEFINE_integer("processes", 1, "Trials at the same time; each gets its share of the cores.", lower_bound=1)
    flags.DEFINE_bool("restart", False, "Drop what another search left in the output.")


def _space(config: Config) -> spaces.Space:
    if FLAGS.space is not None:
        return spaces.named(config, FLAGS.space)
    return runpy.run_path(FLAGS.config).get("space") or spaces.fitting(config)


def main() -> None:
    config = config_file.get(processes=True)
    found = tuning.search(
        config, _space(config), FLAGS.data_dir, FLAGS.train_days, FLAGS.validation_days, FLAGS.objective, FLAGS.tuner,
        FLAGS.trials, FLAGS.seed, FLAGS.output, FLAGS.processes, FLAGS.restart,
    )
    command = shlex.join(["dlen_cam2", "tune", *config_file.typed()])
    tuning.write(found, FLAGS.output, command)
    console.page(tuning.report.text_of(found, command))
    best = pathlib.Path(FLAGS.output) / tuning.report.CONFIG
    console.next_step(commands.line(
        "train", config=best, data_dir=FLAGS.data_dir, model_dir="models/tuned",
        train_days=f"{FLAGS.train_days},{FLAGS.validation_days}", eval_days="DAYS_THAT_NO_TRIAL_HAS_SEEN"))


if __name__ == "__main__":
    commands.run(main, define_flags)
