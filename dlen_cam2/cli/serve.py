"""Serve versions locally over gRPC and REST, in place of TensorFlow Serving.

    dlen_cam2 serve --served=DIR --name=ranker

Use this server for tests, and where Docker is not available. It listens on the loopback interface only, and it is slow,
since every request passes through Python. In production, run the tensorflow/serving image on the same directory. The
server finishes the requests in flight and stops on SIGTERM or Ctrl-C.
"""

import signal
import sys
import threading

from absl import flags

from dlen_cam2.serving.testing_server import grpc_server, rest
from dlen_cam2.utils import commands, console
from dlen_cam2.utils.errors import UserError

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("served", None, "Directory of versions that dlen_cam2 export wrote.", required=True)
    flags.DEFINE_string("name", "ranker", "The model's name in requests.")
    flags.DEFINE_integer("port", 8500, "Port for gRPC; 0: any free port.", lower_bound=0, upper_bound=65535)
    flags.DEFINE_integer("rest_port", 8501, "Port for REST; 0: any free port.", lower_bound=0, upper_bound=65535)
    flags.DEFINE_string("models_config", None, "TensorFlow Serving's models.config, which names the versions to serve "
                        "and their labels. Default: the newest version.")
    flags.DEFINE_float("poll_seconds", 1, "Seconds between two looks at the directory and at --models_config.",
                       lower_bound=0.01)


def main() -> None:
    model = grpc_server.Model(FLAGS.name, FLAGS.served, FLAGS.models_config)
    model.poll()
    if not model.served:
        raise UserError(f"{FLAGS.served} must hold a version that can be loaded. Received: none.")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    server, port = grpc_server.start(model, FLAGS.port)
    web = rest.start(model, FLAGS.rest_port)
    console.say(f"{FLAGS.name}: gRPC on 127.0.0.1:{port}, REST on 127.0.0.1:{web.server_port}")
    console.next_step(f"curl -s http://127.0.0.1:{web.server_port}/v1/models/{FLAGS.name}/metadata  # Ctrl-C stops the "
                      f"server")
    while not ended.wait(FLAGS.poll_seconds):
        try:
            model.poll()
        except UserError as error:  # what was served still is
            print(f"error: {error}", file=sys.stderr, flush=True)
    web.shutdown()
    server.stop(grace=30).wait()


if __name__ == "__main__":
    commands.run(main, define_flags)
