"""The strategies, each in processes of its own, against one device."""

import json

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2 import data
from dlen_cam2.config import TrainConfig
from dlen_cam2.training import distribution, grow, jobs, passes
from dlen_cam2.utils.errors import UserError
from pipelines import simulate
from tests.support.builders import command, train
from tests.support.jobs import (
    DAY,
    DAYS,
    addresses,
    all_finished,
    arguments,
    finished,
    small,
    start,
    start_several,
    steps,
    weights,
)

pytestmark = pytest.mark.slow

# Small layers and batches: in large ones a ReLU whose input is 0 but for rounding takes another side every few steps.
# Few tasks: a step on two replicas has every task's graph twice, and building it is most of the time.
SMALL = [
    "--config.model.tasks=('click', 'like')", "--config.model.trunk.units=(6,)", "--config.model.tower_units=(4,)",
    "--config.train.bootstrap=0", "--config.train.epochs=1", "--config.train.batch_size=32",
]
# All parts at once: where a strategy sums one of them wrongly, weights move elsewhere.
FEATURES = ("user_topics", "watched", "video_id", "topics", "hour", "user_click_rate", "video_click_rate")
WHOLE = ["--config=dlen_cam2/configs/simulated_cam2.py", "--config.model.trunk=ple", "--config.model.head=dlen",
         "--config.model.head.latent_units=(4,)", f"--config.model.features={FEATURES}",
         "--config.model.causal.without=()", *SMALL]
# Rows are shared out in the same way whatever the model, and tables among servers.
MMOE = ["--config=dlen_cam2/configs/quickstart_mmoe.py",
        "--config.model.features=('user_id', 'watched', 'video_id', 'hour')", *SMALL]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A small simulated data set."""
    directory = tmp_path_factory.mktemp("strategies") / "data"
    simulate.write(simulate.World(rows=3000, seed=1, days=3), str(directory))
    return directory


@pytest.fixture(scope="module")
def one(log, tmp_path_factory):
    """The model trained on one device."""
    directory = tmp_path_factory.mktemp("one") / "m"
    done = command("dlen_cam2.cli.train", *arguments(log, directory, WHOLE))
    assert done.returncode == 0, done.stderr[-3000:]
    assert steps(directory) >= 50
    return directory


def test_two_mirrored_replicas_equal_one_device(log, one, tmp_path):
    printed = finished(start(log, tmp_path / "m", *WHOLE, "--strategy=mirrored", "--cpu_devices=2"))
    assert "replicas 2, global_batch 32, replica_batch 16" in printed
    assert steps(tmp_path / "m") == steps(one)
    np.testing.assert_allclose(weights(tmp_path / "m"), weights(one), rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def workers(log, tmp_path_factory):
    """Models trained by two workers, in one process each: (directory, {model: what each worker printed})."""
    home = tmp_path_factory.mktemp("workers")
    flags = {"whole": WHOLE, "shards": [*MMOE, "--config.train.input_sharding=shards"]}
    jobs = {name: arguments(log, home / name, each) for name, each in flags.items()}
    cluster = addresses(worker=2)
    processes = [start_several(jobs, "multi_worker", task=(cluster, "worker", index)) for index in range(2)]
    printed = [all_finished(process) for process in processes]
    return home, {name: [each[name] for each in printed] for name in jobs}


def test_two_workers_equal_one_device(one, workers):
    home, printed = workers
    chief, other = printed["whole"]
    assert "workers 2, replicas 2" in chief and "| click |" in chief and "| click |" not in other
    assert steps(home / "whole") == steps(one)
    np.testing.assert_allclose(weights(home / "whole"), weights(one), rtol=0, atol=1e-5)


def test_workers_with_shards_of_their_own_read_every_row(log, workers):
    """Batches differ from those of one device, and the number of steps is that of the worker with most rows."""
    rows = [s for day in ("20240101", "20240102") for s in data.shards(log, [day]).rows]
    least = -(-sum(rows) // 32)
    assert least <= steps(workers[0] / "shards") <= -(-sum(rows) // 16)


def test_parameter_servers_share_the_tables(tmp_path):
    """A chief, two workers, two parameter servers; the large table lies on both, the model directory has it whole."""
    log = tmp_path / "data"
    simulate.write(simulate.World(rows=3000, seed=1, days=3, rows_per_item=2), str(log))
    cluster = addresses(chief=1, worker=2, ps=2)
    flags = [*MMOE, "--config.train.batch_size=64", "--strategy=parameter_server"]
    others = [start(log, tmp_path / "m", *flags, task=(cluster, kind, index))
              for kind in ("worker", "ps") for index in range(2)]
    try:
        out = finished(start(log, tmp_path / "m", *flags, task=(cluster, "chief", 0)))
        assert all(process.poll() is None for process in others)  # they serve on, for the next job
    finally:
        for process in others:
            process.kill()
            process.wait()
    assert "strategy parameter_server, workers 2" in out and "| click |" in out
    assert "1 of 2 tables are sharded across the parameter servers" in out  # the other has fewer rows than are worth it
    metrics = json.loads((tmp_path / "m" / "metrics.json").read_text())[DAY]
    assert metrics["click"]["rows"] == data.statistics(log)["days"][DAY]["rows"]
    assert np.isfinite(weights(tmp_path / "m")).all()
    further = [f"--continue_from={tmp_path / 'm'}", f"--train_days={DAY}", f"--eval_days={DAY}_random"]
    again = command("dlen_cam2.cli.train", *arguments(log, tmp_path / "next", [*MMOE, *further]))
    assert again.returncode == 0, again.stderr[-3000:]


def test_batches_and_rates_are_explicit():
    fixed, linear = TrainConfig(batch_size=64), TrainConfig(batch_size=64, scaling="linear")
    place = distribution.Place()
    for settings in (fixed, linear):
        assert (place.batch_size(settings), place.rate_factor(settings)) == (64, 1)

    class Two(distribution.Place):
        replicas = 2

    assert (Two().batch_size(fixed), Two().rate_factor(fixed)) == (64, 1)
    assert (Two().batch_size(linear), Two().rate_factor(linear)) == (128, 2)
    assert Two().describe(linear) | {"learning_rate": 0.002, "replica_batch": 64} == Two().describe(linear)
    with pytest.raises(UserError, match=r"a multiple of the 2 replicas\. Received: 63"):
        Two().batch_size(TrainConfig(batch_size=63))


@pytest.mark.parametrize("text", [
    "", "{", '{"cluster": {}}', '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
    '{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "[]",
])
def test_a_bad_cluster_is_one_message(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match="--strategy=multi_worker needs the environment variable TF_CONFIG"):
        distribution.connect("multi_worker")


def test_what_is_not_there_is_one_message(monkeypatch):
    with pytest.raises(UserError, match="--strategy must be one of"):
        distribution.connect("two")
    with pytest.raises(UserError, match="--cpu_devices is for"):
        distribution.connect("one", cpu_devices=2)
    monkeypatch.delenv("TPU_NAME", raising=False)
    with pytest.raises(UserError, match="--strategy=tpu needs a TPU"):
        distribution.connect("tpu")
    cluster = {"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "chief", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(UserError, match=r"tasks of every type in TF_CONFIG\. Received: no \['ps'\]"):
        distribution.connect("parameter_server")


def test_the_path_of_a_tpu_on_one_device(log, tmp_path):
    """There is no TPU here: its strategy is replaced by one for one device, with a distributed data set and XLA."""
    place = distribution.Place("tpu", tf.distribute.OneDeviceStrategy("/cpu:0"))
    def trained(jit, at):
        # 44 divides the rows: XLA compiles the step of a smaller last batch anew, for seconds.
        settings = small("dlen", batch_size=44, bootstrap=0, jit=jit)
        settings.model.tasks, settings.model.features = ("click",), ("user_id", "watched", "hour", "video_id")
        return train(settings, log, tmp_path / f"m{jit}", DAYS, DAY, place=at)[DAY]

    found, wanted = trained(True, place), trained(False, None)
    for task in wanted:
        assert found[task]["ne"] == pytest.approx(wanted[task]["ne"], abs=0.01)


def test_tables_of_a_tpu_train_like_the_others(log, tmp_path):
    """Given the same vectors to start from, TFRS's TPUEmbedding on one device learns what one gather a width learns."""
    days, made = ["20240101"], {}
    for tables in ("gather", "tpu"):
        settings = small("dlen", batch_size=32, bootstrap=0)
        settings.model.tables = tables
        made[tables] = jobs.start(settings, log, days)
    plain, tpu = (job.network.get_layer("embeddings") for job in made.values())
    kept = {layer.name: layer.get_weights() for layer in made["gather"].network.layers}
    for layer in made["tpu"].network.layers:
        if layer.name != "embeddings":
            layer.set_weights(kept[layer.name])
    for variable, (axis, _) in plain.axes(None, None):
        for (name, _), (row, count) in axis.starts().items():
            table = next(v for v in tpu.trainable_variables if v.name.endswith(f"/table_{name}:0"))
            first = row - axis.starts()[name, "missing"][0]
            table[first : first + count].assign(variable[row : row + count])
    for job in made.values():
        passes.fit(job, days)
    features, _ = next(iter(data.read(log, made["tpu"].schema, ["20240102"], 64)))
    logits = [job.network(features)["logits"] for job in made.values()]
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-4)
    with pytest.raises(UserError, match="config.model.tables"):
        grow.resume(settings, log, tmp_path / "m", ["20240102"])
