"""Score the first rows of a day with an exported SavedModel.

    dlen_cam2 predict --model=DIR --data_dir=DIR --day=D [--rows=5]

The command does not need the code that built the model: it restores the SavedModel into a TensorFlow session, as a
serving process would, and sends the raw columns of the rows.
"""

from absl import flags

from dlen_cam2.schema import pbtxt
from dlen_cam2.serving import request_log, versions
from dlen_cam2.utils import commands, console
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.markdown import markdown

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("model", None, "Directory of a version, or of versions, of which the newest is used.",
                        required=True)
    flags.DEFINE_string("data_dir", None, "Directory of a data set to take rows from.", required=True)
    flags.DEFINE_string("day", None, "Day to take rows from.", required=True)
    flags.DEFINE_integer("rows", 5, "Number of rows to score.", lower_bound=1)


def main() -> None:
    version = versions.resolve(FLAGS.model)
    model = versions.load(version)
    if "raw" not in model.signatures:
        raise UserError(f"{version} must have the signature raw. Received: {sorted(model.signatures)}.")
    schema = pbtxt.load(FLAGS.data_dir).select(features=model.signatures["raw"].inputs)
    scores = model.run("raw", request_log.first_rows(FLAGS.data_dir, FLAGS.day, schema, FLAGS.rows))
    rows = len(next(iter(scores.values())))
    console.page(markdown(["score", *(f"row {r}" for r in range(rows))],
                          ([name, *(f"{value:.6g}" for value in values)] for name, values in scores.items())))
    console.next_step(commands.line("serve", served=version.parent, name=version.parent.name))


if __name__ == "__main__":
    commands.run(main, define_flags)
