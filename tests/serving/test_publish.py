"""Versions, what is published of them, recorded requests, and a candidate against the live version."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from dlen_cam2 import serving
from dlen_cam2.data.parsing import parse_examples
from dlen_cam2.data.preprocessing import Indexer
from dlen_cam2.models import build
from dlen_cam2.schema import pbtxt
from dlen_cam2.serving import request_log, server_files, version_comparison, versions
from dlen_cam2.training.model_directory import TrainedModel
from dlen_cam2.utils.errors import UserError
from pipelines import simulate
from tests.support.builders import command, raw_batch, run, tiny_config, tiny_schema


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


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A version to copy: saving takes longer than copying."""
    version = tmp_path_factory.mktemp("saved") / "1"
    save(version)
    return version


@pytest.fixture
def served(tmp_path, saved):
    """A directory of the versions 1 to 4."""
    for number in (1, 2, 3, 4):
        (tmp_path / "ranker" / str(number)).mkdir(parents=True)
        (tmp_path / "ranker" / str(number) / "saved_model.pb").write_bytes((saved / "saved_model.pb").read_bytes())
    return tmp_path / "ranker"


def content(directory):
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.is_file()}


def models_config(directory):
    config = text_format.Parse((directory / "models.config").read_text(), ModelServerConfig()).model_config_list.config
    assert len(config) == 1
    return config[0]


# Versions.


def test_only_directories_with_plain_decimal_names_are_versions(tmp_path):
    for name in ("10", "9", "0", "007", "-1", "+2", "1.0", "٣", ".11.incomplete-ab", "x"):
        (tmp_path / name).mkdir()
    (tmp_path / "12").write_text("a file")
    assert versions.numbers(tmp_path) == [0, 9, 10]
    assert versions.resolve(tmp_path) == tmp_path / "10"
    assert versions.resolve(tmp_path / "9") == tmp_path / "9"
    assert versions.following(tmp_path) == tmp_path / "11"
    assert versions.following(tmp_path / "new") == tmp_path / "new" / "1"
    with pytest.raises(UserError, match="must be a directory. Received: a file"):
        versions.following(tmp_path / "12")


def test_old_versions_go_but_for_protected_ones(served):
    assert versions.prune(served, 2, [1]) == [2]
    assert versions.numbers(served) == [1, 3, 4]
    assert versions.prune(served, 1, []) == [1, 3]
    assert versions.prune(served, 1, []) == []
    assert sorted(p.name for p in served.iterdir()) == ["4"]


def test_a_reader_finds_a_version_whole_or_not_at_all(served, monkeypatch):
    seen = []

    def interrupted(path, **_):
        seen.append((versions.numbers(served), (path / "saved_model.pb").exists()))

    with monkeypatch.context() as patch:
        patch.setattr(versions.shutil, "rmtree", interrupted)
        versions.prune(served, 3, [])
    assert seen == [([2, 3, 4], True)]  # out of sight while it is still whole
    versions.prune(served, 3, [])  # and the next run removes what this one left
    assert sorted(p.name for p in served.iterdir()) == ["2", "3", "4"]


def test_versions_that_cannot_be_loaded_are_refused(served):
    versions.check(served / "1")
    path = served / "2" / "saved_model.pb"
    content = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    content.meta_graphs[0].meta_info_def.tags[:] = ["train"]
    path.write_bytes(content.SerializeToString())
    (served / "3" / "saved_model.pb").write_bytes(b"\xff\xff junk")
    (served / "4" / "saved_model.pb").unlink()
    for number, message in ((2, "Received tags: .*train"), (3, "must be a SavedModel"), (4, "holds no SavedModel")):
        with pytest.raises(UserError, match=message):
            versions.check(served / str(number))
    with pytest.raises(UserError, match="holds no SavedModel"):
        versions.load(served / "4")


# Publishing.


def test_at_first_the_newest_version_is_stable(served):
    now, removed = server_files.publish(served, {})
    assert (dict(now.labels), now.loaded, removed) == ({"stable": 4}, (4,), [])
    model = models_config(served)
    assert (model.name, model.base_path, model.model_platform) == ("ranker", "/models/ranker", "tensorflow")
    assert list(model.model_version_policy.specific.versions) == [4]
    assert dict(model.version_labels) == {"stable": 4}
    assert server_files.published(served) == now


def test_a_label_moves_once_the_version_is_loaded(served):
    server_files.publish(served, {"stable": 2, "canary": 3})
    before = content(served)
    with pytest.raises(UserError, match=r"publish --load=4.* Received: canary=4, loaded are \[2, 3\]"):
        server_files.publish(served, {"canary": 4})
    assert content(served) == before
    now, _ = server_files.publish(served, {}, load=[4])
    assert (dict(now.labels), now.loaded) == ({"stable": 2, "canary": 3}, (2, 3, 4))
    now, _ = server_files.publish(served, {"canary": 4})
    assert (dict(now.labels), now.loaded) == ({"stable": 2, "canary": 4}, (2, 4))
    now, _ = server_files.publish(served, {"stable": 4, "canary": None}, load=[2])
    assert (dict(now.labels), now.loaded) == ({"stable": 4}, (2, 4))
    assert dict(server_files.publish(served, {"stable": 2})[0].labels) == {"stable": 2}  # the way back


def test_retention_keeps_what_the_last_and_the_new_config_load(served, saved):
    server_files.publish(served, {"stable": 1, "canary": 2})
    now, removed = server_files.publish(served, {"canary": None}, keep=1)
    assert (removed, versions.numbers(served)) == ([3], [1, 2, 4])  # a server may still load 2: it looks again later
    assert server_files.publish(served, {}, keep=1)[1] == [2]
    assert versions.numbers(served) == [1, 4]


def test_what_cannot_be_published_leaves_everything_as_it_was(served, tmp_path):
    server_files.publish(served, {"stable": 1})
    (served / "3" / "saved_model.pb").write_bytes(b"\xff junk")
    before = content(served)
    for changes, load, name, message in (
        ({"canary": 9}, [], "", r"has no version 9. Known: \[1, 2, 3, 4\]"), ({}, [3], "", "must be a SavedModel"),
        ({}, [], "a b", "Received: 'a b'"), ({}, [], "$(id)", "name of a model"), ({}, [], "../x", "name of a model"),
    ):
        with pytest.raises(UserError, match=message):
            server_files.publish(served, changes, load, keep=1, name=name)
    assert content(served) == before and versions.numbers(served) == [1, 2, 3, 4]
    with pytest.raises(UserError, match="must hold versions.* Received: none"):
        server_files.publish(tmp_path / "empty", {})


@pytest.mark.parametrize("text", ["model_config_list {", "model_config_list {}", "\x00\xff"])
def test_a_config_that_is_not_ours_is_not_replaced(served, text):
    (served / "models.config").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match="models.config must"):
        server_files.publish(served, {})
    assert (served / "models.config").read_text(encoding="latin-1") == text


def test_models_config_is_written_last(served, monkeypatch):
    written = []
    monkeypatch.setattr(server_files, "write_text", lambda path, text: written.append(path.name))
    server_files.publish(served, {})
    assert written == ["batching.config", "compose.yaml", "models.config"]


def test_compose_serves_rank_without_batching(served):
    server_files.publish(served, {}, name="feed")
    services = yaml.safe_load((served / "compose.yaml").read_text())["services"]
    default, batching = services["serving"], services["batching"]
    assert default["image"] == batching["image"] == "tensorflow/serving:2.21.0"
    assert default["ports"] == ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]
    assert default["volumes"] == [".:/models/feed:ro"]
    assert default["environment"] == batching["environment"] == ["TF_ENABLE_ONEDNN_OPTS=1"]
    assert default["command"] == [
        "--model_config_file=/models/feed/models.config", "--model_config_file_poll_wait_seconds=30",
        "--allow_version_labels_for_unavailable_models=true",
    ]
    assert batching["profiles"] == ["batching"] and "profiles" not in default
    assert batching["command"] == [
        *default["command"], "--enable_batching=true", "--batching_parameters_file=/models/feed/batching.config",
        "--enable_model_warmup=false",
    ]
    line = server_files.docker_run(served, "feed").split()
    assert line[-3:] == default["command"] and f"{served}:/models/feed:ro" in line
    assert line[line.index("-e") + 1] == "TF_ENABLE_ONEDNN_OPTS=1"


def batching_parameters():
    """`BatchingParameters` of session_bundle_config.proto, which tensorflow-serving-api does not ship."""
    file = descriptor_pb2.FileDescriptorProto(
        name="batching_test.proto", package="batching_test", syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    message = file.message_type.add(name="BatchingParameters")
    wrapped = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
    kind = descriptor_pb2.FieldDescriptorProto
    for number, name in enumerate(wrapped, 1):
        message.field.add(name=name, number=number, type=kind.TYPE_MESSAGE, label=kind.LABEL_OPTIONAL,
                          type_name=".google.protobuf.Int64Value")
    message.field.add(name="allowed_batch_sizes", number=6, type=kind.TYPE_INT64, label=kind.LABEL_REPEATED)
    message.field.add(name="pad_variable_length_inputs", number=7, type=kind.TYPE_BOOL, label=kind.LABEL_OPTIONAL)
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("batching_test.BatchingParameters"))()


def test_batching_config_keeps_the_rules_of_its_proto(served):
    server_files.publish(served, {})
    found = text_format.Parse((served / "batching.config").read_text(), batching_parameters())
    sizes = list(found.allowed_batch_sizes)
    assert sizes == sorted(set(sizes)) and sizes[-1] == found.max_batch_size.value == 512
    assert found.batch_timeout_micros.value == 1000 and found.max_enqueued_batches.value == 64
    assert not found.pad_variable_length_inputs and not found.HasField("num_batch_threads")


# Recorded requests.


def test_examples_say_what_the_columns_say():
    columns = raw_batch(20)
    back = parse_examples(tf.constant(request_log.examples(tiny_schema(), columns)), tiny_schema(), labels=False)
    for name, values in columns.items():
        wanted = values.astype("S") if values.dtype == object else values
        np.testing.assert_array_equal(back[name].numpy().astype(wanted.dtype), wanted, err_msg=name)
    unknown = {**columns, "video_id": np.full(20, -1)}
    example = tf.train.Example.FromString(request_log.examples(tiny_schema(), unknown)[0])
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


def test_every_warm_up_request_is_answered_in_a_fresh_process(tmp_path):
    config, schema = tiny_config(head="dlen"), tiny_schema()
    version = serving.export(TrainedModel(config, schema, None, build(config.model, schema, None), []), tmp_path / "m")
    signatures = [name for name in versions.load(version).signatures]
    request_log.write(version / request_log.WARM_UP, request_log.warm_up(schema, signatures, "m"))
    done = subprocess.run([sys.executable, "-c", SESSION, version], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    sizes = {name: request_log.CANDIDATES if name == "rank" else request_log.ROWS for name in signatures}
    assert json.loads(done.stdout.splitlines()[-1]) == [[name, n, True] for name in signatures for n in sizes[name]]


# A candidate against the live version.


def compared(live, candidate):
    replays = (version_comparison.Replay({"click": np.array(scores)}, []) for scores in (live, candidate))
    return version_comparison.compare(*replays)


def test_drift_by_hand():
    d = compared([0.1, 0.2, 0.3, 0.4], [0.2, 0.1, 0.3, 0.5])["click"]
    assert (d.live, d.candidate) == pytest.approx((0.25, 0.275))
    assert d.drift == pytest.approx(0.1)
    assert (d.mean_difference, d.max_difference) == pytest.approx((0.075, 0.1))
    assert d.moved == 0.25  # 0.1 -> 0.2; 0.2 -> 0.1 is just half, up to rounding
    assert d.agreement == pytest.approx(1 - 6 * 2 / (4 * 15))  # ranks 1234 and 2134: Spearman, d² = 1 + 1
    assert d.broken == 0


def test_scores_that_are_not_finite_or_all_alike():
    d = compared([1.0, 2.0, 3.0], [np.nan, 2.0, np.inf])["click"]
    assert (d.broken, d.live, d.candidate) == (2, 2.0, 2.0)
    assert compared([1.0, 2.0], [np.nan, np.nan])["click"].broken == 2
    assert compared([1.0, 2.0], [1.5, 1.5])["click"].agreement == 0.0
    assert compared([1.0, 1.0 + 1e-9], [1.0, 2.0])["click"].agreement is None
    assert compared([0.0, 0.0], [0.0, 0.0])["click"].drift == 0.0
    assert compared([0.0, 0.0], [0.0, 0.1])["click"].drift == np.inf


def test_limits():
    fine = compared([1.0, 2.0, 3.0], [1.5, 3.0, 4.5])
    assert version_comparison.failures(fine, 0.5, 1.0) == []
    assert version_comparison.failures(fine, 0.49, 0) == ["click drifted by +50.0%, more than 49%"]
    assert version_comparison.failures({"fused": fine["click"]}, 0.49, 0) == []  # its level means nothing
    turned = compared([1.0, 2.0, 3.0], [3.0, 2.0, 1.0])
    assert version_comparison.failures({"fused": turned["click"]}, 1, 0.7) == [
        "fused orders rows with an agreement of -1.000, less than 0.7"
    ]
    assert version_comparison.failures(compared([1.0, 2.0], [np.nan, 2.0]), 1, 0) == ["click is not finite for 1 rows"]


def test_overlap_of_the_first_ten():
    def replay(*orders):
        return version_comparison.Replay({}, [np.array(o) for o in orders])

    first = list(range(20))
    assert version_comparison.overlap(replay(first), replay(first[:7] + [17, 18, 19])) == 0.7
    assert version_comparison.overlap(replay(first, first), replay(first[::-1], first)) == 0.5
    assert version_comparison.overlap(replay([1, 0]), replay([0, 1])) is None  # ten of two are all


def test_replay_against_known_scores(tmp_path):
    save(tmp_path / "1", lambda x: 2 * x)
    live = versions.load(tmp_path / "1")
    logs = [log("raw", x=[1.0, 2.0]), log("rank", user=[10.0], x=[1.0, 3.0, 2.0])]
    answers = version_comparison.replay(live, logs, "live")
    assert answers.scores["click"].tolist() == [2, 4, 12, 16, 14]
    assert [order.tolist() for order in answers.orders] == [[1, 2, 0]]
    for request, message in (
        (log("other", x=[1.0]), r"request 0 asks for a signature of \['rank', 'raw'\] of live. Received: 'other'"),
        (log("", x=[1.0]), "Received: 'serving_default'"), (log("raw", y=[1.0]), r"Received: .*\['x', 'y'\]"),
        (log("raw", x=[[1.0]]), r"request 0 \(raw\) cannot be answered by live"),
    ):
        with pytest.raises(UserError, match=message):
            version_comparison.replay(live, [request], "live")


def test_changes_of_signatures(tmp_path, saved):
    save(tmp_path / "more", extra=["like"])
    save(tmp_path / "wide", dtype=tf.float64)
    live, more, wide = (versions.load(v).signatures for v in (saved, tmp_path / "more", tmp_path / "wide"))
    assert version_comparison.changes(live, live) == version_comparison.changes(live, more) == []
    assert version_comparison.changes(more, live) == ["raw: output like is missing"]
    assert version_comparison.changes(live, {"raw": live["raw"]}) == ["signature rank is missing"]
    assert "raw: input x is float64 (None,) instead of float32 (None,)" in version_comparison.changes(live, wide)
    assert version_comparison.changes({"s": live["raw"]}, {"s": live["rank"]}) == ["s: input user is new"]
    other = type(live["raw"]).FromString(live["raw"].SerializeToString())
    other.method_name = "tensorflow/serving/regress"
    assert version_comparison.changes({"s": live["raw"]}, {"s": other}) == [
        "s: method tensorflow/serving/regress instead of tensorflow/serving/predict"
    ]


# The commands.


def test_verify_command(tmp_path):
    save(tmp_path / "1")
    save(tmp_path / "2", lambda x: 1.2 * x)
    save(tmp_path / "3", lambda x: -x)
    rows = np.linspace(0.1, 0.9, 20)
    request_log.write(tmp_path / "1" / request_log.WARM_UP, [log("raw", x=rows), log("rank", user=[0.0], x=rows)])
    done = run("dlen_cam2.cli.compare_versions", f"--live={tmp_path}/1", f"--candidate={tmp_path}/2",
               f"--output={tmp_path}/out")
    assert done.returncode == 0, done.stderr[-2000:]
    row = "| click | 0.5 | 0.6 | +20.0% | 0.1 | 0.18 | 0.0% | 1.0000 | 0 |"
    assert row in done.stdout and "100.0% are the same" in done.stdout and "is fit" in done.stdout
    assert row in (tmp_path / "out" / "verify.md").read_text()
    assert (tmp_path / "out" / "verify.png").read_bytes().startswith(b"\x89PNG")
    done = command("dlen_cam2.cli.compare_versions", f"--live={tmp_path}/1", f"--candidate={tmp_path}/3")
    assert done.returncode == 1 and "| click | 0.5 | -0.5 | -200.0% |" in done.stdout
    assert done.stderr.splitlines()[-1].endswith("3 fails: click drifted by -200.0%, more than 50%.")
    done = command("dlen_cam2.cli.compare_versions", f"--live={tmp_path}/1", f"--candidate={tmp_path}/4")
    assert done.returncode == 1 and "Traceback" not in done.stderr and "holds no SavedModel" in done.stderr


def test_rows_of_a_day(tmp_path):
    simulate.write(simulate.World(rows=600, seed=2, days=2), str(tmp_path / "data"))
    some = pbtxt.load(tmp_path / "data").select(features=["user_id", "watched"])
    columns = request_log.first_rows(tmp_path / "data", "20240101", some, 7)
    assert columns["user_id"].shape == (7,) and columns["watched"].shape == (7, some.features[1].max_length)
    with pytest.raises(UserError, match="has no day '20250101'"):
        request_log.first_rows(tmp_path / "data", "20250101", some, 7)


def test_publish_command(served):
    done = run("dlen_cam2.cli.publish", f"--served={served}", "--stable=3", "--canary=4", "--keep=2")
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert lines[:2] == ["ranker: canary 4, stable 3; loaded are 3, 4", "removed versions 1, 2"]
    assert lines[3] == server_files.docker_run(served, "ranker")
    done = command("dlen_cam2.cli.publish", f"--served={served}", "--canary=x")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].endswith("must be a number. Received: 'x'.")
