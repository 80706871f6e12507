"""`dlen_cam2 serve` in a process of its own, asked by the official gRPC stubs and over HTTP."""

import base64
import json
import pathlib
import re
import shlex
import shutil
import subprocess

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_pb2,
    model_service_pb2_grpc,
    regression_pb2,
)

from benchmarks.switch import NAME, scores, switching
from dlen_cam2.serving import request_log
from dlen_cam2.training import model_directory
from pipelines import simulate
from tests.support import processes
from tests.support.builders import command
from tests.support.jobs import DAY
from tests.support.served import BAD, code_of, predict, rest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
CLOSE = {"rtol": 1e-5, "atol": 1e-7}
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def schema(home):
    return model_directory.load(home / "model").schema


@pytest.fixture(scope="module")
def rows(home, schema):
    """The features' raw columns in the day's first 50 rows."""
    columns = request_log.first_rows(home / "data", DAY, schema, 50)
    return {f.name: columns[f.name] for f in schema.features}


@pytest.fixture(scope="module")
def offline(expected):
    """What evaluation, on the training graph, says of these rows."""
    return {name: values[:50] for name, values in expected.items()}


@pytest.mark.parametrize("signature", ["serving_default", "raw"])
def test_scores_are_those_of_the_training_graph(stub, schema, rows, offline, signature):
    response = stub.Predict(predict(schema, rows, signature))
    assert (response.model_spec.version.value, response.model_spec.signature_name) == (1, signature)
    found = scores(response)
    assert {*simulate.TASKS, "p_up", "click_up", "fused"} <= found.keys()
    for name in offline.keys() & found.keys():
        np.testing.assert_allclose(found[name], offline[name], **CLOSE)
    assert offline.keys() >= {*simulate.TASKS, "p_up"}


def test_rank_scores_one_user_with_every_candidate(stub, schema, rows):
    found = scores(stub.Predict(predict(schema, rows, "rank")))
    pairs = {f.name: np.repeat(rows[f.name][:1], 50, 0) if f.side == "user" else rows[f.name] for f in schema.features}
    wanted = scores(stub.Predict(predict(schema, pairs, "raw")))
    order = found.pop("order")
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, **CLOSE)
    np.testing.assert_array_equal(order, np.argsort(-found["fused"], kind="stable"))


def test_classify_and_regress(stub, schema, rows, offline):
    request = request_log.request(schema, rows, NAME, "classify").classify_log.request
    request.model_spec.version.value = 1
    found = stub.Classify(request).result.classifications
    assert [c.label for c in found[0].classes] == list(schema.task_names)
    table = [[c.score for c in row.classes] for row in found]
    np.testing.assert_allclose(table, np.stack([offline[task] for task in schema.task_names], 1), **CLOSE)
    request = request_log.request(schema, rows, NAME, "regress").regress_log.request
    request.model_spec.version.value = 1
    found = [r.value for r in stub.Regress(request).result.regressions]
    np.testing.assert_allclose(found, offline["like"], **CLOSE)


def test_a_shared_context_is_merged_into_every_example(stub, schema, rows, offline):
    """What all examples have in common may be sent once."""
    request = request_log.request(schema, rows, NAME, "regress").regress_log.request
    request.model_spec.version.value = 1
    examples = list(request.input.example_list.examples)
    shared = request.input.example_list_with_context  # replaces example_list
    shared.context.features.feature["hour"].CopyFrom(examples[0].features.feature["hour"])
    for example in examples[:1]:
        del example.features.feature["hour"]
        shared.examples.append(example)
    found = [r.value for r in stub.Regress(request).result.regressions]
    np.testing.assert_allclose(found, offline["like"][:1], **CLOSE)


def test_metadata_lists_signatures_and_types(stub):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name, request.model_spec.version.value = NAME, 1
    found = get_model_metadata_pb2.SignatureDefMap()
    assert stub.GetModelMetadata(request).metadata["signature_def"].Unpack(found)
    methods = {name: s.method_name.rpartition("/")[2] for name, s in found.signature_def.items() if s.method_name}
    assert methods == {
        "serving_default": "predict", "raw": "predict", "rank": "predict", "classify": "classify", "regress": "regress"
    }
    raw = found.signature_def["raw"].inputs
    assert (raw["user_id"].dtype, raw["duration_s"].dtype) == (tf.int64.as_datatype_enum, tf.float32.as_datatype_enum)
    request.metadata_field.append("weights")
    assert code_of(lambda: stub.GetModelMetadata(request)) is Code.INVALID_ARGUMENT


def test_only_the_outputs_that_are_asked_for(stub, schema, rows):
    request = predict(schema, rows, "raw")
    whole = scores(stub.Predict(request))
    request.output_filter.extend(["p_up", "click"])
    found = scores(stub.Predict(request))
    assert found.keys() == {"p_up", "click"}
    np.testing.assert_array_equal(found["click"], whole["click"])
    request.output_filter.append("nonsense")
    assert code_of(lambda: stub.Predict(request)) is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("change, code", BAD.values(), ids=BAD)
def test_a_bad_request_has_tensorflow_servings_code(stub, schema, rows, change, code):
    request = predict(schema, rows, "raw")
    change(request)
    assert code_of(lambda: stub.Predict(request)) is code
    assert len(scores(stub.Predict(predict(schema, rows, "raw")))["click"]) == 50  # and the server lives


def test_junk_bytes_are_an_invalid_argument(stub, schema, rows):
    request = predict(schema, rows, "serving_default")
    request.inputs["examples"].CopyFrom(tf.make_tensor_proto([b"\xff\x00junk"]))
    assert code_of(lambda: stub.Predict(request)) is Code.INVALID_ARGUMENT


def test_calls_of_another_method_or_without_examples(stub, schema, rows):
    spec = model_pb2.ModelSpec(name=NAME, signature_name="raw")
    spec.version.value = 1
    assert code_of(lambda: stub.Classify(classification_pb2.ClassificationRequest(model_spec=spec))) \
        is Code.INVALID_ARGUMENT
    spec.signature_name = "regress"
    assert code_of(lambda: stub.Regress(regression_pb2.RegressionRequest(model_spec=spec))) is Code.INVALID_ARGUMENT
    assert code_of(lambda: stub.MultiInference(inference_pb2.MultiInferenceRequest())) is Code.UNIMPLEMENTED


def test_labels_name_versions(stub, schema, rows):
    answers = {}
    for label in ("stable", "canary"):
        request = predict(schema, rows, "raw")
        request.model_spec.ClearField("version")
        request.model_spec.version_label = label
        response = stub.Predict(request)
        answers[label] = response.model_spec.version.value, scores(response)["click"]
    assert [answers[label][0] for label in ("stable", "canary")] == [1, 2]
    assert np.abs(answers["stable"][1] - answers["canary"][1]).max() > 1e-3


def test_status_of_versions(ports):
    with grpc.insecure_channel(f"127.0.0.1:{ports[0]}") as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": NAME})
        found = stub.GetModelStatus(request).model_version_status
        available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
        assert [(s.version, s.state, s.status.error_code) for s in found] == [(2, available, 0), (1, available, 0)]
        request.model_spec.version.value = 9
        assert code_of(lambda: stub.GetModelStatus(request)) is Code.NOT_FOUND


def test_versions_are_switched_under_load_without_a_lost_or_mixed_answer(home, schema, rows):
    parts = [home / "served" / number for number in "12"]
    signatures = ("raw", "rank", "serving_default")
    requests = [request_log.request(schema, rows, NAME, s).predict_log.request for s in signatures]
    tally = switching(parts, requests, number=400, clients=4, seconds=0.5, least=3)
    assert (tally.lost, tally.mixed) == ([], []) and len(tally.seconds) >= 400
    assert len(set(tally.versions)) >= 3


# REST.
def test_rest_rows_and_columns(ports, schema, rows, offline):
    columns = {name: values.tolist() for name, values in rows.items()}
    table = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    status, found = rest(ports, f"{NAME}/versions/1:predict", {"signature_name": "raw", "instances": table})
    assert status == 200
    np.testing.assert_allclose([row["p_up"] for row in found["predictions"]], offline["p_up"], **CLOSE)
    status, found = rest(ports, f"{NAME}/labels/stable:predict", {"signature_name": "raw", "inputs": columns})
    np.testing.assert_allclose(found["outputs"]["p_up"], offline["p_up"], **CLOSE)


def test_rest_bytes_in_base_64(ports, schema, rows, offline):
    coded = [{"b64": base64.b64encode(example).decode()} for example in request_log.examples(schema, rows)]
    for body in ({"instances": coded}, {"instances": [{"examples": one} for one in coded]}):
        found = rest(ports, f"{NAME}/versions/1:predict", body)[1]["predictions"]
        np.testing.assert_allclose([row["click"] for row in found], offline["click"], **CLOSE)
    found = rest(ports, f"{NAME}/versions/1:predict", {"inputs": coded})[1]["outputs"]
    np.testing.assert_allclose(found["click"], offline["click"], **CLOSE)


def test_rest_examples(ports, schema, rows, offline):
    examples = [{name: values[i].tolist() for name, values in rows.items()} for i in range(3)]
    context = {"hour": examples[0].pop("hour")}
    body = {"signature_name": "regress", "context": context, "examples": examples[:1]}
    found = rest(ports, f"{NAME}/versions/1:regress", body)[1]["results"]
    np.testing.assert_allclose(found, offline["like"][:1], **CLOSE)
    body = {"signature_name": "classify", "examples": examples[1:]}
    found = rest(ports, f"{NAME}/versions/1:classify", body)[1]["results"]
    assert [label for label, _ in found[0]] == list(schema.task_names)
    np.testing.assert_allclose(found[1][0][1], offline[schema.task_names[0]][2], **CLOSE)


def test_rest_status_and_metadata(ports):
    status, found = rest(ports, f"{NAME}/versions/2")
    state = {"version": "2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert (status, found) == (200, {"model_version_status": [state]})
    status, found = rest(ports, f"{NAME}/labels/stable/metadata")
    assert (status, found["model_spec"]["version"]) == (200, "1")
    assert {"raw", "rank"} <= found["metadata"]["signature_def"]["signature_def"].keys()


@pytest.mark.parametrize("path, body, status, said", [
    ("other", None, 404, "other"),
    (f"{NAME}/versions/9", None, 404, "version 9"),
    (f"{NAME}:explain", {}, 400, "Malformed request"),
    (f"{NAME}:predict", b"{", 400, "JSON Parse error"),
    (f"{NAME}:predict", b"[" * 100_000, 400, "JSON Parse error"),
    (f"{NAME}:predict", [], 400, "JSON object"),
    (f"{NAME}:predict", {}, 400, "either 'instances' or 'inputs'"),
    (f"{NAME}:predict", {"instances": []}, 400, "not empty"),
    (f"{NAME}:predict", {"instances": [{"b64": "AAA"}]}, 400, "padding"),
    (f"{NAME}:predict", {"instances": [{"b64": "AAAA"}]}, 400, "Could not parse example"),
    (f"{NAME}:predict", {"signature_name": "best", "inputs": {}}, 400, "not found"),
    (f"{NAME}:predict", {"signature_name": "raw", "inputs": {"user_id": [1.5]}}, 400, "user_id must be int64"),
    (f"{NAME}:predict", {"signature_name": "raw", "inputs": {"watched": [[1], [1, 2]]}}, 400, "equal length"),
    (f"{NAME}:predict", {"signature_name": "raw", "inputs": {"user_id": [10**20]}}, 400, "user_id must be int64"),
    (f"{NAME}:predict", {"signature_name": "raw", "inputs": {"user_id": [1]}}, 400, "Missing but required"),
    (f"{NAME}:predict", {"signature_name": "raw", "instances": [{"user_id": 1}]}, 400, "Element 0"),
    (f"{NAME}/versions/1:regress", {"signature_name": "regress", "examples": []}, 400, "empty"),
    (f"{NAME}/versions/1:regress", {"signature_name": "regress", "examples": [{"hour": None}]}, 400, "hour must hold"),
])
def test_rest_errors(ports, path, body, status, said):
    found, content = rest(ports, path, body)
    assert found == status and said in content["error"]


def test_examples_of_the_guide(ports, home, tmp_path):
    """The client and the curl lines of `docs/guides/serve.md`, as they stand there but for ports and the day."""
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    section = (ROOT / "docs/guides/serve.md").read_text()
    section = section.replace(":8500", f":{ports[0]}").replace(":8501", f":{ports[1]}").replace("20240108", DAY)
    blocks = re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL)
    (tmp_path / "quickstart").mkdir()
    (tmp_path / "quickstart" / "data").symlink_to(home / "data")
    (tmp_path / "quickstart" / "mmoe_dlen").symlink_to(home / "model")
    client = next(text for kind, text in blocks if kind == "python" and "PredictionServiceStub" in text)
    done = processes.run(["-c", client], directory=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for kind, text in blocks if kind == "sh" for line in text.splitlines() if line.startswith("curl ")]
    answers = []
    for line in lines:
        done = subprocess.run(
            shlex.split(line, comments=True), cwd=tmp_path, capture_output=True, text=True, check=True
        )
        answers.append(json.loads(done.stdout))
    assert [next(iter(answer)) for answer in answers] == ["model_version_status", "model_spec", "outputs"]
    assert sorted(answers[-1]["outputs"]["order"]) == list(range(100))


def test_the_command_refuses_what_it_cannot_serve(tmp_path, home, ports):
    def error(*options):
        done = command("dlen_cam2.cli.serve", "--port=0", "--rest_port=0", *options)
        assert done.returncode == 1
        return done.stderr.splitlines()[-1]

    assert "must hold a version that can be loaded" in error(f"--served={tmp_path}")
    assert f"port {ports[0]} must be free" in error(f"--served={home / 'served'}", f"--port={ports[0]}")
    assert f"port {ports[1]} must be free" in error(f"--served={home / 'served'}", f"--rest_port={ports[1]}")
