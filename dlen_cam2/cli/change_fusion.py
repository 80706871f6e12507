"""Write the next version of a served model with other weights of the fused score.

    dlen_cam2 change_fusion --served=served/ranker --fusion=fusion.json

Everything else, including the network, is copied from the earlier version. `dlen_cam2.serving.fusion` documents the
formula.
"""

from absl import flags

from dlen_cam2.serving.fusion import Fusion, reweigh
from dlen_cam2.utils import commands, console

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("served", None, "Directory of versions that dlen_cam2 export wrote.", required=True)
    flags.DEFINE_string("fusion", None, "JSON file that dlen_cam2 search_fusion or you wrote.", required=True)
    flags.DEFINE_integer("version", None, "Version to copy. Default: the newest.", lower_bound=0)


def main() -> None:
    target = reweigh(FLAGS.served, Fusion.load(FLAGS.fusion), FLAGS.version)
    console.say(f"version with the weights of {FLAGS.fusion}: {target}")
    console.next_step(commands.line("publish", served=FLAGS.served, canary=target.name))


if __name__ == "__main__":
    commands.run(main, define_flags)
