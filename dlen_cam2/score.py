"""python -m dlen_cam2.score --model=DIR --data_dir=DIR --day=D [--rows=5]: ask a SavedModel for scores.

It knows nothing of how the model was built: it restores the SavedModel into a TensorFlow session, as a
serving process would, and sends the raw columns of the day's first rows.
"""

import pathlib

import tensorflow as tf
from absl import flags

from dlen_cam2 import cli, data, schema_pbtxt

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("model", None, "A version directory, or the directory of versions (newest).", required=True)
    flags.DEFINE_string("data_dir", None, "Data set to take rows from.", required=True)
    flags.DEFINE_string("day", None, "Day to take rows from.", required=True)
    flags.DEFINE_integer("rows", 5, "How many rows to score.", lower_bound=1)


def main() -> None:
    version = pathlib.Path(FLAGS.model)
    numbers = [int(p.name) for p in version.glob("*") if p.name.isdigit()]
    version = version / str(max(numbers)) if numbers else version
    schema = schema_pbtxt.load(FLAGS.data_dir)
    chunks = data.raw_columns(data.shards(FLAGS.data_dir, [FLAGS.day]), schema)
    first = next(iter(chunks), None)
    if first is None:
        raise cli.UserError(f"day {FLAGS.day} of {FLAGS.data_dir} must have rows. Received: none.")
    columns = {name: column[: FLAGS.rows].numpy() for name, column in data.padded(first, schema).items()}
    tf.get_logger().setLevel("ERROR")  # it would advise the Python loader, which is not what a server uses
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        try:
            meta = tf.compat.v1.saved_model.load(session, ["serve"], str(version))
        except (OSError, tf.errors.OpError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise cli.UserError(f"{version} holds no SavedModel. Received: {reason}") from error
        signature = meta.signature_def["raw"]
        fetch = {name: tensor.name for name, tensor in sorted(signature.outputs.items())}
        scores = session.run(fetch, {tensor.name: columns[name] for name, tensor in signature.inputs.items()})
    print("row  " + "  ".join(f"{name:>14}" for name in fetch))
    for row in range(len(next(iter(scores.values())))):
        print(f"{row:>3}  " + "  ".join(f"{scores[name][row]:14.6f}" for name in fetch))


if __name__ == "__main__":
    cli.run(main, define_flags)
