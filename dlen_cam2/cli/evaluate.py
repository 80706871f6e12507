"""Measure a trained model on days of a data set.

    dlen_cam2 evaluate --model_dir=DIR --data_dir=DIR --days=A..B [--output=FILE.json]
"""


from absl import flags

from dlen_cam2 import data, evaluation
from dlen_cam2.evaluation import report
from dlen_cam2.training import model_directory
from dlen_cam2.utils import commands, console
from dlen_cam2.utils.files import write_json

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("model_dir", None, "Directory of a model that dlen_cam2 train wrote.", required=True)
    flags.DEFINE_string("data_dir", None, "Directory of a data set that a pipeline wrote.", required=True)
    flags.DEFINE_string("days", None, "Days to measure on, such as 20220501..20220505 or 20240108_random.",
                        required=True)
    flags.DEFINE_string("output", None, "JSON file to write the metrics to. Default: they are only printed.")
    flags.DEFINE_integer("bootstrap", 200, "Bootstrap resamples of the users for the intervals; 0: no intervals.",
                         lower_bound=0)
    flags.DEFINE_enum("on_bad_record", "fail", data.POLICIES, "Damaged records: fail stops, skip leaves them out and "
                      "counts them.")


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
    console.next_step(commands.line("export", model_dir=FLAGS.model_dir, output=commands.SERVED))


if __name__ == "__main__":
    commands.run(main, define_flags)
