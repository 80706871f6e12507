"""Search for the best hyperparameters of a model.

    dlen_cam2 tune --config=FILE --data_dir=DIR --train_days=A..B --validation_days=C --output=DIR

The command draws `--trials` configurations from a search space (`dlen_cam2/configs/spaces.py`) with keras-tuner, trains
each on the training days as `dlen_cam2 train` does, and measures it on the validation days. It writes `tune.md` with
`search.png`, `best.py` for `dlen_cam2 train --config=`, and `tensorboard` to the output directory. A command that was
killed resumes when you run it again.
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
    config_file.define("Python file of the experiment, with get_config().")
    flags.DEFINE_string("data_dir", None, "Directory of a data set that a pipeline wrote.", required=True)
    flags.DEFINE_string("train_days", None, "Days to train on, such as 20220425..20220503 or a,b,c.", required=True)
    flags.DEFINE_string("validation_days", None, "Days to measure the trials on.", required=True)
    flags.DEFINE_string("output", None, "Directory to write the search to.", required=True)
    flags.DEFINE_string("objective", "ne", "Metric to improve: ne, auc or gauc (the mean over tasks), or one task's, "
                        "such as click/ne.")
    flags.DEFINE_enum("tuner", "random", tuning.TUNERS, "Method that chooses the values.")
    flags.DEFINE_integer("trials", 20, "Number of trials, besides the configuration as given.", lower_bound=1)
    flags.DEFINE_string("space", None, "Sections to search, joined by +, such as training+trunk+head. Default: "
                        "space(hp) of the experiment file if it has one, else all sections.")
    flags.DEFINE_integer("seed", 0, "Seed of the choices.", lower_bound=0)
    flags.DEFINE_integer("processes", 1, "Number of trials to run at the same time; they share the cores.",
                         lower_bound=1)
    flags.DEFINE_bool("restart", False, "Discard an earlier search in the output directory.")


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
