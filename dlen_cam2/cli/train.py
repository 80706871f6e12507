"""Train a model, measure it and write its directory.

    dlen_cam2 train --config=FILE --data_dir=DIR --model_dir=DIR --train_days=A..B --eval_days=C

Day by day: `--continue_from=YESTERDAYS_MODEL_DIR` goes on from its weights and optimizer state, and `--days=A..B
--eval=next` does that for many days at once. A command that was killed goes on when it is started again.
"""

import pathlib
from typing import Any

from absl import flags

from dlen_cam2 import config_file, data
from dlen_cam2.evaluation import report
from dlen_cam2.training import distribution, runs, train_request
from dlen_cam2.utils import commands, console
from dlen_cam2.utils.errors import UserError

FLAGS = flags.FLAGS


def define_flags() -> None:
    config_file.define("Experiment file, *.py.")
    flags.DEFINE_string("data_dir", None, "Data set that a pipeline wrote.", required=True)
    flags.DEFINE_string("model_dir", None, "Where the model goes; an earlier one is replaced.", required=True)
    flags.DEFINE_string("train_days", None, "Days to train on: 20220425..20220504 or a,b,c.")
    flags.DEFINE_string("eval_days", None, "Days to measure on at the end.")
    flags.DEFINE_string("days", None, "In place of both, with --eval=next: days to train on one after another.")
    flags.DEFINE_enum("eval", None, ["next"], "Measure the day after each of --days before training on it.")
    flags.DEFINE_string("validation_days", "", "Days for config.train.monitor, which chooses the best pass.")
    flags.DEFINE_string("continue_from", None, "Yesterday's model: start from its weights and optimizer state.")
    flags.DEFINE_bool("grow", False, "With --continue_from: take in new vocabulary values, features and tasks.")
    flags.DEFINE_enum("on_bad_record", "fail", data.POLICIES, "Damaged records: stop, or skip and count them.")
    flags.DEFINE_enum("strategy", "one", distribution.STRATEGIES, "Where to train; clusters are read from TF_CONFIG.")
    flags.DEFINE_integer("cpu_devices", 0, "Logical devices of the CPU, for mirrored without GPUs.", lower_bound=0)
    flags.DEFINE_string("tpu", "", "Name or address of the TPU.")
    flags.DEFINE_integer("checkpoint_steps", 0, "Steps between checkpoints; 0: by time only.", lower_bound=0)
    flags.DEFINE_float("checkpoint_seconds", 600, "Seconds between checkpoints; 0: by steps only.", lower_bound=0)
    flags.DEFINE_integer("keep", 3, "Checkpoints that stay.", lower_bound=1)
    flags.DEFINE_bool("restart", False, "Drop the state of an earlier run that was not finished.")
    flags.DEFINE_list("profile_steps", [], "First and last step to profile: 100,120.")


def main() -> None:
    wanted = _request()
    place = distribution.connect(FLAGS.strategy, FLAGS.cpu_devices, FLAGS.tpu)
    metrics = runs.train(wanted, place)
    if place.chief:
        console.page(report.table(metrics))
        console.say(f"report: {pathlib.Path(FLAGS.model_dir, report.PAGE).with_suffix('.html')}")
        name = pathlib.Path(FLAGS.model_dir).resolve().name
        console.next_step(commands.line("export", model_dir=FLAGS.model_dir, output=f"served/{name}"))


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
        "give --train_days and --eval_days, or --days and --eval=next. Received: "
        f"train_days={FLAGS.train_days}, eval_days={FLAGS.eval_days}, days={FLAGS.days}, eval={FLAGS.eval}."
    )


if __name__ == "__main__":
    commands.run(main, define_flags)
