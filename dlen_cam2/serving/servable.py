"""One version of a model behind TensorFlow Serving's interface.

It answers requests to TensorFlow Serving's PredictionService by that server's rules (predict_util.cc, classifier.cc,
regressor.cc). Errors are `tf.errors`, whose codes are gRPC's.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    input_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from dlen_cam2.serving import request_log, versions

DEFAULT = "serving_default"


def invalid(message: str) -> tf.errors.InvalidArgumentError:
    """The error for a request that cannot be answered."""
    return tf.errors.InvalidArgumentError(None, None, message)


class Servable:
    """A version in a session, warmed up and ready to answer requests.

    It never changes. Code that answers a request holds the servable with which it began, and the session ends when
    nobody holds it any more: a switch of versions does not have to wait.

    Attributes:
        signatures: `SignatureDef` by name.

    Args:
        name: the name of the model, which the answers repeat.
        directory: the version's directory `<number>/`, with `saved_model.pb`.

    Raises:
        Exception: errors of many kinds, if the SavedModel cannot be restored or does not answer a warm-up request.
    """

    def __init__(self, name: str, directory: pathlib.Path):
        self._spec = model_pb2.ModelSpec(name=name, version={"value": int(directory.name)})
        self._loaded = versions.load(directory)
        self.signatures = self._loaded.signatures
        if (directory / request_log.WARM_UP).exists():
            answers = {"predict_log": self.predict, "classify_log": self.classify, "regress_log": self.regress}
            for log in request_log.read(directory / request_log.WARM_UP):
                kind = log.WhichOneof("log_type")
                answers[kind](getattr(log, kind).request)

    def signature(self, name: str) -> Any:
        """The `SignatureDef` with this name; "" is the default one. FAILED_PRECONDITION: there is none."""
        if (name or DEFAULT) not in self.signatures:
            message = f'Serving signature key "{name or DEFAULT}" not found. Known: {sorted(self.signatures)}.'
            raise tf.errors.FailedPreconditionError(None, None, message)
        return self.signatures[name or DEFAULT]

    def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """All outputs of the signature, or those of the request's `output_filter`."""
        signature = self.signature(request.model_spec.signature_name)
        sent, known = set(request.inputs), set(signature.inputs)
        if sent != known:
            raise invalid(
                f"Inputs do not match the signature. Sent extra: {sorted(sent - known)}. "
                f"Missing but required: {sorted(known - sent)}."
            )
        names = list(request.output_filter) or sorted(signature.outputs)
        if len(set(names)) < len(names) or not set(names) <= set(signature.outputs):
            raise invalid(f"output_filter must name outputs, each once. Received: {names}. Known: "
                          f"{sorted(signature.outputs)}.")
        response = predict_pb2.PredictResponse(model_spec=self._answering(request.model_spec))
        inputs = {name: _array(name, request.inputs[name], stated) for name, stated in signature.inputs.items()}
        outputs = self._run(response.model_spec.signature_name, inputs)
        for name in names:
            response.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name]))
        return response

    def classify(self, request: classification_pb2.ClassificationRequest) -> classification_pb2.ClassificationResponse:
        """For each example, the labels in "classes", each with its score in "scores"."""
        found = self._of_examples(request, "tensorflow/serving/classify")
        response = classification_pb2.ClassificationResponse(model_spec=self._answering(request.model_spec))
        for labels, scores in zip(found["classes"], found["scores"], strict=True):
            classes = response.result.classifications.add().classes
            for label, score in zip(labels, scores, strict=True):
                classes.add(label=label, score=score)
        return response

    def regress(self, request: regression_pb2.RegressionRequest) -> regression_pb2.RegressionResponse:
        """For each example, the value in "outputs"."""
        values = self._of_examples(request, "tensorflow/serving/regress")["outputs"]
        response = regression_pb2.RegressionResponse(model_spec=self._answering(request.model_spec))
        for value in values:
            response.result.regressions.add(value=value)
        return response

    def metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """The signatures, the only `metadata_field` that exists."""
        if set(request.metadata_field) != {"signature_def"}:
            raise invalid(f"metadata_field must be signature_def. Received: {list(request.metadata_field)}.")
        response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=self._spec)
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=self.signatures)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def _of_examples(self, request: Any, method: str) -> dict[str, np.ndarray]:
        """The outputs of a signature with this method for the examples of the request."""
        name = request.model_spec.signature_name or DEFAULT
        signature = self.signatures.get(name)
        if signature is None or signature.method_name != method:
            raise invalid(f"{name} must be a signature with the method name {method}.")
        return self._run(name, {"inputs": _examples(request.input)})

    def _run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            return self._loaded.run(signature, inputs)
        except UnicodeDecodeError as error:  # of a message that quotes what was sent, which is no text
            raise invalid(error.object.decode(errors="replace")) from error

    def _answering(self, asked: model_pb2.ModelSpec) -> model_pb2.ModelSpec:
        """The model spec of an answer: this version, and the signature."""
        name, version = self._spec.name, self._spec.version
        return model_pb2.ModelSpec(name=name, version=version, signature_name=asked.signature_name or DEFAULT)


def _array(name: str, tensor: Any, stated: Any) -> np.ndarray:
    """A request's tensor, with the type and shape that the signature states: the session would cast silently."""
    try:
        array = tf.make_ndarray(tensor)
    except (TypeError, ValueError) as error:
        raise invalid(f"{name} must be a tensor. Received: {error}.") from error
    shape = tf.TensorShape(stated.tensor_shape)
    if tensor.dtype != stated.dtype or not shape.is_compatible_with(array.shape):
        wanted, sent = (tf.as_dtype(t.dtype).name for t in (stated, tensor))
        raise invalid(f"{name} must be {wanted} of shape {shape}. Received: {sent} of shape {array.shape}.")
    return array


def _examples(rows: input_pb2.Input) -> np.ndarray:
    """Serialised examples, (B,). Concatenated serialised messages are the message merged from them."""
    shared = rows.example_list_with_context
    context = shared.context.SerializeToString()
    examples = [example.SerializeToString() for example in rows.example_list.examples]
    examples += [context + example.SerializeToString() for example in shared.examples]
    if not examples:
        raise invalid("Input is empty.")
    return np.array(examples, object)
