"""Exported models, scored by processes that did not write them, against the training graph."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import c_session
from dlen_cam2 import data, evaluation, serving
from dlen_cam2.config import Config, ModelConfig, TrainConfig
from dlen_cam2.schema import Task, pbtxt
from dlen_cam2.serving import request_log, versions
from dlen_cam2.serving.calibration import Calibration
from dlen_cam2.serving.fusion import Fusion
from dlen_cam2.training import model_directory
from dlen_cam2.utils.errors import UserError
from pipelines import kuairand, simulate
from tests.support.builders import FEW, numpy_sigmoid, tiny_schema, train
from tests.support.kuairand_slice import REAL, some_users
from tests.support.trained_models import trained_model

DAY = "20240103"
SIZES = {"experts": 2, "expert_units": (8,), "tower_units": (4,), "latent_units": (4,)}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A small DLEN, trained on a simulated log and exported: (data directory, model directory, version directory)."""
    home = tmp_path_factory.mktemp("served")
    simulate.write(simulate.World(rows=1500, seed=2, days=3), str(home / "data"))
    config = Config(
        "small", ModelConfig("mmoe", head="dlen", features=FEW, **SIZES), TrainConfig(batch_size=128, bootstrap=0)
    )
    train(config, home / "data", home / "model", "20240101..20240102", DAY)
    version = serving.export(model_directory.load(home / "model"), home / "served", classify=True, regress="fused")
    return home / "data", home / "model", version


@pytest.fixture(scope="module")
def signatures(served):
    return tf.saved_model.load(str(served[2])).signatures


@pytest.fixture(scope="module")
def rows(served):
    """The day's raw feature columns."""
    return request_log.first_rows(served[0], DAY, model_directory.load(served[1]).schema, 10**6)


@pytest.fixture(scope="module")
def expected(served):
    """What the training graph says of the day, by score."""
    model = model_directory.load(served[1])
    return evaluation.predict(evaluation.scorer(model.network, model.schema), model.schema, served[0], DAY).serving


def test_versions_count_up(served, tmp_path):
    model = model_directory.load(served[1])
    assert [serving.export(model, tmp_path / "out").name for _ in range(2)] == ["1", "2"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["1", "2"]


def test_a_file_in_the_place_of_the_versions_is_refused(served, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="must be a directory. Received: a file"):
        serving.export(model_directory.load(served[1]), tmp_path / "out")


# === In processes that did not write the model ===

SESSION = """
import json, sys, tensorflow as tf
records = [r.numpy() for r in tf.data.TFRecordDataset(json.loads(sys.argv[2]))]
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    meta = tf.compat.v1.saved_model.load(session, ["serve"], sys.argv[1])
    signature = meta.signature_def["serving_default"]
    outputs = {name: t.name for name, t in signature.outputs.items()}
    scores = session.run(outputs, {signature.inputs["examples"].name: records})
print(json.dumps({name: values.tolist() for name, values in scores.items()}))
"""


def test_examples_through_a_session_in_a_fresh_process(served, expected):
    directory, _, version = served
    shards = json.dumps(data.shards(directory, [DAY]).paths)
    command = [sys.executable, "-c", SESSION, version, shards]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    scores = json.loads(done.stdout.splitlines()[-1])
    ups = {f"{task}_up" for task in simulate.TASKS}
    assert set(scores) == {*expected, "fused"} == {*simulate.TASKS, *ups, "p_up", "fused"}
    for name, values in expected.items():
        np.testing.assert_allclose(scores[name], values, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("signature", ["raw", "serving_default", "rank"])
def test_a_c_program_that_loads_it_with_the_cpp_loader(served, rows, expected, signature):
    schema = model_directory.load(served[1]).schema
    count = len(rows["user_id"])
    sent = {"raw": rows, "rank": of_one_user(schema, rows), "serving_default": {
        "examples": request_log.examples(schema, rows) if signature == "serving_default" else None
    }}[signature]
    scores = c_session.send(served[2], signature, sent).scores
    if signature == "rank":
        np.testing.assert_array_equal(scores["order"], np.argsort(-scores["fused"], kind="stable"))
        wanted = c_session.send(served[2], "raw", repeated(schema, sent)).scores
    else:
        wanted = expected
    assert len(scores["p_up"]) == count
    for name, values in wanted.items():
        np.testing.assert_allclose(scores[name], values, rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.serving
@pytest.mark.skipif("TRITON_PYTHON" not in os.environ, reason=(
    "TRITON_PYTHON does not name the Python of an environment with nvidia-pytriton==0.7.0, tensorflow and numpy<2"
))
@pytest.mark.parametrize("signature", ["raw", "rank"])
def test_triton_serves_the_same_scores(served, rows, tmp_path, signature):
    python = os.environ["TRITON_PYTHON"]
    schema = model_directory.load(served[1]).schema
    sent = {f.name: rows[f.name] for f in schema.features} if signature == "raw" else of_one_user(schema, rows)
    np.savez(tmp_path / "rows.npz", **{
        f.name: sent[f.name].astype(str) if f.dtype == "string" else sent[f.name] for f in schema.features
    })
    # Triton's Python backend loads the library of Python that it finds, which must be that of this environment.
    libraries = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"])
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [python, pathlib.Path(__file__).parents[1] / "support/triton_session.py", served[2], signature,
         tmp_path / "rows.npz"],
        env=environment | {"LD_LIBRARY_PATH": libraries.decode().strip()}, capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    scores = json.loads(done.stdout.splitlines()[-1])
    wanted = versions.load(served[2]).run(signature, {f.name: sent[f.name] for f in schema.features})
    assert set(scores) == set(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(scores[name], values, rtol=1e-5, atol=1e-7, err_msg=name)


def of_one_user(schema, columns, once=("user",)):
    """The columns with one row of the user (and of other sides named in `once`)."""
    side = {f.name: f.side for f in schema.features}
    return {name: column[:1] if side.get(name) in once else column for name, column in columns.items()}


def repeated(schema, columns):
    """The full rows of a `rank` request."""
    most = max(len(columns[f.name]) for f in schema.features)
    return {
        f.name: np.repeat(columns[f.name], most if len(columns[f.name]) == 1 else 1, axis=0) for f in schema.features
    }


# === Rank ===

def test_rank_takes_the_context_once_or_for_each(served, signatures, rows):
    schema = model_directory.load(served[1]).schema
    for once in (("user",), ("user", "context")):
        sent = of_one_user(schema, {name: column[:40] for name, column in rows.items()}, once)
        ranked = signatures["rank"](**as_tensors(schema, sent))
        wanted = signatures["raw"](**as_tensors(schema, repeated(schema, sent)))
        for name, values in wanted.items():
            np.testing.assert_allclose(ranked[name], values, rtol=1e-5, atol=1e-7, err_msg=name)
        assert ranked["order"].dtype == tf.int32
        assert np.all(np.diff(ranked["fused"].numpy()[ranked["order"].numpy()]) <= 0)


def as_tensors(schema, columns):
    return {f.name: tf.constant(columns[f.name]) for f in schema.features}


def test_rank_of_no_candidates_and_of_one(served, signatures, rows):
    schema = model_directory.load(served[1]).schema
    for count in (0, 1):
        sent = of_one_user(schema, {name: column[:1] for name, column in rows.items()})
        sent = {f.name: sent[f.name] if f.side == "user" else sent[f.name][:count] for f in schema.features}
        scores = signatures["rank"](**as_tensors(schema, sent))
        assert {v.shape for v in scores.values()} == {(count,)}


@pytest.mark.parametrize(("name", "count"), [("topics", 7), ("user_id", 2), ("hour", 3)])
def test_rank_names_the_feature_with_the_wrong_number_of_rows(served, rows, name, count):
    """As the server sees it: through a session, with its C++ executor's choice of the first error."""
    schema = model_directory.load(served[1]).schema
    sent = of_one_user(schema, {n: column[:5] for n, column in rows.items()})
    sent[name] = np.repeat(sent[name][:1], count, axis=0)
    loaded = versions.load(served[2])
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match=rf"{name}|shape"):
        loaded.run("rank", {f.name: sent[f.name] for f in schema.features})


def test_equal_candidates_keep_their_order(served, signatures, rows):
    schema = model_directory.load(served[1]).schema
    sent = {f.name: np.repeat(rows[f.name][:1], 1 if f.side == "user" else 6, axis=0) for f in schema.features}
    scores = signatures["rank"](**as_tensors(schema, sent))
    # A product may round its last rows otherwise than its first ones, so equal candidates can differ in the last digit.
    np.testing.assert_allclose(scores["fused"], np.repeat(scores["fused"][0], 6), rtol=1e-5)
    np.testing.assert_array_equal(scores["order"], np.argsort(-scores["fused"].numpy(), kind="stable"))


# === Classify and regress ===

def test_classify_and_regress_have_their_methods_names(served, expected):
    directory, model, version = served
    loaded = versions.load(version)
    methods = {name: s.method_name.rpartition("/")[2] for name, s in loaded.signatures.items()}
    assert methods == {"serving_default": "predict", "raw": "predict", "rank": "predict", "classify": "classify",
                       "regress": "regress"}
    records = [r.numpy() for r in tf.data.TFRecordDataset(list(data.shards(directory, [DAY]).paths))]
    found = loaded.run("classify", {"inputs": records})
    np.testing.assert_array_equal(found["classes"], [[t.encode() for t in simulate.TASKS]] * len(records))
    np.testing.assert_allclose(found["scores"], np.stack([expected[t] for t in simulate.TASKS], 1), rtol=1e-5)
    fused = loaded.run("serving_default", {"examples": records})["fused"]
    np.testing.assert_array_equal(loaded.run("regress", {"inputs": records})["outputs"], fused)
    assert "classify" not in versions.load(serving.export(model_directory.load(model), version.parent)).signatures


# === What is served: calibrated, fused ===

def test_scores_are_calibrated_and_fused_by_what_was_given(served, rows, expected, tmp_path):
    model = model_directory.load(served[1])
    calibration = Calibration("platt", DAY, {"click": ((0.0, 1.0), (-1.0, 1.0))})  # σ(2 logit - 1)
    fusion = Fusion("product", {"click": 2.0, "like_up": 1.0}, floor=0.3)
    version = serving.export(model, tmp_path / "m", calibration=calibration, fusion=fusion)
    scores = versions.load(version).run("raw", {f.name: rows[f.name] for f in model.schema.features})
    click = expected["click"].astype(float)
    np.testing.assert_allclose(scores["click"], numpy_sigmoid(2 * np.log(click / (1 - click)) - 1), rtol=1e-4)
    for name in set(expected) - {"click"}:
        np.testing.assert_allclose(scores[name], expected[name], rtol=1e-5, atol=1e-7)
    held = scores["p_up"] < 0.3
    assert 0 < held.sum() < len(held)
    np.testing.assert_allclose(
        scores["fused"][~held], (scores["click"].astype(float) ** 2 * scores["like_up"])[~held], rtol=1e-4
    )
    assert scores["fused"][held].max() < scores["fused"][~held].min()


@pytest.mark.parametrize(("options", "message"), [
    ({"calibration": Calibration("platt", DAY, {"buy": ((0.0, 1.0), (0.0, 1.0))})}, r"Received: also of \['buy'\]"),
    ({"fusion": Fusion("sum", {"buy": 1.0})}, "buy"),
    ({"regress": "buy"}, r"regress must name a score. Received: 'buy'. Known: \['click'"),
    ({"causes": True}, "only a model with CAM2's branches"),
])
def test_what_the_model_cannot_serve_is_refused(served, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        serving.export(model_directory.load(served[1]), tmp_path / "m", **options)
    assert not (tmp_path / "m").exists()


def test_a_task_may_not_have_another_scores_name(served, tmp_path):
    model = model_directory.load(served[1])
    schema = dataclasses.replace(model.schema, tasks=(Task("fused"), *model.schema.tasks[1:]))
    with pytest.raises(UserError, match=r"a task cannot be called so. Received: \['fused'\]"):
        serving.export(dataclasses.replace(model, schema=schema), tmp_path / "m")


# === No skew, and nothing that a client sends makes a score infinite ===

@pytest.mark.skipif(not REAL.is_dir(), reason="the real logs of ../shared/data/kuairand_pure are not there")
def test_ten_thousand_rows_of_a_real_day_score_as_in_training(tmp_path):
    train_day, day = "20220504", "20220505"
    source = some_users(tmp_path / "in", (train_day, day), 1)
    kuairand.convert(source, str(tmp_path / "data"))
    config = Config("real", ModelConfig("ple", head="dlen", task_experts=1, **SIZES), TrainConfig(bootstrap=0))
    train(config, tmp_path / "data", tmp_path / "model", train_day, day)
    model = model_directory.load(tmp_path / "model")
    score = evaluation.scorer(model.network, model.schema)
    wanted = evaluation.predict(score, model.schema, tmp_path / "data", day).serving
    rows = request_log.first_rows(tmp_path / "data", day, model.schema, 10_000)
    assert len(rows["user_id"]) == 10_000
    loaded = versions.load(serving.export(model, tmp_path / "served"))
    records = [r.numpy() for r in tf.data.TFRecordDataset(list(data.shards(tmp_path / "data", [day]).paths))]
    for found in (
        loaded.run("raw", {f.name: rows[f.name] for f in model.schema.features}),
        loaded.run("serving_default", {"examples": records[:10_000]}),
    ):
        for name, values in wanted.items():
            np.testing.assert_allclose(found[name], values[:10_000], rtol=0, atol=1e-5, err_msg=name)


ODD = {
    "user_id": [10**15, -1, -(2**63), 2**63 - 1],
    "history": [[-1, -1, -1], [2**63 - 1, 5, -1], [10**12, 10**12, 10**12], [0, 1, 2]],
    "video_id": [2**62, -5, 8, 9],
    "author": ["Ω≈ç√∫", "", "\U0001f600" * 1000, "nul\0inside"],
    "phone": ["\ud7ff", "x" * 100_000, "", "日本語"],
    "active_days": [3.4e38, -3.4e38, 1e-45, np.inf],
    "ctr": [-np.inf, np.inf, 3.4e38, -1e30],
}


@pytest.mark.parametrize("head", ["plain", "dlen"])
@pytest.mark.parametrize("trunk", ["mmoe", "ple"])
def test_odd_values_have_finite_scores(tmp_path, trunk, head):
    model, _ = trained_model(tmp_path / "model", trunk=trunk, head=head)
    loaded = versions.load(serving.export(model, tmp_path / "served"))
    columns = {
        f.name: np.array(ODD[f.name], {"int": np.int64, "float": np.float32, "string": object}[f.dtype])
        for f in tiny_schema().features
    }
    requests = {
        "raw": columns, "rank": of_one_user(tiny_schema(), columns),
        "serving_default": {"examples": request_log.examples(tiny_schema(), columns)},
    }
    found = {signature: loaded.run(signature, sent) for signature, sent in requests.items()}
    for scores in found.values():
        assert all(np.isfinite(values).all() for values in scores.values())
    for name, values in found["raw"].items():
        np.testing.assert_allclose(found["serving_default"][name], values, rtol=1e-5, atol=1e-30, err_msg=name)
    empty = {**columns, "history": np.zeros((4, 0), np.int64)}  # shorter than the model's, and longer
    long = {**columns, "history": np.full((4, 50), 10**12)}
    for sent in (empty, long):
        assert all(np.isfinite(values).all() for values in loaded.run("raw", sent).values())


@pytest.mark.parametrize("signature", ["raw", "rank", "serving_default"])
def test_a_number_that_is_none_is_named(tmp_path, signature):
    model, _ = trained_model(tmp_path / "model")
    loaded = versions.load(serving.export(model, tmp_path / "served"))
    columns = request_log.synthetic(tiny_schema(), 4)
    columns["ctr"][2] = np.nan
    sent = {"raw": columns, "rank": of_one_user(tiny_schema(), columns),
            "serving_default": {"examples": request_log.examples(tiny_schema(), columns)}}[signature]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"features ctr must be numbers. Received: NaN"):
        loaded.run(signature, sent)


def test_a_missing_number_is_named_and_a_missing_id_is_unknown(served, signatures, rows):
    schema = model_directory.load(served[1]).schema
    example = tf.train.Example.FromString(request_log.examples(schema, {n: c[:1] for n, c in rows.items()})[0])
    for name in ("user_id", "watched"):
        if name in example.features.feature:
            del example.features.feature[name]
    scores = signatures["serving_default"](tf.constant([example.SerializeToString()]))
    first = {f.name: rows[f.name][:1] for f in schema.features}
    first |= {"user_id": np.array([-1]), "watched": np.full_like(first["watched"], -1)}
    for name, values in signatures["raw"](**as_tensors(schema, first)).items():
        np.testing.assert_allclose(scores[name], values, rtol=1e-5)
    del example.features.feature["duration_s"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="duration_s"):
        signatures["serving_default"](tf.constant([example.SerializeToString()]))


# === The command ===

def test_export_command_with_everything(served, tmp_path):
    directory, model, _ = served
    Calibration("platt", DAY, {"click": ((0.0, 1.0), (-1.0, 1.0))}).save(tmp_path / "calibration.json")
    Fusion("sum", {"click": 1.0}).save(tmp_path / "fusion.json")
    command = [
        sys.executable, "-m", "dlen_cam2", "export", f"--model_dir={model}", f"--output={tmp_path / 'ranker'}",
        f"--calibration={tmp_path / 'calibration.json'}", f"--fusion={tmp_path / 'fusion.json'}", "--classify",
        "--regress=fused", f"--data_dir={directory}", f"--day={DAY}",
    ]
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(root)})
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == f"SavedModel: {tmp_path / 'ranker' / '1'}"
    loaded = versions.load(tmp_path / "ranker" / "1")
    logs = request_log.read(tmp_path / "ranker" / "1" / request_log.WARM_UP)
    assert {request_log.inputs(log)[0] for log in logs} == set(loaded.signatures)
    schema = pbtxt.load(directory)
    rows = request_log.first_rows(directory, DAY, schema, 1)
    for log in logs:
        signature, sent = request_log.inputs(log)
        scores = loaded.run(signature, sent)
        if signature in ("raw", "rank"):
            np.testing.assert_array_equal(sent["user_id"][:1], rows["user_id"])  # real rows
            np.testing.assert_allclose(scores["fused"], scores["click"], rtol=1e-5)  # a sum of one
        count = len(sent["video_id" if signature in ("raw", "rank") else next(iter(sent))])
        assert {len(values) for values in scores.values()} == {count}
    done = subprocess.run([*command[:5], "--day=1"], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 1 and "--data_dir and --day must be given together" in done.stderr
