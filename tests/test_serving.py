"""Exported models, scored by processes that did not write them."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from dlen_cam2 import data, evaluation, model_dir, schema_pbtxt, serving
from dlen_cam2.cli import UserError
from dlen_cam2.config import Config, ModelConfig, TrainConfig
from pipelines import simulate
from tests.builders import train

ROOT = pathlib.Path(__file__).parent.parent
DAY = "20240103"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A small DLEN, trained on a simulated log and exported: (data directory, model directory, version directory)."""
    home = tmp_path_factory.mktemp("served")
    simulate.write(simulate.World(rows=1500, seed=2, days=3), str(home / "data"))
    sizes = {"experts": 2, "expert_units": (8,), "tower_units": (4,), "latent_units": (4,)}
    config = Config("small", ModelConfig("mmoe", head="dlen", **sizes), TrainConfig(batch_size=128, bootstrap=0))
    train(config, home / "data", home / "model", "20240101..20240102", DAY)
    version = serving.export(model_dir.load(home / "model"), home / "served")
    return home / "data", home / "model", version


def expected(served):
    """What the training graph says of the day, by score."""
    directory, model, _ = served
    loaded = model_dir.load(model)
    return evaluation.predict(evaluation.scorer(loaded.network, loaded.schema), loaded.schema, directory, DAY).serving


def raw_columns(directory):
    """The day's raw feature columns."""
    schema = schema_pbtxt.load(directory)
    records = [r.numpy() for r in tf.data.TFRecordDataset(list(data.shards(directory, [DAY]).paths))]
    raw = data.parse_examples(tf.constant(records), schema, labels=False)
    return records, {name: value.numpy() for name, value in raw.items()}


def test_versions_count_up(served, tmp_path):
    model = model_dir.load(served[1])
    assert [serving.export(model, tmp_path / "out").name for _ in range(2)] == ["1", "2"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["1", "2"]


def test_a_file_in_the_place_of_the_versions_is_refused(served, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="must be a directory. Received: a file"):
        serving.export(model_dir.load(served[1]), tmp_path / "out")


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


def test_examples_through_a_session_in_a_fresh_process(served):
    directory, _, version = served
    shards = json.dumps(data.shards(directory, [DAY]).paths)
    command = [sys.executable, "-c", SESSION, version, shards]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    scores = json.loads(done.stdout.splitlines()[-1])
    wanted = expected(served)
    assert set(scores) == set(wanted) == {*simulate.TASKS, "p_up"}
    for name, values in wanted.items():
        np.testing.assert_allclose(scores[name], values, rtol=1e-5, atol=1e-7)


def test_raw_tensors_through_the_cpp_loader(served):
    directory, _, version = served
    _, raw = raw_columns(directory)
    content = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    meta = content.meta_graphs[0].signature_def["raw"]
    job = {
        "library": os.path.join(tf.sysconfig.get_lib(), "libtensorflow_cc.so.2"), "model": str(version),
        "inputs": {
            meta.inputs[name].name: {"dtype": str(v.dtype), "shape": v.shape, "values": v.ravel().tolist()}
            for name, v in raw.items()
        },
        "outputs": {name: t.name for name, t in meta.outputs.items()},
    }
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "c_loader.py"], input=json.dumps(job), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    scores = json.loads(done.stdout)
    for name, values in expected(served).items():
        np.testing.assert_allclose(scores[name], values, rtol=1e-5, atol=1e-7)


def test_unknown_and_missing_values_have_finite_scores(served):
    directory, _, version = served
    _, raw = raw_columns(directory)
    signature = tf.saved_model.load(str(version)).signatures["raw"]
    odd = {name: tf.constant(value[:4]) for name, value in raw.items()}
    odd["user_id"] = tf.constant([10**15, -1, 0, 2**62], tf.int64)
    odd["watched"] = tf.zeros((4, 0), tf.int64)  # shorter than the model's
    odd["liked"] = tf.fill((4, 50), tf.constant(10**12, tf.int64))  # longer, and unknown
    odd["user_click_rate"] = tf.constant([0.0, 1.0, -3.0, 7.0])
    for values in signature(**odd).values():
        assert np.isfinite(values.numpy()).all()


def test_a_missing_number_is_named_and_a_missing_id_is_unknown(served):
    directory, _, version = served
    records, raw = raw_columns(directory)
    signatures = tf.saved_model.load(str(version)).signatures
    example = tf.train.Example.FromString(records[0])
    del example.features.feature["user_id"]
    scores = signatures["serving_default"](tf.constant([example.SerializeToString()]))
    first = {name: tf.constant(value[:1]) for name, value in raw.items()} | {"user_id": tf.constant([-1], tf.int64)}
    for name, values in signatures["raw"](**first).items():
        np.testing.assert_allclose(scores[name], values, rtol=1e-5)
    del example.features.feature["duration_s"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="duration_s"):
        signatures["serving_default"](tf.constant([example.SerializeToString()]))
