"""Warm start across schema growth: which number goes where, what stays equal, what is refused and printed."""

import dataclasses
import random
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2 import data, evaluation
from dlen_cam2.config import BalanceConfig, Config, TrainConfig
from dlen_cam2.data.preprocessing import Indexer
from dlen_cam2.models import trunks
from dlen_cam2.schema import Feature, Schema, Task, pbtxt
from dlen_cam2.training import grow, jobs, model_directory, passes, warm_start
from dlen_cam2.training.distribution import Place
from dlen_cam2.utils.errors import UserError
from pipelines.from_logs import Roles, convert
from tests.support.builders import branches, flat, train
from tests.support.logs import DAY, START, write

pytestmark = pytest.mark.slow

DAYS = ("20220425", "20220426")
NEW = ("price", "shop", "liked")
SCHEMA = Schema(
    "log",
    (
        Feature("active", "float", "user", "statistical"),
        Feature("uid", "int", "user", "content", size=16, hashed=True, width=4),
        Feature("price", "float", "item", "content", transform="log1p"),
        Feature("liked", "int", "user", "content", min_count=1, oov_buckets=3, width=4, table="vid", max_length=2),
        Feature("seen", "int", "user", "content", min_count=1, oov_buckets=3, width=4, table="vid", max_length=3),
        Feature("vid", "int", "item", "content", min_count=1, oov_buckets=3, width=4),
        Feature("city", "string", "user", "content", min_count=1, width=2),
        Feature("shelf", "int", "item", "content", size=5, width=2),
        Feature("shop", "string", "item", "content", min_count=1, width=3),
        Feature("ctr", "float", "item", "statistical", transform="logit"),
    ),
    (Task("click"), Task("like", mask="shown"), Task("hate", negative=True)),
)
# Columns of the embedded row, by hand. Yesterday: active, city, uid, seen | ctr, shelf, vid | seen x vid. Today:
# active, city, uid, liked, seen | price, ctr, shelf, shop, vid | liked x vid, seen x vid.
KEPT = [*range(0, 7), *range(11, 15), *range(16, 19), *range(22, 26), *range(30, 34)]
ADDED = [*range(7, 11), 15, *range(19, 22), *range(26, 30)]
OLD_TASKS = ("click", "hate")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Two days; the second has values that the first has not."""
    rng = random.Random(0)
    rows = []
    for i in range(400):
        day = i // 200
        vids = range(3 * day, 8 + 3 * day)
        rows.append({
            "ts": START + day * DAY + i, "uid": rng.randrange(9), "vid": rng.choice(vids),
            "seen": rng.sample(range(12), rng.randrange(4)), "liked": rng.sample(range(12), rng.randrange(3)),
            "active": rng.random() + day, "city": rng.choice(["Bonn", "Rom", ""] + ["Ulm", "Köln"] * day),
            "shelf": rng.randrange(5 + 3 * day), "shop": rng.choice("abc"), "price": 9 * rng.random(),
            "ctr": rng.random(), "click": rng.randrange(2), "like": int(rng.random() < 0.3),
            "hate": int(rng.random() < 0.2), "shown": rng.randrange(2),
        })
    directory = tmp_path_factory.mktemp("log")
    write(directory / "log.jsonl", rows)
    convert(str(directory / "log.jsonl"), SCHEMA, Roles("ts", "uid", "vid"), str(directory / "data"))
    return directory / "data"


def config(trunk="mmoe", head="logistic", tasks=OLD_TASKS, without=NEW, causal=None, balance="fixed", **model):
    sizes = {"experts": 2, "task_experts": 1, "units": (6,), "tower_units": (4,), "latent_units": (4,)}
    return Config(
        "small",
        flat(trunk, head=head, tasks=tasks, without=without, causal=cam2 or branches(), **(sizes | model)),
        TrainConfig(batch_size=32, bootstrap=0, learning_rate=0.02, balance=BalanceConfig(balance)),
    )


def cam2(**values):
    return branches(**{"variant": "proposed", "statistic": "ctr", "units": 6, "blocks": 1, "embedding": 4,
                         "interests": 3, "conformity_weight": 2.0, **values})


def trained(log, directory, *arguments, **values):
    """Yesterday's model."""
    job = jobs.start(config(*arguments, **values), log, DAYS[:1])
    passes.fit(job, DAYS[:1])
    directory.mkdir()
    model_directory.save(directory, job.config, job.schema, job.fitted, job.checkpoint, job.days)
    return job


def copied(log, directory, change):
    """The data set with each feature as `change` gives it."""
    shutil.copytree(log, directory)
    schema = pbtxt.load(directory)
    pbtxt.save(dataclasses.replace(schema, features=tuple(map(change, schema.features))), directory)
    return directory


def outputs(job, log):
    """{output: numbers} of the second day's rows, by the job's own indexing."""
    (features, _), = data.read(log, job.schema, DAYS[1:], 1000)
    return {name: value.numpy() for name, value in job.network(features).items()}


def weight(job, name):
    return next(v for v in job.network.weights if v.name == f"{name}:0").numpy()


def slot(job, name):
    optimizers = job.ranker.optimizer.optimizers
    return next(v for o in optimizers for v in o.variables if v.name == f"{name}:0").numpy()


def state(job, directory):
    """Every number of the job's checkpoint."""
    path = job.checkpoint.write(str(directory / "state"))
    return {n: tf.train.load_variable(path, n) for n, _ in tf.train.list_variables(path) if "GRAPH" not in n}


@pytest.mark.parametrize(("trunk", "head", "levels"), [
    ("shared_bottom", "logistic", 2), ("mmoe", "dlen", 2), ("cgc", "dlen", 2), ("ple", "logistic", 2)])
def test_growing_changes_no_prediction_of_yesterdays_tasks(log, tmp_path, trunk, head, levels):
    values = {"alpha_constant": 0.0, "levels": levels}
    old = trained(log, tmp_path / "m", trunk, head, **values)
    before = outputs(old, log)
    for tasks in (OLD_TASKS, ()):
        job = grow.resume(config(trunk, head, tasks, (), **values), log, tmp_path / "m", DAYS[1:])
        assert set(NEW) < {f.name for f in job.schema.features}
        assert sum(f.rows for f in job.schema.features) > sum(f.rows for f in old.schema.features)
        after = outputs(job, log)
        at = [job.schema.task_names.index(t) for t in OLD_TASKS]
        assert after["logits"].shape[1] == (3 if tasks == () else 2) and np.std(before["logits"]) > 0.1
        difference = np.abs(before["logits"] - after["logits"][:, at]).max()
        if trunk == "ple" and tasks == ():
            assert difference > 1e-3  # the exception: its shared gate sees the new task's experts
            continue
        assert difference < 1e-5
        if head == "dlen":
            np.testing.assert_allclose(after["not_preferred"][:, at], before["not_preferred"], atol=1e-5)
            np.testing.assert_allclose(after["latent"], before["latent"], atol=1e-5)


def test_new_columns_start_at_0_and_learn(log, tmp_path):
    old = trained(log, tmp_path / "m")
    job = grow.resume(config(tasks=(), without=()), log, tmp_path / "m", DAYS[1:])
    was, now = weight(old, "experts/kernel_0"), weight(job, "experts/kernel_0")
    assert now.shape[0] == len(KEPT) + len(ADDED) == 34
    np.testing.assert_array_equal(now[KEPT], was)
    assert not now[ADDED].any()
    # A new task's gate has no yesterday: its weights are drawn for all columns.
    was, now = weight(old, "gates/kernel"), weight(job, "gates/kernel")
    np.testing.assert_array_equal(now[KEPT][:, [0, 2]], was)
    assert not now[ADDED][:, [0, 2]].any() and now[:, 1].all()
    tables = weight(job, "embeddings/tables_3")
    passes.fit(job, DAYS[1:])
    assert np.abs(weight(job, "experts/kernel_0")[ADDED]).max(axis=(1, 2)).min() > 0
    assert np.abs(weight(job, "embeddings/tables_3") - tables)[1:].max(axis=1).min() > 0


def test_optimizer_slots_go_with_their_weights_and_new_ones_are_fresh(log, tmp_path):
    old = trained(log, tmp_path / "m")
    job = grow.resume(config(tasks=(), without=()), log, tmp_path / "m", DAYS[1:])
    for kind in "mv":
        was, now = slot(old, f"{kind}/experts/kernel_0"), slot(job, f"{kind}/experts/kernel_0")
        np.testing.assert_array_equal(now[KEPT], was)
        assert was.any() and not now[ADDED].any()
        was, now = slot(old, f"{kind}/logits/bias"), slot(job, f"{kind}/logits/bias")
        np.testing.assert_array_equal(now, [was[0], 0, was[1]])
    assert job.step == old.step == 7
    assert {int(o.iterations.numpy()) for o in job.ranker.optimizer.optimizers} == {7}
    passes.fit(job, DAYS[1:])
    assert job.step == 14


def rows_of(schema, name, values):
    """The row of each value in the table, by the product's own indexing."""
    feature = next(f for f in schema.features if f.name == name)
    indexer = Indexer(dataclasses.replace(schema, features=(feature,), targets=()))
    dtype = tf.string if feature.dtype == "string" else tf.int64
    return indexer({name: tf.constant(values, dtype)})[feature.group][name].numpy()


def first_row(schema, name):
    """Where the table begins in its variable, by hand: 4 wide uid (17 rows), vid; 2 wide city, shelf."""
    city = next(f for f in schema.features if f.name == "city")
    return {"vid": 17, "city": 0, "shelf": city.rows}[name]


@pytest.mark.parametrize(("name", "width", "values", "grown"), [
    ("vid", 4, [*range(11), 500, 501, 502, 503, -1], [8, 9, 10]),
    ("city", 2, ["Bonn", "Rom", "Ulm", "Köln", "Paris", ""], ["Ulm", "Köln"]),
    ("shelf", 2, [*range(9), -1], [5, 6, 7])])
def test_every_value_keeps_its_vector_and_a_new_one_starts_from_what_was_read_for_it(
    log, tmp_path, name, width, values, grown
):
    old = trained(log, tmp_path / "m")
    larger = copied(log, tmp_path / "data", lambda f: dataclasses.replace(f, size=8) if f.name == "shelf" else f)
    job = grow.resume(config(without=()), larger, tmp_path / "m", DAYS[1:])
    variable = f"embeddings/tables_{width}"
    at_old, at_new = (rows_of(j.schema, name, values) + first_row(j.schema, name) for j in (old, job))
    was, now = weight(old, variable)[at_old], weight(job, variable)[at_new]
    np.testing.assert_array_equal(now, was)
    new = np.isin(values, grown)
    assert len(np.unique(was[~new], axis=0)) == len(np.unique(at_old[~new])) >= 3  # vectors that tell rows apart
    slots = f"accumulator/{variable}"
    was, now = slot(old, slots)[at_old], slot(job, slots)[at_new]
    assert len(np.unique(at_new[new])) == len(grown) and not np.isin(at_new[new], at_new[~new]).any()
    np.testing.assert_array_equal(now[~new], was[~new])
    assert (now[new] == np.float32(1e-8)).all() and (was[~new] > 1e-7).any()


def test_what_was_fitted_stays_and_what_is_new_is_of_today(log, tmp_path):
    old = trained(log, tmp_path / "m").schema
    grown = grow.resume(config(tasks=(), without=()), log, tmp_path / "m", DAYS[1:]).schema
    today = data.fit(log, pbtxt.load(log), DAYS[1:])
    before, now, fresh = ({f.name: f for f in s.features} for s in (old, grown, today))
    for name in ("active", "ctr"):
        assert (now[name].mean, now[name].std) == (before[name].mean, before[name].std)
    assert now["active"].mean < fresh["active"].mean - 0.5
    assert now["price"] == fresh["price"] and now["shop"] == fresh["shop"]
    wanted = [v for v in fresh["vid"].vocabulary if v not in before["vid"].vocabulary]
    assert set(wanted) == {8, 9, 10} and set(before["vid"].vocabulary) == set(range(8))
    assert now["vid"].vocabulary == (*before["vid"].vocabulary, *wanted)
    assert now["seen"].vocabulary == now["liked"].vocabulary == now["vid"].vocabulary
    rates = [{t.name: t.positive_rate for t in s.tasks} for s in (old, grown, today)]
    assert rates[1] == {**rates[0], "like": rates[2]["like"]} and rates[0]["click"] != rates[2]["click"]


@pytest.mark.parametrize(("trunk", "head", "balance", "branches"), [
    ("mmoe", "logistic", "pcgrad", cam2()), ("ple", "dlen", "metabalance", None)])
def test_growing_by_nothing_is_resuming(log, tmp_path, trunk, head, balance, branches):
    """Bit for bit, before and after further training."""
    values = {"balance": balance, "dropout": 0.2, "cam2": branches}
    trained(log, tmp_path / "m", trunk, head, **values)
    same = config(trunk, head, **values)
    resumed = warm_start.resume(same, log, tmp_path / "m")
    grown = grow.resume(same, log, tmp_path / "m", DAYS[:1])
    assert grown.schema == resumed.schema and grown.split == resumed.split and grown.days == resumed.days == [DAYS[0]]
    for further in (False, True):
        if further:
            passes.fit(resumed, DAYS[1:])
            passes.fit(grown, DAYS[1:])
        a, b = state(resumed, tmp_path), state(grown, tmp_path)
        assert a.keys() == b.keys() and [n for n in a if not np.array_equal(a[n], b[n])] == []
    assert any("generator" in n for n in a) and any("balancer" in n for n in a)


def test_cam2s_branches_grow(log, tmp_path):
    old = trained(log, tmp_path / "m", causal=cam2())
    job = grow.resume(config(tasks=(), without=(), causal=cam2()), log, tmp_path / "m", DAYS[1:])
    assert job.fitted == old.split and job.schema.targets == ("ctr",)
    into = [weight(j, "relevance_item/into/kernel").shape[0] for j in (old, job)]
    assert into == [6, 10]  # shelf, vid; and price, shop
    before, after = outputs(old, log), outputs(job, log)
    for name in ("conformity", "relevance", "interests"):
        assert np.std(before[name]) > 0
        np.testing.assert_allclose(after[name], before[name], atol=1e-5)
    np.testing.assert_allclose(after["logits"][:, [0, 2]], before["logits"], atol=1e-5)


TABLE = """\
|  | yesterday | today | what happened | new |
|---|---|---|---|---|
| task like |  | yes | initialised |  |
| task hate | yes |  | dropped |  |
| feature price |  | yes | initialised |  |
| feature shop |  | yes | initialised |  |
| feature uid | yes |  | dropped |  |
| table vid | 8 values | 11 values | grown | +3 values |
| table city | 2 values | 4 values | grown | +2 values |
| embeddings/tables_2 | 9x2 | 11x2 | grown | +2 rows |
| embeddings/tables_3 |  | 4x3 | initialised |  |
| embeddings/tables_4 | 29x4 | 15x4 | grown, cut | +3 rows, -17 rows |
| shared_bottom/kernel_0 | 22x1x6 | 22x1x6 | grown, cut | +4 inputs, -4 inputs |
| shared_bottom/bias_0 | 1x6 | 1x6 | copied |  |
| towers/kernel_0 | 2x6x4 | 2x6x4 | grown, cut | +1 tasks, -1 tasks |
| towers/bias_0 | 2x4 | 2x4 | grown, cut | +1 tasks, -1 tasks |
| logits/kernel | 2x4 | 2x4 | grown, cut | +1 tasks, -1 tasks |
| logits/bias | 2 | 2 | grown, cut | +1 tasks, -1 tasks |
| optimizer | step 7 | step 7 | slots as their weights |  |
| balancer | Uncertainty | Uncertainty | starts anew |  |
"""


def test_what_is_printed(log, tmp_path, capsys):
    trained(log, tmp_path / "m", "shared_bottom", balance="uncertainty")
    capsys.readouterr()
    today = config("shared_bottom", tasks=("click", "like"), without=("liked", "uid"), balance="uncertainty")
    grow.resume(today, log, tmp_path / "m", DAYS[1:])
    assert capsys.readouterr().out == TABLE


def test_a_task_that_is_dropped_leaves_the_others_as_they_were(log, tmp_path):
    old = trained(log, tmp_path / "m", tasks=())
    job = grow.resume(config(tasks=("click", "hate")), log, tmp_path / "m", DAYS[:1])
    np.testing.assert_allclose(outputs(job, log)["logits"], outputs(old, log)["logits"][:, [0, 2]], atol=1e-6)
    np.testing.assert_array_equal(weight(job, "gates/kernel"), weight(old, "gates/kernel")[:, [0, 2]])


def test_cgcs_experts_are_those_of_their_tasks(log, tmp_path):
    """By hand: experts of click, (like,) hate, then the two shared ones."""
    old = trained(log, tmp_path / "m", "ple")
    job = grow.resume(config("ple", tasks=()), log, tmp_path / "m", DAYS[:1])
    for name, axis in (("cgc_1/experts/kernel_0", 1), ("cgc_2/experts/kernel_0", 0), ("cgc_1/shared_gate/kernel", 2)):
        was, now = weight(old, name), weight(job, name)
        assert (was.shape[axis], now.shape[axis]) == (4, 5)
        np.testing.assert_array_equal(np.delete(now, 1, axis), was)
        assert np.take(now, 1, axis).any()


@pytest.mark.parametrize(("method", "tasks", "state_after"), [
    ("uncertainty", OLD_TASKS, "same"), ("uncertainty", (), "zero"), ("fixed", OLD_TASKS, "none")])
def test_the_balancer_goes_on_with_the_same_tasks(log, tmp_path, capsys, method, tasks, state_after):
    old = trained(log, tmp_path / "m", balance="uncertainty").ranker.balancer
    new = grow.resume(config(tasks=tasks, without=(), balance=method), log, tmp_path / "m", DAYS[1:]).ranker.balancer
    line = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| balancer")]
    assert np.abs(old.s.numpy()).min() > 0
    if state_after == "same":
        np.testing.assert_array_equal(new.s.numpy(), old.s.numpy())
        assert line == ["| balancer | Uncertainty | Uncertainty | copied |  |"]
    elif state_after == "zero":
        np.testing.assert_array_equal(new.s.numpy(), np.zeros(3))
        assert line == ["| balancer | Uncertainty | Uncertainty | starts anew |  |"]
    else:
        assert new is None and line == ["| balancer | Uncertainty |  | dropped |  |"]


def test_grow_train_save_and_go_on_without_growing(log, tmp_path):
    """The grown model is a model like any other, and the values of its second day are known to it."""
    train(config(), log, tmp_path / "a", DAYS[0], DAYS[1])
    today = config(tasks=(), without=())
    job = grow.resume(today, log, tmp_path / "a", DAYS[1:])
    untrained = outputs(job, log)["logits"]
    passes.fit(job, DAYS[1:])
    assert job.days == list(DAYS)
    (tmp_path / "b").mkdir()
    model_directory.save(tmp_path / "b", today, job.schema, job.fitted, job.checkpoint, job.days)
    loaded = model_directory.load(tmp_path / "b")
    assert loaded.schema == job.schema and loaded.days == list(DAYS)
    wanted = evaluation.predict(evaluation.scorer(job.network, job.read_out), job.schema, log, DAYS[1]).probabilities
    found = evaluation.predict(evaluation.scorer(loaded.network, loaded.schema), loaded.schema, log, DAYS[1])
    np.testing.assert_array_equal(found.probabilities, wanted)
    again = warm_start.resume(today, log, tmp_path / "b")
    assert again.step == job.step == 14
    np.testing.assert_array_equal(outputs(again, log)["logits"], outputs(job, log)["logits"])
    assert np.abs(untrained - outputs(again, log)["logits"]).max() > 0.01


def test_under_a_strategy(log, tmp_path):
    trained(log, tmp_path / "m", dropout=0.2)
    today = config(tasks=(), without=(), dropout=0.2)
    here = grow.resume(today, log, tmp_path / "m", DAYS[1:])
    mirrored = Place("mirrored", tf.distribute.MirroredStrategy(["CPU:0"]))
    there = grow.resume(today, log, tmp_path / "m", DAYS[1:], place=mirrored)
    for name in ("experts/kernel_0", "embeddings/tables_4"):
        np.testing.assert_array_equal(weight(here, name), weight(there, name))
    np.testing.assert_array_equal(slot(here, "m/experts/kernel_0"), slot(there, "m/experts/kernel_0"))
    a, b = (outputs(job, log)["logits"][:, [0, 2]] for job in (here, there))
    np.testing.assert_allclose(a, b, atol=1e-6)


CHANGES = {
    "width": ("vid", {"width": 5}, r"table 'vid' width=5 in place of 4"),
    "dtype": ("shelf", {"dtype": "string", "size": 0, "min_count": 1}, r"'shelf' dtype='string' in place of 'int'"),
    "hashed": ("shelf", {"hashed": True}, r"table 'shelf' hashed=True in place of False"),
    "buckets": ("uid", {"size": 17}, r"table 'uid' size=17 in place of 16"),
    "oov": ("vid", {"oov_buckets": 4}, r"table 'vid' oov_buckets=4 in place of 3"),
    "list": ("shelf", {"max_length": 2}, r"feature 'shelf' is_list=True in place of False"),
    "transform": ("ctr", {"transform": ""}, r"feature 'ctr' transform='' in place of 'logit'"),
    "table": ("seen", {"table": "other"}, r"feature 'seen' table='other' in place of 'vid'"),
    "ids to vocabulary": ("shelf", {"size": 0, "min_count": 1}, r"'shelf' has_vocabulary=True in place of False"),
}


@pytest.fixture(scope="module")
def model(log, tmp_path_factory):
    directory = tmp_path_factory.mktemp("model") / "m"
    trained(log, directory)
    return directory


@pytest.mark.parametrize("case", CHANGES)
def test_a_column_that_is_another_is_refused(log, model, tmp_path, case):
    name, change, message = CHANGES[case]
    of_table = case in ("width", "oov")

    def changed(feature):
        return dataclasses.replace(feature, **change) if name in (feature.name, feature.table * of_table) else feature

    with pytest.raises(UserError, match=f"must keep its .* or bear a new name. Received: .*{message}"):
        grow.resume(config(), copied(log, tmp_path / "data", changed), model, DAYS[1:])


def test_other_refusals(log, model, tmp_path):
    with pytest.raises(UserError, match=r"but for tasks, .*Received: different \['experts'\]: \[3\] in place of"):
        grow.resume(config(experts=3), log, model, DAYS[1:])
    with pytest.raises(UserError, match=r"Received: --strategy=parameter_server"):
        grow.resume(config(), log, model, DAYS[1:], place=Place("parameter_server"))
    with pytest.raises(UserError, match="holds no trained model"):
        grow.resume(config(), log, tmp_path, DAYS[1:])
    with pytest.raises(UserError, match="hold no rows. Received: ''"):
        grow.resume(config(), log, model, [])
    with pytest.raises(UserError, match="20300101"):
        grow.resume(config(), log, model, ["20300101"])
    shutil.copytree(log, tmp_path / "data")
    schema = pbtxt.load(log)
    tasks = tuple(dataclasses.replace(t, mask="shown") if t.name == "click" else t for t in schema.tasks)
    pbtxt.save(dataclasses.replace(schema, tasks=tasks), tmp_path / "data")
    with pytest.raises(UserError, match=r"Received: task 'click' mask='shown' in place of ''"):
        grow.resume(config(), tmp_path / "data", model, DAYS[1:])


def test_cam2_refuses_another_engagement_and_other_interests(log, tmp_path):
    values = cam2(engagement="click", relevance="interests", interest_feature="shelf")
    trained(log, tmp_path / "m", causal=values)
    with pytest.raises(UserError, match=r"Received: tasks \['like', 'hate'\] without 'click'"):
        grow.resume(config(tasks=("like", "hate"), causal=values), log, tmp_path / "m", DAYS[1:])
    larger = copied(log, tmp_path / "data", lambda f: dataclasses.replace(f, size=8) if f.name == "shelf" else f)
    with pytest.raises(UserError, match="over the rows of 'shelf'. Received: 9 rows in place of 6"):
        grow.resume(config(causal=values), larger, tmp_path / "m", DAYS[1:])


class Strange(tf.keras.layers.Dense):
    """Tells nobody what its weights are."""


class Short(Strange):
    """Knows one axis of two."""

    def axes(self, read, tasks):
        return [(self.kernel, (tasks, None)), (self.bias, (None,))]


def strange_trunk(layer):
    def trunk(x, tasks, units):
        return tf.repeat(layer(units[-1], name="strange")(x)[:, None], tasks, axis=1)

    return trunk


@pytest.mark.parametrize(("layer", "received"), [
    (Strange, "layer 'strange', a Strange without `axes`, with the weights"),
    (Short, "'strange/kernel:0', shape (22, 6), of layer 'strange' (Short.axes). Received: axes of the lengths [2, 6]"),
])
def test_weights_that_no_layer_declares_are_not_copied_by_their_position(log, tmp_path, monkeypatch, layer, received):
    monkeypatch.setattr(trunks, "shared_bottom", strange_trunk(layer))
    trained(log, tmp_path / "m", trunk="shared_bottom")
    with pytest.raises(UserError, match=re.escape(received)):
        grow.resume(config("shared_bottom", without=()), log, tmp_path / "m", DAYS[1:])


class Columns(Strange):
    def axes(self, read, tasks):
        return [(self.kernel, (read, None)), (self.bias, (None,))]


def test_inserted_columns_of_a_layer_that_declares_its_axes(log, tmp_path, monkeypatch):
    monkeypatch.setattr(trunks, "shared_bottom", strange_trunk(Columns))
    old = trained(log, tmp_path / "m", trunk="shared_bottom")
    new = grow.resume(config("shared_bottom", without=()), log, tmp_path / "m", DAYS[1:])
    kernels = [weight(job, "strange/kernel") for job in (old, new)]
    np.testing.assert_array_equal(kernels[1][KEPT], kernels[0])
    assert not kernels[1][ADDED].any()
