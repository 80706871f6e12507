"""Choose which versions are served, and under which labels.

    dlen_cam2 publish --served=served/ranker [--stable=3] [--canary=4]

The command writes models.config, batching.config and compose.yaml beside the versions, removes old versions, and prints
how to start TensorFlow Serving. A server that is running picks up the change. Roll out a new version in three steps:

    publish --served=served/ranker --load=4       # the server loads it beside the others
    publish --served=served/ranker --canary=4     # once it is AVAILABLE: some clients ask for the label canary
    publish --served=served/ranker --stable=4 --canary=none --load=3      # all clients get 4; 3 stays for a rollback
"""

from absl import flags

from dlen_cam2.serving import server_files
from dlen_cam2.utils import commands, console
from dlen_cam2.utils.errors import UserError

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("served", None, "Directory of versions that dlen_cam2 export wrote.", required=True)
    flags.DEFINE_integer("stable", None, "Version with the label stable, which all clients get. Default: unchanged; "
                         "the newest at first.", lower_bound=0)
    flags.DEFINE_string("canary", None, "Version with the label canary, which some clients get, or none. Default: "
                        "unchanged.")
    flags.DEFINE_list("load", [], "Versions to load without a label, separated by commas.")
    flags.DEFINE_integer("keep", 5, "Number of the newest versions to keep; older ones are removed.", lower_bound=1)
    flags.DEFINE_string("name", "", "Name of the model in requests. Default: unchanged; the directory's name at first.")


def main() -> None:
    changes = {} if FLAGS.stable is None else {"stable": FLAGS.stable}
    if FLAGS.canary is not None:
        changes["canary"] = None if FLAGS.canary == "none" else _number(FLAGS.canary)
    now, removed = server_files.publish(FLAGS.served, changes, map(_number, FLAGS.load), FLAGS.keep, FLAGS.name)
    said = ", ".join(f"{label} {number}" for label, number in sorted(now.labels.items()))
    console.say(f"{now.name}: {said}; loaded versions: {', '.join(map(str, now.loaded))}")
    if removed:
        console.say(f"removed versions: {', '.join(map(str, removed))}")
    console.say(f"to serve: docker compose -f {FLAGS.served}/{server_files.COMPOSE} up, or")
    console.next_step(server_files.docker_run(FLAGS.served, now.name))


def _number(text: str) -> int:
    if not text.isdecimal():
        raise UserError(f"a version must be a number. Received: {text!r}.")
    return int(text)


if __name__ == "__main__":
    commands.run(main, define_flags)
