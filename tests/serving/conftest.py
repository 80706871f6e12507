"""A small feed, a model of it, and its versions, which the files of this directory read."""

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_service_pb2_grpc

from benchmarks.switch import server
from dlen_cam2 import evaluation, serving
from dlen_cam2.serving import request_log
from dlen_cam2.training import model_directory
from pipelines import simulate
from tests.support.builders import train
from tests.support.jobs import DAY, DAYS, small
from tests.support.saved_models import save
from tests.support.served import write_config


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A small DLEN, trained on two of four simulated days: (data directory, model directory)."""
    home = tmp_path_factory.mktemp("trained")
    simulate.write(simulate.World(rows=3000, seed=2, days=4), str(home / "data"))
    train(small("dlen", bootstrap=0), home / "data", home / "model", DAYS, DAY)
    return home / "data", home / "model"


@pytest.fixture(scope="session")
def expected(trained):
    """What the training graph says of the day, by score."""
    model = model_directory.load(trained[1])
    return evaluation.predict(evaluation.scorer(model.network, model.read_out), model.schema, trained[0], DAY).serving


@pytest.fixture(scope="session")
def served(trained, tmp_path_factory):
    """The model exported with every signature: (data directory, model directory, version directory)."""
    output = tmp_path_factory.mktemp("served")
    version = serving.export(model_directory.load(trained[1]), output, classify=True, regress="fused")
    return *trained, version


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A version to copy: saving takes longer than copying."""
    version = tmp_path_factory.mktemp("saved") / "1"
    save(version)
    return version


@pytest.fixture(scope="module")
def signatures(served):
    return tf.saved_model.load(str(served[2])).signatures


@pytest.fixture(scope="module")
def rows(served):
    """The day's raw feature columns."""
    return request_log.first_rows(served[0], DAY, model_directory.load(served[1]).schema, 10**6)


@pytest.fixture(scope="module")
def home(trained, tmp_path_factory):
    """A directory with `data`, and `served` with two versions of a small DLEN, the second with other weights."""
    home = tmp_path_factory.mktemp("home")
    for name, directory in zip(("data", "model"), trained, strict=True):
        (home / name).symlink_to(directory)
    model = model_directory.load(home / "model")
    serving.export(model, home / "served", classify=True, regress="like")
    for weight in model.network.trainable_weights:
        weight.assign(1.3 * weight)
    serving.export(model, home / "served")
    return home


@pytest.fixture(scope="module")
def ports(home):
    """A server of both versions: 1 is stable, 2 is canary."""
    config = home / "models.config"
    write_config(config, {"stable": 1, "canary": 2})
    with server(home / "served", f"--models_config={config}", "--poll_seconds=0.1") as found:
        yield found


@pytest.fixture(scope="module")
def stub(ports):
    with grpc.insecure_channel(f"127.0.0.1:{ports[0]}") as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)
