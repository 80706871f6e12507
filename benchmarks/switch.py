"""python -m benchmarks.switch --served=DIR --requests=100000: is an answer lost or mixed while versions are switched?

Starts `dlen_cam2 serve` on a directory of its own, publishes copies of DIR's two newest versions there by turns under
rising numbers (renamed into place, old ones removed), and asks on loopback all the while. An answer is mixed if it is
not what the version that it names says of that request. Requests are those of the warm-up file to `--signature`. Both
sides are Python: the requests a second and their latencies say nothing of TensorFlow Serving.
"""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from absl import flags
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from dlen_cam2.serving import request_log, versions
from dlen_cam2.serving.servable import Servable
from dlen_cam2.utils import commands
from dlen_cam2.utils.errors import UserError

FLAGS = flags.FLAGS
ROOT = pathlib.Path(__file__).parent.parent
NAME = "ranker"
_PATIENCE = 300.0  # seconds

Scores = dict[str, np.ndarray]


@dataclasses.dataclass
class Tally:
    """What came of the requests. All clients write to one: a list's `append` is atomic.

    Attributes:
        seconds: of each answer.
        versions: that each answer names.
        mixed: versions of the answers that are not what that version says.
        lost: reasons why there was no answer.
        elapsed: seconds from the first request to the last answer.
    """

    seconds: list[float] = dataclasses.field(default_factory=list)
    versions: list[int] = dataclasses.field(default_factory=list)
    mixed: list[int] = dataclasses.field(default_factory=list)
    lost: list[str] = dataclasses.field(default_factory=list)
    elapsed: float = 0.0


@contextlib.contextmanager
def server(served: pathlib.Path, *options: str) -> Iterator[tuple[int, int]]:
    """`dlen_cam2 serve` in a process of its own, on free ports: yields gRPC's and REST's."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "dlen_cam2", "serve", f"--served={served}", f"--name={NAME}", *options]
    ports = ["--port=0", "--rest_port=0"]
    process = subprocess.Popen([*command, *ports], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        ready = (re.search(r"gRPC on .*:(\d+), REST on .*:(\d+)", line) for line in process.stdout)
        found = next(filter(None, ready), None)
        if found is None:
            raise UserError(f"dlen_cam2 serve ended with status {process.wait()}.")
        threading.Thread(target=process.stdout.read, daemon=True).start()  # so that its pipe is never full
        yield int(found[1]), int(found[2])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def publish(version: pathlib.Path, served: pathlib.Path) -> int:
    """Rename a copy of `version` into `served` under the next number, and remove all but three versions."""
    target = versions.following(served)
    aside = served / f".{target.name}"
    shutil.copytree(version, aside)
    aside.rename(target)
    versions.prune(served, 3, ())
    return int(target.name)


def scores(response: predict_pb2.PredictResponse) -> Scores:
    return {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}


def same(a: Scores, b: Scores) -> bool:
    return a.keys() == b.keys() and all(np.allclose(a[name], b[name], rtol=1e-5, atol=1e-7) for name in a)


def ask(
    port: int, requests: Sequence[Any], wanted: Sequence[Sequence[Scores]], number: int, least: int, tally: Tally
) -> None:
    """Send `number` requests, one after another, and more (for so long as `_PATIENCE`) until `least` versions answered.

    Version n must answer as `wanted[(n - 1) % len(wanted)]`.
    """
    end = time.monotonic() + _PATIENCE
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for i in itertools.count():
            if i >= number and (len(set(tally.versions)) >= least or time.monotonic() > end):
                break
            begun = time.perf_counter()
            try:
                response = stub.Predict(requests[i % len(requests)], timeout=60)
            except grpc.RpcError as error:
                tally.lost.append(f"{error.code()}: {error.details()}")
                continue
            tally.seconds.append(time.perf_counter() - begun)
            version = response.model_spec.version.value
            tally.versions.append(version)
            if not same(scores(response), wanted[(version - 1) % len(wanted)][i % len(requests)]):
                tally.mixed.append(version)


def switching(
    parts: Sequence[pathlib.Path], requests: Sequence[Any], number: int, clients: int, seconds: float, least: int = 1
) -> Tally:
    """Ask `number` times through `clients` connections while one of `parts` after another becomes the newest version.

    Where that is over before `least` versions answered, they go on asking, see `ask`.

    Raises:
        UserError: two of `parts` answer alike, so that a mixture would not show.
    """
    wanted = []
    for part in parts:
        version = Servable(NAME, part)
        wanted.append([scores(version.predict(request)) for request in requests])
    if any(same(a, b) for a, b in zip(*wanted[:2], strict=True)):
        raise UserError(f"the versions must give different scores. Received: {[str(part) for part in parts]}.")
    tally = Tally()
    with tempfile.TemporaryDirectory() as directory:
        served = pathlib.Path(directory)
        newest = publish(parts[0], served)
        with server(served, "--poll_seconds=0.1") as (port, _), futures.ThreadPoolExecutor(clients) as pool:
            begun = time.perf_counter()
            shares = [number // clients + (client < number % clients) for client in range(clients)]
            asked = [pool.submit(ask, port, requests, wanted, share, least, tally) for share in shares]
            while futures.wait(asked, timeout=seconds).not_done:
                if newest in tally.versions:  # else it might be removed before a slow server has loaded it
                    newest = publish(parts[newest % len(parts)], served)
                answered = len(tally.seconds)
                print(f"{answered:,} of {number:,} answered, {len(tally.lost)} lost, {len(tally.mixed)} mixed, version "
                      f"{newest} published, {answered / (time.perf_counter() - begun):.0f} a second", flush=True)
            tally.elapsed = time.perf_counter() - begun
    for client in asked:
        client.result()  # raises what it raised
    return tally


def define_flags() -> None:
    flags.DEFINE_string("served", None, "Directory of versions of one model, of different weights.", required=True)
    flags.DEFINE_string("signature", "rank", "Requests of the warm-up file that are sent: those to this signature.")
    flags.DEFINE_integer("requests", 100_000, "How many are sent.", lower_bound=1)
    flags.DEFINE_integer("clients", 4, "Connections.", lower_bound=1)
    flags.DEFINE_float("switch_seconds", 3.0, "Between two switches.", lower_bound=0.1)


def main() -> None:
    parts = [pathlib.Path(FLAGS.served, str(number)) for number in versions.numbers(FLAGS.served)[-2:]]
    if len(parts) < 2:
        raise UserError(f"{FLAGS.served} must hold two versions. Received: {len(parts)}.")
    logs = request_log.read(parts[0] / request_log.WARM_UP)
    recordings = [log.predict_log.request for log in logs]
    requests = [request for request in recordings if request.model_spec.signature_name == FLAGS.signature]
    if not requests:
        raise UserError(f"{parts[0] / request_log.WARM_UP} must hold requests to {FLAGS.signature}. Received: none.")
    tally = switching(parts, requests, FLAGS.requests, FLAGS.clients, FLAGS.switch_seconds)
    p50, p99 = 1e3 * np.quantile(tally.seconds, (0.5, 0.99))
    print(
        f"{len(tally.seconds)} answers of {len(set(tally.versions))} versions: {len(tally.lost)} lost, "
        f"{len(tally.mixed)} mixed; {len(tally.seconds) / tally.elapsed:.0f} a second, "
        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"
    )
    if tally.lost or tally.mixed:
        raise UserError(f"all must be answered by one version. Received: {tally.lost[:3]}, {tally.mixed[:3]}.")


if __name__ == "__main__":
    commands.run(main, define_flags)
