"""TensorFlow Serving's REST interface for a `grpc_server.Model`, for tests and trying out.

    GET  /v1/models/NAME[/versions/N|/labels/L]                              status
    GET  /v1/models/NAME[/versions/N|/labels/L]/metadata                     signatures
    POST /v1/models/NAME[/versions/N|/labels/L]:predict|:classify|:regress   scores

Bodies follow https://www.tensorflow.org/tfx/serving/api_rest: rows ("instances" -> "predictions") or columns
("inputs" -> "outputs"), "examples" -> "results", bytes as {"b64": "…"}. An error is {"error": "…"} with its status.
"""

import base64
import http.server
import json
import re
import threading
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    input_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from dlen_cam2.serving.servable import invalid
from dlen_cam2.serving.testing_server.grpc_server import Model
from dlen_cam2.utils.errors import UserError

_PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d{1,18})|/labels/([^/:]+))?(/metadata|:\w+)?")
_STATUS = {tf.errors.INVALID_ARGUMENT: 400, tf.errors.FAILED_PRECONDITION: 400, tf.errors.NOT_FOUND: 404}


def start(model: Model, port: int) -> http.server.ThreadingHTTPServer:
    """Serve on the loopback interface in separate threads, until `shutdown()`; port 0 asks for a free one.

    Raises:
        UserError: the port is taken.
    """
    handler = type("Handler", (_Handler,), {"model": model})
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise UserError(f"port {port} must be free. Received: {error}.") from error
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class _Handler(http.server.BaseHTTPRequestHandler):
    model: Model
    protocol_version = "HTTP/1.1"  # connections stay open

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        self._answer(self.rfile.read(int(length)) if length.isdecimal() else b"")

    def _answer(self, body: bytes) -> None:
        try:
            value, status = self._value(body), 200
        except tf.errors.OpError as error:
            value, status = {"error": error.message}, _STATUS.get(error.error_code, 500)
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _value(self, body: bytes) -> dict[str, Any]:
        found = _PATH.fullmatch(self.path)
        name, number, label, verb = found.groups() if found else ("", None, None, None)
        spec = model_pb2.ModelSpec(name=name, version_label=label)
        if number:
            spec.version.value = int(number)
        answer = _ANSWERS.get((self.command, verb))
        if not found or answer is None:
            raise invalid(f"Malformed request: {self.command} {self.path}")
        return answer(self.model, spec, body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""


def _state(model: Model, spec: model_pb2.ModelSpec, body: bytes) -> dict[str, Any]:
    return _plain(model.status(get_model_status_pb2.GetModelStatusRequest(model_spec=spec)))


def _metadata(model: Model, spec: model_pb2.ModelSpec, body: bytes) -> dict[str, Any]:
    request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
    return _plain(model.find(spec).metadata(request))


def _plain(message: Any) -> dict[str, Any]:
    options = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
    return json_format.MessageToDict(message, **options)


def _predict(model: Model, spec: model_pb2.ModelSpec, body: bytes) -> dict[str, Any]:
    content = _content(body, spec)
    version = model.find(spec)
    signature = version.signature(spec.signature_name)
    if ("instances" in content) == ("inputs" in content):
        raise invalid("The body must have either 'instances' or 'inputs'.")
    rows = content.get("instances", [])
    columns = _columns(rows, signature.inputs) if "instances" in content else content["inputs"]
    if len(signature.inputs) == 1 and (not isinstance(columns, dict) or columns.keys() == {"b64"}):
        columns = dict.fromkeys(signature.inputs, columns)  # the only input need not be named
    if not isinstance(columns, dict):
        raise invalid(f"'inputs' must be an object with the keys {sorted(signature.inputs)}.")
    request = predict_pb2.PredictRequest(model_spec=spec)
    for name, value in columns.items():
        dtype = signature.inputs[name].dtype if name in signature.inputs else tf.string.as_datatype_enum
        request.inputs[name].CopyFrom(_tensor(name, value, tf.as_dtype(dtype)))
    response = version.predict(request)
    outputs = {name: tf.make_ndarray(tensor).tolist() for name, tensor in response.outputs.items()}
    if "inputs" in content:
        return {"outputs": _unnamed(outputs)}
    if any(not isinstance(column, list) or len(column) != len(rows) for column in outputs.values()):
        raise invalid("An output does not have one row for each of 'instances': send 'inputs' instead.")
    table = zip(*outputs.values(), strict=True)
    return {"predictions": [_unnamed(dict(zip(outputs, row, strict=True))) for row in table]}


def _unnamed(outputs: dict[str, Any]) -> Any:
    return outputs if len(outputs) > 1 else next(iter(outputs.values()))


def _columns(rows: Any, inputs: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Convert rows to columns. A row is an object with all inputs, or the value of the only input."""
    if not isinstance(rows, list) or not rows:
        raise invalid("'instances' must be a list that is not empty.")
    if len(inputs) == 1 and not any(isinstance(row, dict) and row.keys() == inputs.keys() for row in rows):
        rows = [dict.fromkeys(inputs, row) for row in rows]
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != inputs.keys():
            raise invalid(f"Element {number} of 'instances' must be an object with the keys {sorted(inputs)}.")
    return {name: [row[name] for row in rows] for name in inputs}


def _tensor(name: str, value: Any, dtype: tf.DType) -> Any:
    try:
        return tf.make_tensor_proto(_decoded(value), dtype)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise invalid(f"{name} must be {dtype.name}, in lists of equal length. Received: {error}.") from error


def _decoded(value: Any) -> Any:
    """Lists in which each {"b64": "…"} is replaced by its bytes."""
    if isinstance(value, list):
        return [_decoded(v) for v in value]
    if isinstance(value, dict):
        if value.keys() != {"b64"} or not isinstance(value["b64"], str):
            raise ValueError(f"an object with the keys {sorted(value)}")
        return base64.b64decode(value["b64"], validate=True)
    return value


def _classify(model: Model, spec: model_pb2.ModelSpec, body: bytes) -> dict[str, Any]:
    request = classification_pb2.ClassificationRequest(input=_examples(_content(body, spec)), model_spec=spec)
    rows = model.find(spec).classify(request).result.classifications
    return {"results": [[[c.label, c.score] for c in row.classes] for row in rows]}


def _regress(model: Model, spec: model_pb2.ModelSpec, body: bytes) -> dict[str, Any]:
    request = regression_pb2.RegressionRequest(input=_examples(_content(body, spec)), model_spec=spec)
    return {"results": [r.value for r in model.find(spec).regress(request).result.regressions]}


# By HTTP method and what follows the version in the path.
_ANSWERS = {
    ("GET", None): _state, ("GET", "/metadata"): _metadata,
    ("POST", ":predict"): _predict, ("POST", ":classify"): _classify, ("POST", ":regress"): _regress,
}


def _content(body: bytes, spec: model_pb2.ModelSpec) -> dict[str, Any]:
    """The JSON object of the body; the name of its signature is written to `spec`."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("signature_name", ""), str):
        raise invalid("The body must be a JSON object, and its 'signature_name' a string.")
    spec.signature_name = content.get("signature_name", "")
    return content


def _examples(content: dict[str, Any]) -> input_pb2.Input:
    rows = content.get("examples")
    if not isinstance(rows, list):
        raise invalid("The body must have a list 'examples'.")
    examples = input_pb2.ExampleListWithContext(
        context=_example(content.get("context", {})), examples=[_example(row) for row in rows]
    )
    return input_pb2.Input(example_list_with_context=examples)


def _example(row: Any) -> tf.train.Example:
    if not isinstance(row, dict):
        raise invalid("An example must be an object, {feature: value or list of values}.")
    example = tf.train.Example()
    for name, value in row.items():
        feature = example.features.feature[name]
        values = value if isinstance(value, list) else [value]
        try:
            values = [v.encode() if isinstance(v, str) else _decoded(v) for v in values]
            kinds = {type(v) for v in values}
            if kinds <= {bytes}:
                feature.bytes_list.value.extend(values)
            elif kinds <= {int, bool}:
                feature.int64_list.value.extend(values)
            else:
                feature.float_list.value.extend(values)
        except (TypeError, ValueError) as error:
            raise invalid(f"{name} must hold numbers, or strings. Received: {error}.") from error
    return example
