"""Show the gates, the caps and the latent state of a trained model.

    dlen_cam2 introspect MODEL_DIR --data_dir=DIR --day=D --output=DIR

The command prints tables over all rows of the day, and writes them with pictures to `inspect.md`, `gates.png` and
`latent.png`:

- gates: how much weight each task gives to each expert, how evenly, and which experts no task uses;
- DLEN: how close P(k|¬UP) is to its cap, and P(UP) by the number of positive behaviours.
"""

from absl import flags

from dlen_cam2 import data
from dlen_cam2.evaluation import introspection
from dlen_cam2.evaluation.introspection_report import draw, tables
from dlen_cam2.schema import pbtxt
from dlen_cam2.training import model_directory
from dlen_cam2.utils import commands, console, page
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import replaceable, staged

FLAGS = flags.FLAGS

REPORT = "inspect.md"


def define_flags() -> None:
    flags.DEFINE_string("model_dir", None, "Directory of a model that dlen_cam2 train wrote; required.")
    flags.DEFINE_string("data_dir", None, "Directory of a data set that a pipeline wrote.", required=True)
    flags.DEFINE_string("day", None, "Day to look at, such as 20220505 or 20240108_random.", required=True)
    flags.DEFINE_string("output", None, "Directory to write inspect.md and its pictures to.", required=True)
    flags.DEFINE_integer("batch_size", 4096, "Number of rows that are scored together.", lower_bound=1)
    flags.DEFINE_enum("on_bad_record", "fail", data.POLICIES, "Damaged records: fail stops, skip leaves them out and "
                      "counts them.")


def main() -> None:
    output = replaceable(FLAGS.output, REPORT)
    model = model_directory.load(FLAGS.model_dir)
    stored = pbtxt.load(FLAGS.data_dir).columns
    absent = [name for name in model.schema.columns if name not in stored]
    if absent:
        raise UserError(
            f"{FLAGS.data_dir} must have the columns that the model in {FLAGS.model_dir} reads. Received: no "
            f"{absent} among {list(stored)}."
        )
    with data.explained(FLAGS.data_dir, model.schema, [FLAGS.day]):
        batches = data.read(
            FLAGS.data_dir, model.schema, [FLAGS.day], FLAGS.batch_size, on_bad_record=FLAGS.on_bad_record
        )
        found = introspection.inspect(model.network, model.read_out, batches)
    text = tables(found)
    with staged(output, REPORT) as stage:
        pictures = draw(stage, found)
        shown = "".join(f"\n![{name.removesuffix('.png')}]({name})\n" for name in pictures)
        title = f"# {model.config.name}: {model.network.name}, {FLAGS.day}"
        page.write(stage / REPORT, f"{title}\n\n{text}{shown}")
    console.page(text)
    console.next_step(f"open {page.html_of(output / REPORT)}")


if __name__ == "__main__":
    commands.run(main, define_flags, positional="model_dir")
