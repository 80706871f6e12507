"""Train a model, measure it and write it to a directory.

    dlen_cam2 train --config=FILE --data_dir=DIR --model_dir=DIR --train_days=A..B --eval_days=C

To train day by day, start from yesterday's weights and optimizer state with `--continue_from=YESTERDAYS_MODEL_DIR`, or
train on many days one after another with `--days=A..B --eval=next`. A command that was killed resumes when you run it
again.
"""

import pathlib
from typing import Any

from absl import flags

from dlen_cam2 import config_file, data
from dlen_cam2.evaluation import report
from dlen_cam2.training import distribution, runs, train_request
from dlen_cam2.utils import commands, console, page
from dlen_cam2.utils.errors import UserError

FLAGS = flags.FLAGS


def define_flags() -> None:
    config_file.define("Python file of the experiment, with get_config().")
    flags.DEFINE_string("data_dir", None, "Directory of a data set that a pipeline wrote.", required=True)
    flags.DEFINE_string("model_dir", None, "Directory to write the model to; an earlier model there is replaced.",
                        required=True)
    flags.DEFINE_string("train_days", None, "Days to train on, such as 20220425..20220504 or a,b,c.")
    flags.DEFINE_string("eval_days", None, "Days to measure on at the end.")
    flags.DEFINE_string("days", None, "Days to train on one after another, with --eval=next, in place of --train_days "
                        "and --eval_days.")
    flags.DEFINE_enum("eval", None, ["next"], "next: after training on each of --days, measure the day that follows "
                      "it.")
    flags.DEFINE_string("validation_days", "", "Days on which config.train.monitor is measured to choose the best "
                        "pass.")
    flags.DEFINE_string("continue_from", None, "Directory of yesterday's model, whose weights and optimizer state to "
                        "start from.")
    flags.DEFINE_bool("grow", False, "With --continue_from: take in new vocabulary values, features and tasks.")
    flags.DEFINE_enum("on_bad_record", "fail", data.POLICIES, "Damaged records: fail stops, skip leaves them out and "
                      "counts them.")
    flags.DEFINE_enum("strategy", "one", distribution.STRATEGIES, "Devices to train on; the addresses of a cluster are "
                      "read from the environment variable TF_CONFIG.")
    flags.DEFINE_integer("cpu_devices", 0, "Number of logical CPU devices, for --strategy=mirrored without GPUs.",
                         lower_bound=0)
    flags.DEFINE_string("tpu", "", "Name or address of the TPU, for --strategy=tpu.")
    flags.DEFINE_integer("checkpoint_steps", 0, "Steps between checkpoints; 0: by time only.", lower_bound=0)
    flags.DEFINE_float("checkpoint_seconds", 600, "Seconds between checkpoints; 0: by steps only.", lower_bound=0)
    flags.DEFINE_integer("keep", 3, "Number of checkpoints to keep.", lower_bound=1)
    flags.DEFINE_bool("restart", False, "Discard the state of an earlier run that was not finished.")
    flags.DEFINE_list("profile_steps", [], "First and last step to profile, such as 100,120. Default: no profile.")


def main() -> None:
    wanted = _request()
    place = distribution.connect(FLAGS.strategy, FLAGS.cpu_devices, FLAGS.tpu)
    metrics = runs.train(wanted, place)
    if place.chief:
        console.page(report.table(metrics))
        console.say(f"report: {page.html_of(pathlib.Path(FLAGS.model_dir, report.PAGE))}")
        console.next_step(commands.line("export", model_dir=FLAGS.model_dir, output=commands.SERVED))


def _request() -> train_request.Request:
    profiled = FLAGS.profile_steps
    numbers = [int(step) for step in profiled if step.isdigit()]
    if profiled and not (len(numbers) == len(profiled) == 2 and 0 < numbers[0] <= numbers[1]):
        raise UserError(f"--profile_steps must be the first and last step, such as 100,120. Received: {profiled}.")
    options: dict[str, Any] = {
        name: getattr(FLAGS, name)
        for name in (
            "continue_from", "grow", "on_bad_record", "checkpoint_steps", "checkpoint_seconds", "keep", "restart",
        )
    }
    options |= {"profile_steps": tuple(numbers), "validation_days": FLAGS.validation_days}
    recurring, once = (FLAGS.days, FLAGS.eval), (FLAGS.train_days, FLAGS.eval_days)
    if all(recurring) and not any(once):
        return train_request.recurring(config_file.get(), FLAGS.data_dir, FLAGS.model_dir, FLAGS.days, **options)
    if all(once) and not any(recurring):
        return train_request.once(config_file.get(), FLAGS.data_dir, FLAGS.model_dir, *once, **options)
    raise UserError(
        "either --train_days and --eval_days, or --days and --eval=next must be given. Received: "
        f"train_days={FLAGS.train_days}, eval_days={FLAGS.eval_days}, days={FLAGS.days}, eval={FLAGS.eval}."
    )


if __name__ == "__main__":
    commands.run(main, define_flags)
