"""The last python block of every page of docs/extend is a whole module: saved as a file, it works as it stands."""

import dataclasses
import importlib.util
import inspect
import pathlib
import re
import sys

import numpy as np
import pytest
import tensorflow as tf

import dlen_cam2 as dc
from dlen_cam2 import data, parts
from dlen_cam2.layers.axes import axes_of, of_tasks, shared_weights
from dlen_cam2.models import ReadOut, build
from dlen_cam2.schema import pbtxt
from dlen_cam2.serving import request_log
from dlen_cam2.serving.signatures import Server
from dlen_cam2.training import jobs, model_directory
from dlen_cam2.utils.errors import UserError
from tests.support import contract
from tests.support.builders import ROOT, command, ranker

PAGES = ROOT / "docs" / "extend"
# The name of the part on the page of each kind.
NAMES = {
    "trunk": "scaled_bottom", "head": "appeal", "causal": "popularity", "encoder": "similar",
    "transfer": "cross_stitch", "label": "count", "step_rule": "random_weights", "score_adapter": "boost",
}
NETWORK = ("trunk", "head", "causal", "encoder", "transfer")
# Values that are not the defaults, so that what forgets them is seen.
VALUES = {"head": {"loading": 0.5}, "encoder": {"temperature": 2.0}, "transfer": {"own": 0.9}}
DAY, NEXT = contract.DAYS


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return contract.log(tmp_path_factory.mktemp("extend"))


@pytest.fixture(scope="module")
def batches(log):
    """(features, labels) of each day, as every part of a network reads them."""
    schema = data.fit(log, contract.SCHEMA, [DAY])
    return {day: next(iter(data.read(log, schema, [day], 64))) for day in contract.DAYS}


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Saves the last python block of a page and imports it; the registries forget it after the test."""
    before = {kind: dict(parts.classes(kind)) for kind in parts.HOMES}
    objects = tf.keras.utils.get_custom_objects()
    registered = dict(objects)

    def entered():
        return {(kind, name) for kind, known in before.items() for name in parts.classes(kind) if name not in known}

    def read(page):
        there = entered()
        blocks = re.findall(r"^```python\n(.*?)^```$", (PAGES / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL)
        path = tmp_path / f"page_{page}.py"
        path.write_text(blocks[-1])
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        assert entered() - there == ({(page, NAMES[page])} if page in NAMES else set())
        return module

    yield read
    for kind, known in before.items():
        parts._CLASSES[kind].clear()
        parts._CLASSES[kind].update(known)
    objects.clear()
    objects.update(registered)


def part_of(read, page):
    """The part of a page, of small sizes."""
    read(page)
    return dataclasses.replace(contract.small(page, NAMES[page]), **VALUES.get(page, {}))


def start(log, *chosen, **values):
    """A job of a small model of these parts, whose steps are not traced."""
    job = jobs.start(contract.config(*chosen, **values), log, [DAY])
    job.ranker.run_eagerly = True
    return job


def test_every_kind_has_a_page_and_every_page_a_test():
    pages = {path.stem for path in PAGES.glob("*.md")}
    assert pages == {"index", "data_source", *NAMES} and set(NAMES) == set(parts.HOMES)


@pytest.mark.parametrize("page", NETWORK)
def test_a_part_of_a_network_is_trained_stored_and_served(page, read, log, batches, tmp_path):
    part = part_of(read, page)
    contract.is_a_configuration(part, tmp_path)
    job = start(log, part)
    before = {weight.name: weight.numpy() for weight in job.network.trainable_weights}
    assert np.isfinite(job.ranker.train_step(batches[DAY])["loss"])
    still = [w.name for w in job.network.trainable_weights if np.array_equal(w.numpy(), before[w.name])]
    # The towers' weights of what is joined start at 0, and a row of a table moves if the batch has it.
    assert not still, f"no gradient reached {still}"
    assert set(axes_of(job.network, of_tasks(job.schema.task_names))) == {w.name for w in job.network.weights}
    assert len(shared_weights(job.network)) == len(job.network.trainable_weights)
    own = [layer for layer in job.network.submodules if type(layer).__module__ == f"page_{page}"]
    assert own
    for layer in own:  # Keras loads them by name, with their arguments
        assert tf.keras.utils.get_registered_name(type(layer)).startswith("my_package>")
        made, given = type(layer).from_config(layer.get_config()), set(inspect.signature(type(layer)).parameters)
        assert all(getattr(made, name) == getattr(layer, name) for name in given - {"args", "kwargs"})

    found = {name: values.numpy() for name, values in job.network(batches[NEXT][0]).items()}
    assert all(values.dtype == np.float32 and np.isfinite(values).all() for values in found.values())
    (tmp_path / "m").mkdir()
    model_directory.save(tmp_path / "m", job.config, job.schema, job.fitted, job.checkpoint, job.days)
    again = model_directory.load(tmp_path / "m")
    for name, values in again.network(batches[NEXT][0]).items():
        np.testing.assert_array_equal(values, found[name], err_msg=name)
    contract.ranks_as_rows(Server(again, causes=page == "causal"), log)


def test_a_head_names_its_scores_and_what_is_watched(read, log, batches):
    head = part_of(read, "head")
    job = start(log, head)
    outputs = job.network(batches[DAY][0])
    scores = job.read_out.scores(outputs)
    assert list(scores) == [*job.schema.task_names, "appeal"] == job.read_out.names(causes=False)
    assert list(head.notes(job.schema)["appeal"]) == ["click", "buy", "hate"]
    shown = head.telemetry(outputs, job.schema)["appeal"]
    assert shown.shape == (64, 3) and set(head.captions) == {"appeal"}


def test_a_trunk_starts_with_what_is_shared(read):
    layer = read("trunk").TaskScale(3)
    np.testing.assert_array_equal(layer(tf.constant([[[2.0, 5.0]]])), [[[2, 5]] * 3])


def test_causal_branches_start_at_what_they_fitted(read, log):
    job = start(log, part_of(read, "causal"))
    # A purchase follows a click, so the clicks decide; hate does not count.
    assert job.fitted["any_positive"].rate == pytest.approx(job.schema.tasks[0].positive_rate)
    assert job.network.get_layer("popularity").rate == job.fitted["any_positive"].rate


def test_an_encoder_weighs_by_the_candidate(read):
    layer = read("encoder").SimilarPooling()
    events = tf.constant([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]], [[1.0, 2.0]] * 3])
    present = tf.constant([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(layer(events, present, None), [[0.5, 0.5], [0, 0]], atol=1e-6)  # the mean, and none
    e = np.exp(3 / 2**0.5)
    near = layer(events, present, tf.constant([[3.0, 0.0]] * 2))
    np.testing.assert_allclose(near[0], [e / (e + 1), 1 / (e + 1)], rtol=1e-5)


def test_a_transfer_starts_as_it_is_told(read):
    stitch = read("transfer")
    x = tf.constant([[[1.0], [3.0], [5.0]]])
    np.testing.assert_allclose(stitch.Stitch(1.0)(x), x)
    np.testing.assert_allclose(stitch.Stitch(0.8)(x), [[[0.8 + 0.8], [2.4 + 0.6], [4.0 + 0.4]]], rtol=1e-6)
    few, more = (dataclasses.replace(contract.SCHEMA, tasks=contract.SCHEMA.tasks[:n]) for n in (2, 3))
    stitch.CrossStitch(1.0).check_grown(few, more, (), {})
    with pytest.raises(UserError, match=r"transfer.own must be 1 .* Received: 0.9 and the new tasks \['hate'\]"):
        stitch.CrossStitch(0.9).check_grown(few, more, (), {})


def test_a_kind_of_label(read, log, tmp_path):
    kind = read("label").Count()
    tasks = (*contract.SCHEMA.tasks[:2], dataclasses.replace(contract.SCHEMA.tasks[3], kind="count"))
    schema = data.fit(log, dataclasses.replace(contract.SCHEMA, tasks=tasks), [DAY])
    pbtxt.save(schema, tmp_path)
    assert pbtxt.load(tmp_path).tasks[2].kind == "count"
    watch = dataclasses.replace(schema.tasks[2], mean=2.0)
    z = tf.constant([0.0, np.log(3.0), 1e9], tf.float32)
    np.testing.assert_allclose(kind.predictions(z, watch)[:2], [2, 6], rtol=1e-6)
    losses = kind.losses(tf.constant([2.0, 4.0, 0.0]), z, watch)
    np.testing.assert_allclose(losses[:2], [1, 3 - 2 * np.log(3)], rtol=1e-5)
    assert np.isfinite(losses).all() and kind.constant_loss(watch) == 1 and kind.start(watch) == 0.5

    config = contract.config()
    network = build(config.model, schema)
    features, labels = next(iter(data.read(log, schema, [DAY], 64)))
    before = network.get_layer("numbers").get_weights()
    assert np.isfinite(ranker(network, schema, config.model).train_on_batch(features, labels)).all()
    assert all(np.any(a != b) for a, b in zip(before, network.get_layer("numbers").get_weights(), strict=True))
    p = ReadOut(config.model, schema).predictions(network(features)).numpy()[:, 2]
    assert (p > 0).all()
    assert kind.metrics(labels["watch"].numpy(), p, np.arange(64), 0, 0)["mae"] > 0


def test_a_step_rule(read, log, batches, tmp_path):
    rule = part_of(read, "step_rule")
    contract.is_a_configuration(rule, tmp_path)
    job, other = (start(log, rule) for _ in range(2))
    first = job.ranker.balancer.weights().numpy()
    assert np.isfinite(job.ranker.train_step(batches[DAY])["loss"])
    second = job.ranker.balancer.weights().numpy()
    for weights in (first, second):
        assert (weights > 0).all() and weights.sum() == pytest.approx(4, rel=1e-5)
    assert np.abs(first - second).max() > 1e-3
    other.checkpoint.read(job.checkpoint.write(str(tmp_path / "state"))).assert_consumed()
    np.testing.assert_array_equal(other.ranker.balancer.weights(), second)
    even = dataclasses.replace(rule, spread=0.0)(job.schema, job.network, None)
    np.testing.assert_allclose(even.weights(), 1, rtol=1e-6)


def test_a_score_adapter(read, log, tmp_path):
    module = read("score_adapter")
    path = tmp_path / "boost.tsv"
    path.write_text("1\t0.5\n2\t1000\n")
    boost = module.Boost("vid", str(path), ("click", "buy"))
    boost.check("adapter")
    with pytest.raises(UserError, match="adapter.scores must be a non-empty tuple"):
        module.Boost("vid", str(path), ()).check("adapter")
    job = start(log)
    model = model_directory.TrainedModel(job.config, job.schema, job.fitted, job.network, [DAY])
    rows = request_log.first_rows(log, NEXT, job.schema, 3) | {"vid": np.array([1, 2, 3])}
    columns = {name: tf.constant(column) for name, column in rows.items()}
    plain = Server(model).score_raw(**columns)
    server = Server(model, adapters=[boost])
    changed = server.score_raw(**columns)
    for name in ("click", "buy"):
        wanted = [plain[name][0] / 2, min(float(plain[name][1]) * 1000, 1), plain[name][2]]
        np.testing.assert_allclose(changed[name], wanted, rtol=1e-6)
    np.testing.assert_array_equal(changed["watch"], plain["watch"])
    assert changed["fused"][0] < plain["fused"][0]

    class Stored(tf.Module):  # a SavedModel of nothing but the adapter
        def __init__(self):
            super().__init__()
            self.tracked = boost.tracked()

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)], autograph=False)
        def half(self, ids):
            ones = tf.fill(tf.shape(ids), 0.5)
            return boost({"click": ones, "buy": ones, "like": ones}, {"vid": ids})

    tf.saved_model.save(Stored(), str(tmp_path / "1"))
    path.unlink()  # the copy is what is read
    ids = tf.constant([1, 2, 3], tf.int64)
    asset, = pathlib.Path(tmp_path / "1" / "assets").iterdir()
    np.testing.assert_allclose(tf.saved_model.load(str(tmp_path / "1")).half(ids)["buy"], [0.25, 1, 0.5])
    asset.write_text("3\t0\n")
    again = tf.saved_model.load(str(tmp_path / "1")).half(ids)
    np.testing.assert_allclose(again["click"], [0.5, 0.5, 0])
    np.testing.assert_allclose(again["like"], 0.5)


def test_a_data_source(read, tmp_path, monkeypatch):
    module = read("data_source")
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    lines = [
        f"{'train' if i < 40 else 'test'},{rng.integers(9)},{rng.integers(5)},{['phone', ''][i % 2]},{i / 4},"
        f"{int(i % 3 > 0)},{int(i % 6 == 1)}" for i in range(60)
    ]
    path = tmp_path / "in" / "visits.csv"
    path.write_text("\n".join(["split,user,item,device,price,click,buy", *lines]) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    done = command(module.__name__, f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", "--workers=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"60 rows are in {tmp_path / 'out'}: {{'train': 40, 'test': 20}}"
    written = dc.open(tmp_path / "out")
    assert written.days == ["train", "test"] and written.schema.task_names == ("click", "buy")
    rows = written.rows("test", 20)
    np.testing.assert_allclose(rows["price"], np.arange(40, 60) / 4)
    assert set(rows["device"]) == {b"phone", b""}
    labels = next(iter(data.read(tmp_path / "out", data.fit(tmp_path / "out", written.schema, ["train"]), ["train"], 40,
                                 seed=None)))[1]
    assert labels["click"].numpy().sum() == 26 and (labels["buy"] <= labels["click"]).numpy().all()

    for bad, message in ((",7,3,phone,1.5,1,0", "each row must have a split"),
                         ("day,7,3,phone,1.5,1,0", "'split' must be one of"),
                         ("train,7,x,phone,1.5,1,0", "'item' must hold integers. Received: 'x'"),
                         ("train,7,3,phone,-1,1,0", "'price' must be at least 0")):
        path.write_text("split,user,item,device,price,click,buy\n" + bad + "\n")
        with pytest.raises(UserError, match=message):
            module.convert(tmp_path / "in", tmp_path / "bad")
