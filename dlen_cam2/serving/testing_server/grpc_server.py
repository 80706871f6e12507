"""A local stand-in for TensorFlow Serving, for tests and trying out; production uses the tensorflow/serving image.

It combines the official stubs of `tensorflow_serving.apis` with versions in sessions, by TensorFlow Serving's rules.
Batching across requests and MultiInference, which would need its C++ code, are left out.
"""

import gc
import os
import pathlib
from collections.abc import Callable, Iterable
from concurrent import futures
from typing import Any, NamedTuple

import grpc
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

from dlen_cam2.serving import versions
from dlen_cam2.serving.servable import Servable, invalid
from dlen_cam2.utils import console, files
from dlen_cam2.utils.errors import UserError

# Requests that are worked on at once; the others wait in gRPC's queue.
THREADS = 16
_CODES = {code.value[0]: code for code in grpc.StatusCode}  # TensorFlow's numbers are gRPC's
_State = get_model_status_pb2.ModelVersionStatus


class _Table(NamedTuple):
    """The versions served at one moment; replaced as a whole, so that a request never sees a mixture of two."""

    versions: dict[int, Servable]
    labels: dict[str, int]


class Model:
    """The served versions of one model, kept in sync with a directory.

    TensorFlow Serving's `model_version_policy` says which versions are served; without `config`, the newest one is. A
    new version is loaded and warmed up while the others answer; then the table of served versions is replaced in one
    assignment. If a wanted version cannot be loaded, the served ones stay, and the reason is printed and is in its
    status.

    Args:
        name: the name of the model.
        directory: the directory of its versions.
        config: TensorFlow Serving's `models.config`; the policy and labels of its model `name` are used. Its
            `base_path`, a path in the container, is not.
    """

    def __init__(self, name: str, directory: str | os.PathLike, config: str | os.PathLike | None = None):
        self.name = name
        self._directory = pathlib.Path(directory)
        self._config = config
        self._table = _Table({}, {})
        self._status: dict[int, Any] = {}  # ModelVersionStatus

    @property
    def served(self) -> list[int]:
        """The numbers of the versions that answer requests."""
        return sorted(self._table.versions)

    def poll(self) -> None:
        """Load new versions that are wanted, then drop those that no longer are. Only one thread may call this.

        Raises:
            UserError: the directory or the config cannot be read; the served versions stay.
        """
        present = versions.numbers(self._directory)
        entry = self._entry()
        wanted = _wanted(entry.model_version_policy, present)
        old = self._table
        loaded = {n: found for n in wanted if (found := old.versions.get(n) or self._load(n)) is not None}
        kept = loaded if len(loaded) == len(wanted) else old.versions | loaded
        labels = {  # a label moves when its version is there
            label: n if n in kept else old.labels.get(label, n) for label, n in entry.version_labels.items()
        }
        self._table = _Table(kept, labels)
        if gone := old.versions.keys() - kept.keys():
            for number in gone:
                self._report(number, _State.END)
            del old
            gc.collect()  # a graph refers to itself, so that its memory would stay for long
        self._status = {n: status for n, status in self._status.items() if n in present or n in kept}

    def find(self, spec: model_pb2.ModelSpec) -> Servable:
        """The version that a request asks for, by number or label, or else the newest.

        Raises:
            tf.errors.OpError: NOT_FOUND or INVALID_ARGUMENT.
        """
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        table = self._table
        number = _number(spec, table.labels)
        if number is None:
            number = max(table.versions, default=None)
        if spec.name != self.name or number not in table.versions:
            raise tf.errors.NotFoundError(
                None, None, f"Servable not found for request: {spec.name}, version {number}. "
                f"Served: {self.name}, versions {sorted(table.versions)}."
            )
        return table.versions[number]

    def status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """The state of the requested version, or of all versions, newest first."""
        spec, known = request.model_spec, self._status
        number = _number(spec, self._table.labels)
        numbers = sorted(known, reverse=True) if number is None else [number]
        if spec.name != self.name or not numbers or not known.keys() >= set(numbers):
            raise tf.errors.NotFoundError(None, None, f"Could not find version {number} of model {spec.name}.")
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=[known[n] for n in numbers])

    def _entry(self) -> model_server_config_pb2.ModelConfig:
        if self._config is None:
            return model_server_config_pb2.ModelConfig()
        try:
            text = files.read_bytes(self._config).decode()
            parsed = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
        except (ValueError, text_format.ParseError) as error:
            raise UserError(f"{self._config} must be a models.config. Received: {error}.") from error
        entries = {entry.name: entry for entry in parsed.model_config_list.config}
        if self.name not in entries:
            raise UserError(f"{self._config} must have a model {self.name}. Received: {sorted(entries)}.")
        return entries[self.name]

    def _load(self, number: int) -> Servable | None:
        if number in self._status and self._status[number].status.error_code:
            return None  # a version never changes, so one that failed is not tried again while it lies there
        self._report(number, _State.LOADING)
        try:
            servable = Servable(self.name, self._directory / str(number))
        except Exception as error:  # a damaged SavedModel fails in many ways, and none of them may end the server
            self._report(number, _State.END, str(error).splitlines()[0] if str(error) else repr(error))
            return None
        self._report(number, _State.AVAILABLE)
        return servable

    def _report(self, number: int, state: int, error: str = "") -> None:
        code = tf.errors.UNKNOWN if error else tf.errors.OK
        status = _State(version=number, state=state, status={"error_code": code, "error_message": error})
        self._status = self._status | {number: status}
        console.say(f"{self.name} version {number}: {_State.State.Name(state)}" + (f": {error}" if error else ""))


def _number(spec: model_pb2.ModelSpec, labels: dict[str, int]) -> int | None:
    """The version number that a request gives directly or by a label; None: any version."""
    if spec.WhichOneof("version_choice") == "version_label":
        if spec.version_label not in labels:
            raise invalid(f"Unrecognized servable version label: {spec.version_label}")
        return labels[spec.version_label]
    return spec.version.value if spec.HasField("version") else None


def _wanted(policy: Any, present: Iterable[int]) -> list[int]:
    kind = policy.WhichOneof("policy_choice")
    if kind == "specific":
        return [number for number in sorted(present) if number in policy.specific.versions]
    return sorted(present) if kind == "all" else sorted(present)[-(policy.latest.num_versions or 1) :]


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The PredictionService; MultiInference is the stub's and returns UNIMPLEMENTED."""

    def __init__(self, model: Model):
        self._model = model

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        return _answer(context, lambda: self._model.find(request.model_spec).predict(request))

    def Classify(self, request: Any, context: grpc.ServicerContext) -> Any:
        return _answer(context, lambda: self._model.find(request.model_spec).classify(request))

    def Regress(self, request: Any, context: grpc.ServicerContext) -> Any:
        return _answer(context, lambda: self._model.find(request.model_spec).regress(request))

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        return _answer(context, lambda: self._model.find(request.model_spec).metadata(request))


class _Models(model_service_pb2_grpc.ModelServiceServicer):
    """The GetModelStatus method of ModelService."""

    def __init__(self, model: Model):
        self._model = model

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        return _answer(context, lambda: self._model.status(request))


def _answer(context: grpc.ServicerContext, answer: Callable[[], Any]) -> Any:
    try:
        return answer()
    except tf.errors.OpError as error:
        return context.abort(_CODES[error.error_code], error.message)


def start(model: Model, port: int) -> tuple[grpc.Server, int]:
    """Serve on the loopback interface; returns the server and its port (0 asks for a free one).

    Raises:
        UserError: the port is taken.
    """
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(THREADS), options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Prediction(model), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Models(model), server)
    try:
        port = server.add_insecure_port(f"127.0.0.1:{port}")
    except RuntimeError as error:
        raise UserError(f"port {port} must be free. Received: {error}.") from error
    server.start()
    return server, port
