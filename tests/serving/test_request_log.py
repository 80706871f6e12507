"""Recorded requests: written, read, answered."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from dlen_cam2 import serving
from dlen_cam2.data.parsing import parse_examples
from dlen_cam2.data.preprocessing import Indexer
from dlen_cam2.models import build
from dlen_cam2.schema import pbtxt
from dlen_cam2.serving import request_log, versions
from dlen_cam2.training.model_directory import TrainedModel
from dlen_cam2.utils.errors import UserError
from pipelines import simulate
from tests.support import processes
from tests.support.builders import raw_batch, tiny_config, tiny_schema
from tests.support.saved_models import log


# Recorded requests.
def test_examples_say_what_the_columns_say():
    columns = raw_batch(20)
    back = parse_examples(tf.constant(request_log.examples(tiny_schema(), columns)), tiny_schema(), labels=False)
    for name, values in columns.items():
        wanted = values.astype("S") if values.dtype == object else values
        np.testing.assert_array_equal(back[name].numpy().astype(wanted.dtype), wanted, err_msg=name)
    missing = request_log.examples(tiny_schema(), {**columns, "video_id": np.full(20, -1)})[0]
    example = tf.train.Example.FromString(missing)
    assert "video_id" not in example.features.feature  # missing, not -1


def test_rank_requests_have_one_row_of_the_user():
    columns = raw_batch(5)
    signature, sent = request_log.inputs(request_log.request(tiny_schema(), columns, "ranker", "rank"))
    assert signature == "rank" and set(sent) == set(columns)
    shapes = {name: values.shape for name, values in sent.items()}
    assert shapes == {"user_id": (1,), "history": (1, 3), "active_days": (1,), "video_id": (5,), "author": (5,),
                      "ctr": (5,), "phone": (5,)}
    np.testing.assert_array_equal(sent["history"], columns["history"][:1])
    assert sent["author"].tolist() == [a.encode() for a in columns["author"]]
    _, raw = request_log.inputs(request_log.request(tiny_schema(), columns, "ranker", "raw"))
    assert raw["history"].shape == (5, 3) and raw["user_id"].dtype == np.int64 and raw["ctr"].dtype == np.float32


def test_rows_are_spread_over_requests():
    columns = {name: np.resize(values, (1100, *values.shape[1:])) for name, values in raw_batch(7).items()}
    sent = [request_log.inputs(r) for r in request_log.in_requests(tiny_schema(), columns, "m", ["raw", "rank"])]
    assert [signature for signature, _ in sent] == ["raw", "rank"] * 3
    assert [len(values["video_id"]) for _, values in sent] == [500, 500, 500, 500, 100, 100]
    np.testing.assert_array_equal(sent[4][1]["video_id"], columns["video_id"][1000:])


def test_synthetic_rows_are_known_values_with_the_features_moments():
    schema = tiny_schema()
    indexed = Indexer(schema)({name: tf.constant(v) for name, v in request_log.synthetic(schema, 4000).items()})
    columns = {name: v.numpy() for group in indexed.values() for name, v in group.items()}
    for name in ("user_id", "history", "video_id", "author", "phone"):
        assert columns[name].min() >= 1, name  # 0 is unknown
    assert columns["history"].shape == (4000, 3) and set(columns["author"]) == {1, 2, 3}
    # Of 4000 normal numbers: ±.016, ±.011.
    assert abs(columns["ctr"].mean()) < 0.06 and abs(columns["ctr"].std() - 1) < 0.05


def test_requests_are_written_and_read_back(tmp_path):
    logs = request_log.warm_up(tiny_schema(), ["serving_default", "raw", "rank", "classify", "regress"], "ranker")
    request_log.write(tmp_path / "extra" / "requests", logs)
    assert request_log.read(tmp_path / "extra" / "requests") == logs
    assert [p.name for p in (tmp_path / "extra").iterdir()] == ["requests"]
    assert len(logs) == 2 + 2 + 3 + 2 + 2 and {logs[-1].regress_log.request.model_spec.name} == {"ranker"}
    ranked = [request_log.inputs(r)[1]["video_id"].size for r in logs if request_log.inputs(r)[0] == "rank"]
    assert ranked == [1, 100, 500]
    named = request_log.warm_up(tiny_schema(), ["raw"], "ranker", raw_batch(3))
    np.testing.assert_array_equal(request_log.inputs(named[1])[1]["video_id"], np.resize(raw_batch(3)["video_id"], 32))


def test_files_without_requests_are_refused(tmp_path):
    (tmp_path / "junk").write_bytes(b"not records at all, but long enough to be read as one")
    with tf.io.TFRecordWriter(str(tmp_path / "other")) as writer:
        writer.write(b"\xff\xff\xff")
    (tmp_path / "empty").write_bytes(b"")
    for name, message in (("junk", "must hold TFRecords"), ("other", "must hold TFRecords"), ("empty", "at least one"),
                          ("absent", "does not exist")):
        with pytest.raises(UserError, match=message):
            request_log.read(tmp_path / name)
    with pytest.raises(UserError, match="Received: None"):
        request_log.inputs(PredictionLog())
    damaged = log("raw", x=[1.0, 2.0])
    damaged.predict_log.request.inputs["x"].tensor_content = b"123"
    with pytest.raises(UserError, match="must hold whole tensors"):
        request_log.inputs(damaged)


SESSION = """
import json, sys, numpy as np, tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
answers = []
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    meta = tf.compat.v1.saved_model.load(session, ["serve"], sys.argv[1])
    for record in tf.compat.v1.io.tf_record_iterator(sys.argv[1] + "/assets.extra/tf_serving_warmup_requests"):
        log = PredictionLog.FromString(record)
        kind = log.WhichOneof("log_type")
        request = getattr(log, kind).request
        signature = meta.signature_def[request.model_spec.signature_name]
        if kind == "predict_log":
            sent = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        else:
            sent = {"inputs": [e.SerializeToString() for e in request.input.example_list.examples]}
        scores = session.run({name: t.name for name, t in signature.outputs.items()},
                             {signature.inputs[name].name: value for name, value in sent.items()})
        finite = all(np.isfinite(v).all() for v in scores.values() if v.dtype.kind == "f")
        answers.append([request.model_spec.signature_name, len(next(iter(scores.values()))), finite])
print(json.dumps(answers))
"""


@pytest.mark.slow
def test_every_warm_up_request_is_answered_in_a_fresh_process(tmp_path):
    config, schema = tiny_config(head="dlen"), tiny_schema()
    version = serving.export(TrainedModel(config, schema, {}, build(config.model, schema), []), tmp_path / "m")
    signatures = [name for name in versions.load(version).signatures]
    request_log.write(version / request_log.WARM_UP, request_log.warm_up(schema, signatures, "m"))
    done = processes.run(["-c", SESSION, version])
    assert done.returncode == 0, done.stderr[-2000:]
    sizes = {name: request_log.CANDIDATES if name == "rank" else request_log.ROWS for name in signatures}
    assert json.loads(done.stdout.splitlines()[-1]) == [[name, n, True] for name in signatures for n in sizes[name]]


def test_rows_of_a_day(tmp_path):
    simulate.write(simulate.World(rows=600, seed=2, days=2), str(tmp_path / "data"))
    some = pbtxt.load(tmp_path / "data").select(features=["user_id", "watched"])
    columns = request_log.first_rows(tmp_path / "data", "20240101", some, 7)
    assert columns["user_id"].shape == (7,) and columns["watched"].shape == (7, some.features[1].max_length)
    with pytest.raises(UserError, match="has no day '20250101'"):
        request_log.first_rows(tmp_path / "data", "20250101", some, 7)
