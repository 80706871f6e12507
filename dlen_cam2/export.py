"""python -m dlen_cam2.export --model_dir=DIR --output=DIR: write DIR/<version>/ for TensorFlow Serving."""

from absl import flags

from dlen_cam2 import cli, model_dir, serving

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("model_dir", None, "Model that dlen_cam2.train wrote.", required=True)
    flags.DEFINE_string("output", None, "Directory of versions; the next number is added.", required=True)
    flags.DEFINE_bool("causes", False, "Serve CAM2's conformity and relevance scores beside the tasks'.")


def main() -> None:
    target = serving.export(model_dir.load(FLAGS.model_dir), FLAGS.output, FLAGS.causes)
    print(f"SavedModel with signatures serving_default and raw: {target}")


if __name__ == "__main__":
    cli.run(main, define_flags)
