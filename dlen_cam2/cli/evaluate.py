"""Measure a trained model on days of a data set.

    dlen_cam2 evaluate --model_dir=DIR --data_dir=DIR --days=A..B [--output=FILE.json]
"""

import pathlib

from absl import flags

from dlen_cam2 import data, evaluation
from dlen_cam2.evaluation import report
from dlen_cam2.training import model_directory
from dlen_cam2.utils import commands, console
from dlen_cam2.utils.files import write_json

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("model_dir", None, "Model that dlen_cam2 train wrote.", required=True)
    flags.DEFINE_string("data_dir", None, "Data set that a pipeline wrote.", required=True)
    flags.DEFINE_string("days", None, "Days to measure on: 20220501..20220505, 20240108_random.", required=True)
    flags.DEFINE_string("output", None, "Also write the metrics to this JSON file.")
    flags.DEFINE_integer("bootstrap", 200, "Resamples of users behind each interval; 0: none.", lower_bound=0)
    flags.DEFINE_enum("on_bad_record", "fail", data.POLICIES, "Damaged records: stop, or skip and count them.")


def main() -> None:
    model = model_directory.load(FLAGS.model_dir)
    days = data.parse_days(FLAGS.days, list(data.statistics(FLAGS.data_dir)["days"]))
    metrics = {}
    score = evaluation.scorer(model.network, model.read_out)
    for day in days:
        predictions = evaluation.predict(score, model.schema, FLAGS.data_dir, day, on_bad_record=FLAGS.on_bad_record)
        metrics[day] = evaluation.evaluate(predictions, model.schema, FLAGS.bootstrap)
    if FLAGS.output:
        write_json(FLAGS.output, metrics)
    console.page(report.table(metrics))
    name = pathlib.Path(FLAGS.model_dir).resolve().name
    console.next_step(commands.line("export", model_dir=FLAGS.model_dir, output=f"served/{name}"))


if __name__ == "__main__":
    commands.run(main, define_flags)
