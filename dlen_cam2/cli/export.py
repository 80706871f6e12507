"""Write a trained model as DIR/<version>/ for TensorFlow Serving.

    dlen_cam2 export --model_dir=DIR --output=DIR
"""

import pathlib

from absl import flags

from dlen_cam2 import serving
from dlen_cam2.serving import request_log
from dlen_cam2.serving.calibration import Calibration
from dlen_cam2.serving.fusion import Fusion
from dlen_cam2.training import model_directory
from dlen_cam2.utils import commands, console
from dlen_cam2.utils.errors import UserError

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("model_dir", None, "Directory of a model that dlen_cam2 train wrote.", required=True)
    flags.DEFINE_string("output", None, "Directory of versions; the new version gets the next number.", required=True)
    flags.DEFINE_bool("causes", False, "Serve CAM2's conformity and relevance scores beside the tasks'.")
    flags.DEFINE_string("calibration", None, "JSON file that dlen_cam2 calibrate wrote. Default: no calibration.")
    flags.DEFINE_string("fusion", None, "JSON file that dlen_cam2 search_fusion wrote. Default: the product of the "
                        "tasks that are probabilities.")
    flags.DEFINE_bool("classify", False, "Add the signature classify, whose classes are the tasks, for Classify "
                      "requests.")
    flags.DEFINE_string("regress", "", "Score, such as fused, that the signature regress answers, for Regress "
                        "requests. Default: no such signature.")
    flags.DEFINE_string("data_dir", None, "Directory of a data set whose rows warm up a server. Default: rows that are "
                        "generated from the schema.")
    flags.DEFINE_string("day", None, "Day of --data_dir to take these rows from.")


def main() -> None:
    model = model_directory.load(FLAGS.model_dir)
    if (FLAGS.data_dir is None) != (FLAGS.day is None):
        raise UserError("--data_dir and --day must be given together. Received: "
                            f"data_dir={FLAGS.data_dir}, day={FLAGS.day}.")
    target = serving.export(
        model, FLAGS.output, FLAGS.causes,
        rows=request_log.first_rows(FLAGS.data_dir, FLAGS.day, model.schema, max(request_log.CANDIDATES))
        if FLAGS.data_dir else None,
        calibration=Calibration.load(FLAGS.calibration) if FLAGS.calibration else None,
        fusion=Fusion.load(FLAGS.fusion) if FLAGS.fusion else None, classify=FLAGS.classify, regress=FLAGS.regress,
    )
    console.say(f"SavedModel: {target}")
    name = pathlib.Path(FLAGS.output).resolve().name
    console.next_step(commands.line("serve", served=FLAGS.output, name=name))


if __name__ == "__main__":
    commands.run(main, define_flags)
