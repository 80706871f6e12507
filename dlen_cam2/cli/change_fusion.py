"""Write the next version of a served model with other weights of the fused score.

    dlen_cam2 change_fusion --served=served/ranker --fusion=fusion.json

The network and all else is as in the version that it is made of; see `dlen_cam2.serving.fusion` for the formula.
"""

from absl import flags

from dlen_cam2.serving.fusion import Fusion, reweigh
from dlen_cam2.utils import commands, console

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("served", None, "Directory of versions, as dlen_cam2 export writes it.", required=True)
    flags.DEFINE_string("fusion", None, "JSON file, as dlen_cam2 search_fusion writes it or by hand.", required=True)
    flags.DEFINE_integer("version", None, "Version to take. Default: the newest.", lower_bound=0)


def main() -> None:
    target = reweigh(FLAGS.served, Fusion.load(FLAGS.fusion), FLAGS.version)
    console.say(f"version with the weights of {FLAGS.fusion}: {target}")
    console.next_step(commands.line("publish", served=FLAGS.served, canary=target.name))


if __name__ == "__main__":
    commands.run(main, define_flags)
