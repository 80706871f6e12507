"""What was fitted, learned and printed, when a model grows and goes on."""

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2 import data, evaluation
from dlen_cam2.schema import pbtxt
from dlen_cam2.training import grow, model_directory, passes, warm_start
from tests.support.builders import train
from tests.support.growth import DAYS, OLD_TASKS, cam2, config, outputs, trained

pytestmark = pytest.mark.slow


def state(job, directory):
    """Every number of the job's checkpoint."""
    path = job.checkpoint.write(str(directory / "state"))
    return {n: tf.train.load_variable(path, n) for n, _ in tf.train.list_variables(path) if "GRAPH" not in n}


def test_what_was_fitted_stays_and_what_is_new_is_of_today(log, yesterday):
    old, directory = yesterday[0].schema, yesterday[1]
    grown = grow.resume(config(tasks=(), without=()), log, directory, DAYS[1:]).schema
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


@pytest.mark.parametrize(("trunk", "head", "rule", "causal"), [
    ("mmoe", "logistic", "pcgrad", cam2()), ("ple", "dlen", "metabalance", None)])
def test_growing_by_nothing_is_resuming(log, tmp_path, trunk, head, rule, causal):
    """Bit for bit, before and after further training."""
    values = {"rule": rule, "dropout": 0.2, "causal": causal}
    trained(log, tmp_path / "m", trunk, head, **values)
    same = config(trunk, head, **values)
    resumed = warm_start.resume(same, log, tmp_path / "m")
    grown = grow.resume(same, log, tmp_path / "m", DAYS[:1])
    resumed.ranker.run_eagerly = grown.ranker.run_eagerly = True  # seven steps: a graph takes longer to build
    assert grown.schema == resumed.schema and grown.fitted == resumed.fitted and grown.days == resumed.days == [DAYS[0]]
    for further in (False, True):
        if further:
            passes.fit(resumed, DAYS[1:])
            passes.fit(grown, DAYS[1:])
        a, b = state(resumed, tmp_path), state(grown, tmp_path)
        assert a.keys() == b.keys() and [n for n in a if not np.array_equal(a[n], b[n])] == []
    assert any("generator" in n for n in a) and any("balancer" in n for n in a)


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
| optimizer | step 7 | step 7 | slots follow their weights |  |
| balancer | UncertaintyBalancer | UncertaintyBalancer | initialised |  |
"""


def test_what_is_printed(log, tmp_path, capsys):
    trained(log, tmp_path / "m", "shared_bottom", rule="uncertainty")
    capsys.readouterr()
    today = config("shared_bottom", tasks=("click", "like"), without=("liked", "uid"), rule="uncertainty")
    grow.resume(today, log, tmp_path / "m", DAYS[1:])
    assert capsys.readouterr().out == TABLE


@pytest.fixture(scope="module")
def balanced(log, tmp_path_factory):
    """Yesterday's model of a rule with a state for each task, and its directory."""
    directory = tmp_path_factory.mktemp("balanced") / "m"
    return trained(log, directory, rule="uncertainty"), directory


@pytest.mark.parametrize(("method", "tasks", "state_after"), [
    ("uncertainty", OLD_TASKS, "same"), ("uncertainty", (), "zero"), ("fixed", OLD_TASKS, "none")])
def test_the_balancer_goes_on_with_the_same_tasks(log, balanced, capsys, method, tasks, state_after):
    old, directory = balanced[0].ranker.balancer, balanced[1]
    new = grow.resume(config(tasks=tasks, without=(), rule=method), log, directory, DAYS[1:]).ranker.balancer
    line = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| balancer")]
    assert np.abs(old.s.numpy()).min() > 0
    if state_after == "same":
        np.testing.assert_array_equal(new.s.numpy(), old.s.numpy())
        assert line == ["| balancer | UncertaintyBalancer | UncertaintyBalancer | copied |  |"]
    elif state_after == "zero":
        np.testing.assert_array_equal(new.s.numpy(), np.zeros(3))
        assert line == ["| balancer | UncertaintyBalancer | UncertaintyBalancer | initialised |  |"]
    else:
        assert new is None and line == ["| balancer | UncertaintyBalancer |  | dropped |  |"]


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
    found = evaluation.predict(evaluation.scorer(loaded.network, loaded.read_out), loaded.schema, log, DAYS[1])
    np.testing.assert_array_equal(found.probabilities, wanted)
    again = warm_start.resume(today, log, tmp_path / "b")
    assert again.step == job.step == 14
    np.testing.assert_array_equal(outputs(again, log)["logits"], outputs(job, log)["logits"])
    assert np.abs(untrained - outputs(again, log)["logits"]).max() > 0.01
