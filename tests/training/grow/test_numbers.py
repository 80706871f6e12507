"""Which number goes where when a model grows, and what stays equal."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.data.preprocessing import Indexer
from dlen_cam2.training import grow, passes
from dlen_cam2.training.distribution import Place
from tests.support.growth import (
    ADDED,
    DAYS,
    KEPT,
    NEW,
    OLD_TASKS,
    cam2,
    config,
    copied,
    outputs,
    slot,
    trained,
    weight,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("trunk", "head"), [
    ("shared_bottom", "logistic"), ("mmoe", "dlen"), ("cgc", "dlen"), ("ple", "logistic")])
def test_growing_changes_no_prediction_of_yesterdays_tasks(log, tmp_path, trunk, head):
    values = {"alpha_constant": 0.0}
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


def test_new_columns_start_at_0_and_learn(log, yesterday):
    old, directory = yesterday
    job = grow.resume(config(tasks=(), without=()), log, directory, DAYS[1:])
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


def test_optimizer_slots_go_with_their_weights_and_new_ones_are_fresh(log, yesterday):
    old, directory = yesterday
    job = grow.resume(config(tasks=(), without=()), log, directory, DAYS[1:])
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
    log, yesterday, tmp_path, name, width, values, grown
):
    old, directory = yesterday
    larger = copied(log, tmp_path / "data", lambda f: dataclasses.replace(f, size=8) if f.name == "shelf" else f)
    job = grow.resume(config(without=()), larger, directory, DAYS[1:])
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


def test_cam2s_branches_grow(log, tmp_path):
    old = trained(log, tmp_path / "m", causal=cam2())
    job = grow.resume(config(tasks=(), without=(), causal=cam2()), log, tmp_path / "m", DAYS[1:])
    assert job.fitted == old.fitted and job.schema.targets == ("ctr",)
    into = [weight(j, "relevance_item/into/kernel").shape[0] for j in (old, job)]
    assert into == [6, 10]  # shelf, vid; and price, shop
    before, after = outputs(old, log), outputs(job, log)
    for name in ("conformity", "relevance", "interests"):
        assert np.std(before[name]) > 0
        np.testing.assert_allclose(after[name], before[name], atol=1e-5)
    np.testing.assert_allclose(after["logits"][:, [0, 2]], before["logits"], atol=1e-5)


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
