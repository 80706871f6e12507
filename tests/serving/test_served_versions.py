"""Which versions are served, on models of one multiplication."""

import re
import shutil

import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
    prediction_log_pb2,
)

from benchmarks.switch import scores
from dlen_cam2.serving import request_log
from dlen_cam2.serving.testing_server import grpc_server
from dlen_cam2.utils.errors import UserError


# Which versions are served, on models of one multiplication.
def multiply(directory, factor):
    """A SavedModel whose `serving_default` is y = factor x."""
    module = tf.Module()
    module.times = tf.function(lambda x: {"y": factor * x}, input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    tf.saved_model.save(module, str(directory), signatures={"serving_default": module.times.get_concrete_function()})


def ask(model, **choice):
    """(version, y of x = 1)."""
    spec = model_pb2.ModelSpec(name="m", **choice)
    request = predict_pb2.PredictRequest(model_spec=spec, inputs={"x": tf.make_tensor_proto([1.0])})
    response = model.find(spec).predict(request)
    return response.model_spec.version.value, scores(response)["y"].item()


def states(model):
    request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "m"})
    state = get_model_status_pb2.ModelVersionStatus.State
    return {s.version: state.Name(s.state) for s in model.status(request).model_version_status}


def test_the_newest_version_is_served_and_the_one_before_unloaded(tmp_path):
    multiply(tmp_path / "9", 2.0)
    model = grpc_server.Model("m", tmp_path)
    model.poll()
    assert ask(model) == (9, 2.0)
    held = model.find(model_pb2.ModelSpec(name="m"))
    multiply(tmp_path / "10", 3.0)
    model.poll()
    assert ask(model) == (10, 3.0)
    assert states(model) == {10: "AVAILABLE", 9: "END"}
    with pytest.raises(tf.errors.NotFoundError):
        ask(model, version={"value": 9})
    request = predict_pb2.PredictRequest(inputs={"x": tf.make_tensor_proto([1.0])})
    assert scores(held.predict(request))["y"] == [2.0]  # a request in flight ends on the version it began on
    shutil.rmtree(tmp_path / "9")
    model.poll()
    assert states(model) == {10: "AVAILABLE"}


def test_a_version_that_cannot_be_loaded_is_reported_and_the_old_one_stays(tmp_path, capsys):
    multiply(tmp_path / "1", 2.0)
    model = grpc_server.Model("m", tmp_path)
    model.poll()
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "saved_model.pb").write_bytes(b"junk")
    for _ in range(2):
        model.poll()
    assert ask(model) == (1, 2.0) and states(model) == {2: "END", 1: "AVAILABLE"}
    assert len(re.findall("m version 2: END: .+", capsys.readouterr().out)) == 1  # tried once
    request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "m", "version": {"value": 2}})
    assert model.status(request).model_version_status[0].status.error_message
    shutil.rmtree(tmp_path / "2")
    model.poll()
    multiply(tmp_path / "2", 5.0)  # another one under its number
    model.poll()
    assert ask(model) == (2, 5.0)


@pytest.mark.parametrize("signature, served", [("serving_default", 2), ("nonsense", 1)])
def test_warm_up_requests_are_replayed_before_a_version_goes_live(tmp_path, signature, served):
    multiply(tmp_path / "1", 2.0)
    multiply(tmp_path / "2", 3.0)
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.signature_name = signature
    log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0]))
    request_log.write(tmp_path / "2" / request_log.WARM_UP, [log])
    (tmp_path / "2").rename(tmp_path / "later")
    model = grpc_server.Model("m", tmp_path)
    model.poll()
    (tmp_path / "later").rename(tmp_path / "2")
    model.poll()
    assert ask(model)[0] == served


def config_of(policy, labels=""):
    return f'model_config_list {{ config {{ name: "m" model_version_policy {{ {policy} }} {labels} }} }}'


def test_policy_and_labels_of_the_models_config(tmp_path):
    for number in (1, 2, 3):
        multiply(tmp_path / "served" / str(number), float(number))
    config = tmp_path / "models.config"
    model = grpc_server.Model("m", tmp_path / "served", config)
    served = {}
    for policy in ("all {}", "latest { num_versions: 2 }", "specific { versions: 1 versions: 3 }", ""):
        config.write_text(config_of(policy))
        model.poll()
        served[policy] = model.served
    assert list(served.values()) == [[1, 2, 3], [2, 3], [1, 3], [3]]
    label = 'version_labels {{ key: "stable" value: {} }}'
    config.write_text(config_of("specific { versions: 1 versions: 2 }", label.format(1)))
    model.poll()
    assert ask(model) == (2, 2.0) and ask(model, version_label="stable") == (1, 1.0)
    config.write_text(config_of("specific { versions: 1 versions: 4 }", label.format(4)))
    (tmp_path / "served" / "4").mkdir()  # no SavedModel: the label stays where it is
    model.poll()
    assert ask(model, version_label="stable") == (1, 1.0)
    config.write_text("model_config_list {")
    with pytest.raises(UserError, match="must be a models.config"):
        model.poll()
    config.write_text('model_config_list { config { name: "other" } }')
    with pytest.raises(UserError, match=r"must have a model m. Received: \['other'\]"):
        model.poll()
    assert ask(model, version_label="stable") == (1, 1.0)
