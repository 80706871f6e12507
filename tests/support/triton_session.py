"""Serve a signature of a SavedModel by Triton, ask it through Triton's own client, and print the scores.

Runs in an environment of its own, with nvidia-pytriton, tensorflow and numpy < 2, and without this package:
`python triton_session.py MODEL SIGNATURE ROWS.npz`. The wheel has Triton's core and its Python backend, which is why a
session of TensorFlow answers inside it.
"""

import contextlib
import json
import socket
import sys

import numpy as np
import tensorflow as tf
from pytriton.client import ModelClient
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

KINDS = {tf.string: bytes, tf.int64: np.int64, tf.int32: np.int32, tf.float32: np.float32}


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        return [held.enter_context(socket.create_server(("localhost", 0))).getsockname()[1] for _ in range(count)]


def main(model: str, name: str, rows: str) -> None:
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        signature = tf.compat.v1.saved_model.load(session, ["serve"], model).signature_def[name]
    fetch = {name: tensor.name for name, tensor in signature.outputs.items()}

    def infer(requests: list) -> list:
        return [session.run(fetch, {signature.inputs[n].name: v for n, v in r.items()}) for r in requests]

    def tensors(stated: dict) -> list:
        return [
            Tensor(name=name, dtype=KINDS[tf.as_dtype(t.dtype)], shape=(-1,) * len(t.tensor_shape.dim))
            for name, t in stated.items()
        ]

    with np.load(rows) as stored:
        columns = {name: np.char.encode(v, "utf-8") if v.dtype.kind == "U" else v for name, v in stored.items()}
    ports = free_ports(2)
    config = TritonConfig(http_port=ports[0], grpc_port=ports[1], allow_metrics=False)
    with Triton(config=config) as triton:
        triton.bind(
            model_name="ranker", infer_func=infer, inputs=tensors(signature.inputs), outputs=tensors(signature.outputs),
            config=ModelConfig(batching=False),
        )
        triton.run()
        with ModelClient(f"http://localhost:{ports[0]}", "ranker") as client:
            scores = client.infer_sample(**columns)
    print(json.dumps({name: values.tolist() for name, values in scores.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
