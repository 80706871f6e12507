"""Versions, and what is published of them."""

import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from dlen_cam2.serving import server_files, versions
from dlen_cam2.utils.errors import UserError
from tests.support.builders import command


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
    with pytest.raises(UserError, match=r"publish --load=4.* Received: canary=4, loaded versions \[2, 3\]"):
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


def test_publish_command(served):
    done = command("dlen_cam2.cli.publish", f"--served={served}", "--stable=3", "--canary=4", "--keep=2")
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert lines[:2] == ["ranker: canary 4, stable 3; loaded versions: 3, 4", "removed versions: 1, 2"]
    assert lines[3] == f"next: {server_files.docker_run(served, 'ranker')}"
    done = command("dlen_cam2.cli.publish", f"--served={served}", "--canary=x")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].endswith("must be a number. Received: 'x'.")
