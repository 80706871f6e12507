"""python -m dlen_cam2.inspect MODEL_DIR --data_dir=DIR --day=D --output=DIR: what a trained model does inside.

Prints tables and writes them with pictures, `inspect.md`, `gates.png`, `latent.png`, over all rows of the day:

- gates: how much each task listens to each expert, how evenly, and which experts nobody uses;
- DLEN: how near P(k|¬UP) is to its cap, and P(UP) by the number of positive behaviours.
"""

from absl import flags

from dlen_cam2 import cli, data, inspection, model_dir, schema_pbtxt
from dlen_cam2.files import replaceable, staged

FLAGS = flags.FLAGS

REPORT = "inspect.md"


def define_flags() -> None:
    flags.DEFINE_string("model_dir", None, "Model that dlen_cam2.train wrote.")
    flags.DEFINE_string("data_dir", None, "Data set that a pipeline wrote.", required=True)
    flags.DEFINE_string("day", None, "Day to look at: 20220505, 20240108_random.", required=True)
    flags.DEFINE_string("output", None, "Directory for inspect.md and its pictures.", required=True)
    flags.DEFINE_integer("batch_size", 4096, "Rows that are scored together.", lower_bound=1)
    flags.DEFINE_enum("on_bad_record", "fail", data.POLICIES, "Damaged records: stop, or skip and count them.")


def main() -> None:
    output = replaceable(FLAGS.output, REPORT)
    model = model_dir.load(FLAGS.model_dir)
    stored = schema_pbtxt.load(FLAGS.data_dir).columns
    absent = [name for name in model.schema.columns if name not in stored]
    if absent:
        raise cli.UserError(
            f"{FLAGS.data_dir} lacks columns that the model in {FLAGS.model_dir} reads: {absent}. "
            f"It has: {list(stored)}."
        )
    with data.explained(FLAGS.data_dir, model.schema, [FLAGS.day]):
        batches = data.read(
            FLAGS.data_dir, model.schema, [FLAGS.day], FLAGS.batch_size, on_bad_record=FLAGS.on_bad_record
        )
        found = inspection.inspect(model.network, model.schema, batches)
    text = inspection.tables(found)
    with staged(output, REPORT) as stage:
        pictures = inspection.draw(stage, found)
        shown = "".join(f"\n![{name.removesuffix('.png')}]({name})\n" for name in pictures)
        title = f"# {model.config.name}: {model.config.model.trunk} trunk, {model.config.model.head} head, {FLAGS.day}"
        (stage / REPORT).write_text(f"{title}\n\n{text}{shown}", encoding="utf-8")
    print(text)
    print(f"{REPORT}{''.join(f', {name}' for name in pictures)} are in {output}")


if __name__ == "__main__":
    cli.run(main, define_flags, positional="model_dir")
