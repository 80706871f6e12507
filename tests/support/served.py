"""Requests to a server of two versions, and what it answers."""

import json
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf

from benchmarks.switch import NAME
from dlen_cam2.serving import request_log

Code = grpc.StatusCode


def write_config(path, labels):
    chosen = "".join(f"versions: {number} " for number in sorted(set(labels.values())))
    text = "".join(f'version_labels {{ key: "{label}" value: {number} }} ' for label, number in labels.items())
    path.write_text(
        f'model_config_list {{ config {{ name: "{NAME}" base_path: "/models/{NAME}" model_platform: "tensorflow" '
        f"model_version_policy {{ specific {{ {chosen} }} }} {text} }} }}"
    )


def predict(schema, columns, signature, version=1):
    """A PredictRequest of version 1, which is the trained one."""
    request = request_log.request(schema, columns, NAME, signature).predict_log.request
    request.model_spec.version.value = version
    return request


def code_of(call):
    with pytest.raises(grpc.RpcError) as failed:
        call()
    return failed.value.code()


def replace(name, values):
    return lambda request: request.inputs[name].CopyFrom(tf.make_tensor_proto(values))


# A change of a request, and what the server calls it.
BAD = {
    "wrong type": (replace("user_id", np.zeros(50, np.float32)), Code.INVALID_ARGUMENT),
    "a text for a number": (replace("user_id", [b"7"] * 50), Code.INVALID_ARGUMENT),
    "wrong rank": (replace("user_id", np.zeros((50, 1), np.int64)), Code.INVALID_ARGUMENT),
    "one row less": (replace("user_id", np.zeros(49, np.int64)), Code.INVALID_ARGUMENT),
    "not a number": (replace("duration_s", np.full(50, np.nan, np.float32)), Code.INVALID_ARGUMENT),
    "missing": (lambda r: r.inputs.pop("user_id"), Code.INVALID_ARGUMENT),
    "unknown": (replace("colour", np.zeros(50, np.int64)), Code.INVALID_ARGUMENT),
    "half a tensor": (lambda r: setattr(r.inputs["user_id"], "tensor_content", b"123"), Code.INVALID_ARGUMENT),
    "no such signature": (lambda r: setattr(r.model_spec, "signature_name", "nonsense"), Code.FAILED_PRECONDITION),
    "no name": (lambda r: setattr(r.model_spec, "name", ""), Code.INVALID_ARGUMENT),
    "no such model": (lambda r: setattr(r.model_spec, "name", "other"), Code.NOT_FOUND),
    "no such version": (lambda r: setattr(r.model_spec.version, "value", 9), Code.NOT_FOUND),
    "no such label": (lambda r: setattr(r.model_spec, "version_label", "best"), Code.INVALID_ARGUMENT),
}


def rest(ports, path, body=None):
    """(status, JSON) of a request."""
    data = None if body is None else json.dumps(body).encode() if not isinstance(body, bytes) else body
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{ports[1]}/v1/models/{path}", data) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
