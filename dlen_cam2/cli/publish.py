"""Say which versions are served, and as what.

    dlen_cam2 publish --served=served/ranker [--stable=3] [--canary=4]

Writes models.config, batching.config and compose.yaml beside the versions, removes old versions, and prints how to
start TensorFlow Serving; one that runs takes the change over. A new version in three steps:

    publish --served=served/ranker --load=4       # the server loads it beside the others
    publish --served=served/ranker --canary=4     # once it says AVAILABLE: some clients ask for the label canary
    publish --served=served/ranker --stable=4 --canary=none --load=3      # all do; 3 stays, for the way back
"""

from absl import flags

from dlen_cam2.serving import server_files
from dlen_cam2.utils import commands, console
from dlen_cam2.utils.errors import UserError

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("served", None, "Directory of versions, as dlen_cam2 export writes it.", required=True)
    flags.DEFINE_integer("stable", None, "Version for all. Default: as it is; at first the newest.", lower_bound=0)
    flags.DEFINE_string("canary", None, "Version on trial, or none. Default: as it is.")
    flags.DEFINE_list("load", [], "Versions to load without a label.")
    flags.DEFINE_integer("keep", 5, "How many of the newest versions stay.", lower_bound=1)
    flags.DEFINE_string("name", "", "Name of the model. Default: as it is; at first the directory's name.")


def main() -> None:
    changes = {} if FLAGS.stable is None else {"stable": FLAGS.stable}
    if FLAGS.canary is not None:
        changes["canary"] = None if FLAGS.canary == "none" else _number(FLAGS.canary)
    now, removed = server_files.publish(FLAGS.served, changes, map(_number, FLAGS.load), FLAGS.keep, FLAGS.name)
    said = ", ".join(f"{label} {number}" for label, number in sorted(now.labels.items()))
    console.say(f"{now.name}: {said}; loaded are {', '.join(map(str, now.loaded))}")
    if removed:
        console.say(f"removed versions {', '.join(map(str, removed))}")
    console.say(f"to serve: docker compose -f {FLAGS.served}/{server_files.COMPOSE} up, or")
    console.next_step(server_files.docker_run(FLAGS.served, now.name))


def _number(text: str) -> int:
    if not text.isdecimal():
        raise UserError(f"a version must be a number. Received: {text!r}.")
    return int(text)


if __name__ == "__main__":
    commands.run(main, define_flags)
