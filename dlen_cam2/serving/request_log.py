"""Recorded requests: TFRecords of `PredictionLog`, as TensorFlow Serving logs requests and reads warm-up files."""

import base64
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from dlen_cam2 import data
from dlen_cam2.data.parsing import DTYPES
from dlen_cam2.schema import Feature, Schema
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import beside

# Where a server that loads a version looks for requests to send it first (at most 1000 of them, by its rule).
WARM_UP = "assets.extra/tf_serving_warmup_requests"
# Numbers of candidates, and of rows of the other signatures, that a version is warmed up with.
CANDIDATES = (1, 100, 500)
ROWS = (1, 32)

Columns = Mapping[str, np.ndarray]


def warm_up(
    schema: Schema, signatures: Iterable[str], model: str, columns: Columns | None = None
) -> list[PredictionLog]:
    """Create requests for every signature: `rank` with each number of `CANDIDATES`, the others with each of `ROWS`.

    Args:
        schema: the schema of the model.
        signatures: the names of the model's signatures.
        model: the name under which it is served.
        columns: raw rows to send, as `first_rows` returns them, used repeatedly. Default: `synthetic` rows.
    """
    rows = columns or synthetic(schema, max(CANDIDATES))
    return [
        request(schema, _cycled(rows, number), model, signature)
        for signature in signatures for number in (CANDIDATES if signature == "rank" else ROWS)
    ]


def in_requests(schema: Schema, columns: Columns, model: str, signatures: Iterable[str]) -> list[PredictionLog]:
    """Requests with all rows of `columns`, up to `max(CANDIDATES)` in each, for every signature."""
    starts = range(0, _rows(columns), max(CANDIDATES))
    parts = [{name: column[i : i + max(CANDIDATES)] for name, column in columns.items()} for i in starts]
    return [request(schema, part, model, signature) for part in parts for signature in signatures]


def request(schema: Schema, columns: Columns, model: str, signature: str) -> PredictionLog:
    """One request with all rows of `columns`, (N,) or (N, L).

    `rank` takes the user's features from the first row. For `classify` and `regress`, the request is of that method.
    """
    log = PredictionLog()
    if signature in ("classify", "regress"):
        sent = getattr(log, f"{signature}_log").request
        sent.input.example_list.examples.extend(map(tf.train.Example.FromString, examples(schema, columns)))
    else:
        sent = log.predict_log.request
        for name, (values, dtype) in _tensors(schema, columns, signature).items():
            sent.inputs[name].CopyFrom(tf.make_tensor_proto(values, dtype))
    sent.model_spec.name = model
    sent.model_spec.signature_name = signature
    return log


def _tensors(schema: Schema, columns: Columns, signature: str) -> dict[str, tuple[Any, tf.DType]]:
    if signature == "serving_default":
        return {"examples": (examples(schema, columns), tf.string)}
    return {
        f.name: (columns[f.name][:1] if signature == "rank" and f.side == "user" else columns[f.name], DTYPES[f.dtype])
        for f in schema.features
    }


def examples(schema: Schema, columns: Columns) -> list[bytes]:
    """Serialise the rows as `tf.train.Example`s; ids below 0 and "", which mean missing, are left out."""
    kinds = {"int": "int64_list", "float": "float_list", "string": "bytes_list"}
    serialised = []
    for row in range(_rows(columns)):
        example = tf.train.Example()
        for f in schema.features:
            values = np.atleast_1d(columns[f.name][row]).tolist()
            if f.dtype == "int":
                values = [v for v in values if v >= 0]
            elif f.dtype == "string":
                values = [tf.compat.as_bytes(v) for v in values if v]
            if values:
                getattr(example.features.feature[f.name], kinds[f.dtype]).value.extend(values)
        serialised.append(example.SerializeToString())
    return serialised


def first_rows(directory: str | os.PathLike, day: str, schema: Schema, rows: int) -> dict[str, np.ndarray]:
    """Read the features of the first `rows` (or fewer) of a day: (N,), lists (N, max_length) padded with -1 or "".

    Raises:
        UserError: the data set has no such day, or the day has no rows.
    """
    parts: list[Columns] = []
    for chunk in data.raw_columns(data.shards(directory, [day]), schema, [f.name for f in schema.features]):
        parts.append({name: column.numpy() for name, column in data.padded(chunk, schema).items()})
        if sum(map(_rows, parts)) >= rows:
            break
    if not sum(map(_rows, parts)):
        raise UserError(f"day {day} of {directory} must have rows. Received: none.")
    return {name: np.concatenate([part[name] for part in parts])[:rows] for name in parts[0]}


def as_json(columns: Columns) -> dict[str, Any]:
    """Convert values for TensorFlow Serving's REST interface: texts stay texts, other bytes become {"b64": …}."""
    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(v) for v in value]
        if not isinstance(value, bytes):
            return value
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(value).decode()}

    return {name: plain(values.tolist()) for name, values in columns.items()}


def synthetic(schema: Schema, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows made from the schema. DESIGN: known values are equally likely, t(number) is normal with its moments."""
    rng = np.random.default_rng(seed)
    return {f.name: _drawn(f, rows, rng) for f in schema.features}


def _drawn(feature: Feature, rows: int, rng: np.random.Generator) -> np.ndarray:
    if feature.is_numeric:
        t = rng.normal(feature.mean, feature.std, rows)
        if feature.transform == "log1p":
            t = np.expm1(np.maximum(t, 0))
        elif feature.transform == "logit":
            t = 1 / (1 + np.exp(-t))
        return t.astype(np.float32)
    shape = (rows, feature.max_length) if feature.is_list else (rows,)
    values = rng.integers(0, len(feature.vocabulary) or feature.size or 1, shape)
    if feature.vocabulary:
        return np.array(feature.vocabulary, object if feature.dtype == "string" else np.int64)[values]
    return values if feature.dtype == "int" else values.astype(str).astype(object)


def _cycled(columns: Columns, rows: int) -> dict[str, np.ndarray]:
    return {name: column[np.arange(rows) % len(column)] for name, column in columns.items()}


def _rows(columns: Columns) -> int:
    return len(next(iter(columns.values())))


def inputs(log: PredictionLog) -> tuple[str, dict[str, Any]]:
    """The signature of a request and the values of its inputs, by name.

    Raises:
        UserError: it is not a Predict, Classify or Regress request, or one of its tensors is damaged.
    """
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        sent = log.predict_log.request
        try:
            values = {name: tf.make_ndarray(tensor) for name, tensor in sent.inputs.items()}
        except (TypeError, ValueError) as error:
            raise UserError(f"a recorded request must hold whole tensors. Received: {error}.") from error
    elif kind in ("classify_log", "regress_log"):
        sent = getattr(log, kind).request
        values = {"inputs": [example.SerializeToString() for example in sent.input.example_list.examples]}
    else:
        raise UserError(f"a recorded request must be a Predict, Classify or Regress request. Received: {kind}.")
    return sent.model_spec.signature_name or "serving_default", values


def write(path: str | os.PathLike, logs: Iterable[PredictionLog]) -> None:
    """Write the requests to a TFRecord file, as a whole or not at all."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as aside, tf.io.TFRecordWriter(str(aside)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())


def read(path: str | os.PathLike) -> list[PredictionLog]:
    """Read the requests from a file that `write`, or a server's request log, wrote.

    Raises:
        UserError: the file does not exist, is damaged, or holds no request.
    """
    if not os.path.isfile(path):
        raise UserError(f"{path} does not exist.")
    try:
        logs = [PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(os.fspath(path))]
    except (tf.errors.OpError, DecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} must hold TFRecords of PredictionLog. Received: {reason}") from error
    if not logs:
        raise UserError(f"{path} must hold at least one recorded request. Received: none.")
    return logs
