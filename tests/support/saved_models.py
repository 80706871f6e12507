"""SavedModels of known scores, and requests to them."""

import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog


def save(version, click=lambda x: x, extra=(), dtype=tf.float32):
    """A SavedModel with known scores: raw gives click(x); rank the same and its order, of one user and N items."""
    module = tf.Module()

    def raw(x, **_):
        return {"click": click(x), **{name: click(x) for name in extra}}

    def rank(user, x):
        return {"click": click(x) + user, "order": tf.argsort(click(x), direction="DESCENDING", stable=True)}

    vector = tf.TensorSpec([None], dtype)
    tf.saved_model.save(module, str(version), {
        "raw": tf.function(raw, autograph=False).get_concrete_function(x=tf.TensorSpec([None], dtype, "x")),
        "rank": tf.function(rank, autograph=False).get_concrete_function(user=vector, x=vector),
    })


def log(signature, **inputs):
    """A recorded Predict request."""
    request = PredictionLog()
    sent = request.predict_log.request
    sent.model_spec.signature_name = signature
    for name, values in inputs.items():
        sent.inputs[name].CopyFrom(tf.make_tensor_proto(values, tf.float32))
    return request
