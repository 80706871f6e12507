"""python -m dlen_cam2.train --config=FILE --data_dir=DIR --model_dir=DIR --train_days=A..B --eval_days=C.

Day by day: `--continue_from=YESTERDAYS_MODEL_DIR` goes on from its weights and optimizer state.
"""

from absl import flags
from ml_collections import config_flags

from dlen_cam2 import cli, data, report, trainer
from dlen_cam2.config import Config

FLAGS = flags.FLAGS


def define_flags() -> None:
    config_flags.DEFINE_config_file("config", None, "Experiment file, such as dlen_cam2/configs/kuairand_ple.py.")
    flags.DEFINE_string("data_dir", None, "Data set that a pipeline wrote.", required=True)
    flags.DEFINE_string("model_dir", None, "Where the model goes; an earlier one is replaced.", required=True)
    flags.DEFINE_string("train_days", None, "Days to train on: 20220425..20220504 or a,b,c.", required=True)
    flags.DEFINE_string("eval_days", None, "Days to measure on.", required=True)
    flags.DEFINE_string("continue_from", None, "Yesterday's model: start from its weights and optimizer state.")
    flags.DEFINE_enum("on_bad_record", "fail", data.POLICIES, "Damaged records: stop, or skip and count them.")


def main() -> None:
    if not isinstance(FLAGS.config, Config):
        received = "none" if FLAGS.config is None else config_flags.get_config_filename(FLAGS["config"])
        raise cli.UserError(
            f"--config must name a Python file whose get_config() returns a Config. Received: {received}."
        )
    metrics = trainer.train(
        FLAGS.config, FLAGS.data_dir, FLAGS.model_dir, FLAGS.train_days, FLAGS.eval_days, FLAGS.continue_from,
        FLAGS.on_bad_record,
    )
    print(report.table(metrics))
    print(f"model, metrics.json and report.md are in {FLAGS.model_dir}")


if __name__ == "__main__":
    cli.run(main, define_flags)
