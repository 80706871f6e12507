"""Exported models, scored by processes that did not write them, against the training graph."""

import json
import os
import subprocess

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import c_session
from dlen_cam2 import data
from dlen_cam2.serving import request_log, versions
from dlen_cam2.training import model_directory
from pipelines import simulate
from tests.support import processes
from tests.support.builders import ROOT
from tests.support.jobs import DAY
from tests.support.requests import as_tensors, of_one_user

pytestmark = pytest.mark.slow

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
    done = processes.run(["-c", SESSION, version, shards])
    assert done.returncode == 0, done.stderr[-2000:]
    scores = json.loads(done.stdout.splitlines()[-1])
    ups = {f"{task}_up" for task in simulate.TASKS}
    assert set(scores) == {*expected, "fused"} == {*simulate.TASKS, *ups, "p_up", "fused"}
    for name, values in expected.items():
        np.testing.assert_allclose(scores[name], values, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("signature", ["raw", "serving_default", "rank"])
def test_a_c_program_that_loads_it_with_the_cpp_loader(served, signatures, rows, expected, signature):
    schema = model_directory.load(served[1]).schema
    count = len(rows["user_id"])
    sent = {"raw": rows, "rank": of_one_user(schema, rows), "serving_default": {
        "examples": request_log.examples(schema, rows) if signature == "serving_default" else None
    }}[signature]
    scores = c_session.send(served[2], signature, sent).scores
    if signature == "rank":
        np.testing.assert_array_equal(scores["order"], np.argsort(-scores["fused"], kind="stable"))
        wanted = signatures["raw"](**as_tensors(schema, repeated(schema, sent)))
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
        [python, ROOT / "tests/support/triton_session.py", served[2], signature, tmp_path / "rows.npz"],
        env=environment | {"LD_LIBRARY_PATH": libraries.decode().strip()}, capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    scores = json.loads(done.stdout.splitlines()[-1])
    wanted = versions.load(served[2]).run(signature, {f.name: sent[f.name] for f in schema.features})
    assert set(scores) == set(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(scores[name], values, rtol=1e-5, atol=1e-7, err_msg=name)


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
    directory, _, version = served
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
