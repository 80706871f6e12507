"""A task that is a number, everywhere: loss and start by hand, metrics, serving, fusion with a range, refusals."""

import dataclasses
import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from scipy import stats

from dlen_cam2 import data, evaluation, metrics
from dlen_cam2.config import ModelConfig
from dlen_cam2.evaluation import report
from dlen_cam2.experiments import zoo
from dlen_cam2.experiments.rows import Log
from dlen_cam2.labels.kind import kind_of
from dlen_cam2.models import ReadOut, build
from dlen_cam2.schema import Feature, Schema, Task, pbtxt
from dlen_cam2.serving.calibration import fit
from dlen_cam2.serving.fusion import Fusion
from dlen_cam2.serving.fusion_search import Day, Goal, Space
from dlen_cam2.serving.signatures import Server
from dlen_cam2.training import jobs, passes
from dlen_cam2.training.model_directory import TrainedModel
from dlen_cam2.utils.errors import UserError
from pipelines.writer.statistics import Statistics
from tests.support import contract

WATCH = Task("watch", label="watch_s", kind="regression", mask="click", mean=20.0, std=8.0)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return contract.log(tmp_path_factory.mktemp("regression"))


@pytest.fixture(scope="module", params=["logistic", "dlen", "esmm"])
def job(request, log):
    config = contract.config(contract.small("head", request.param), without=contract.NEW)
    made = jobs.start(config, log, contract.DAYS[:1])
    passes.fit(made, contract.DAYS[:1])
    return made


def test_loss_prediction_and_start_by_hand():
    kind = kind_of(WATCH)
    y, z = tf.constant([20.0, 36.0, 4.0]), tf.constant([0.0, 1.0, 0.5])
    np.testing.assert_allclose(kind.predictions(z, WATCH), [20.0, 28.0, 24.0])
    np.testing.assert_allclose(kind.losses(y, z, WATCH), [0.0, 0.5, 3.125])  # ½ (y - ŷ)² / 64
    assert kind.constant_loss(WATCH) == 0.5 and kind.start(WATCH) == 0.5


@pytest.mark.parametrize("start, step", [(1e7, 1.0), (0.0, 1e-7), (3e8, 64.0)])
def test_moments_of_labels_large_and_small(start, step):
    """Two values, half a step from their mean, over two days; float32 holds them, though not that mean."""
    days, values = {}, np.array([start, start + step] * 500, np.float32)
    schema = Schema("s", (), (Task("watch", kind="regression"),))
    for day in ("a", "b"):
        counted = Statistics(schema)
        counted.add(pa.table({"watch": values}))
        days[day] = counted.result()
    fitted = schema.fit({"days": days}, list(days)).tasks[0]
    np.testing.assert_allclose([fitted.mean, fitted.std], [values.astype(float).mean(), step / 2], rtol=1e-6)


@pytest.mark.slow
def test_a_number_outside_of_the_sample_space_is_nothing_to_the_loss(log, tmp_path):
    """A sentinel of 1e30, whose squared error is infinite, where the mask is 0."""
    shutil.copytree(log, tmp_path / "data")
    schema = pbtxt.load(log)
    tasks = tuple(dataclasses.replace(t, mask="click") if t.is_number else t for t in schema.tasks)
    pbtxt.save(dataclasses.replace(schema, tasks=tasks), tmp_path / "data")
    config = contract.config(contract.small("head", "logistic"), without=contract.NEW)
    losses = []
    for sentinel in (0.0, 1e30):
        made = jobs.start(config, tmp_path / "data", contract.DAYS[:1])
        inputs, labels = next(iter(data.read(tmp_path / "data", made.schema, contract.DAYS[:1], 64)))
        outside = labels["click"] == 0
        labels |= {"watch": tf.where(outside, sentinel, labels["watch"])}
        losses.append(made.ranker.train_on_batch(inputs, labels, return_dict=True))
    assert losses[0] == losses[1] and np.isfinite(losses[0]["loss"])


@pytest.mark.parametrize("head", ["logistic", "dlen"])
def test_it_starts_at_the_mean(head):
    schema = Schema("s", (Feature("x", "float", "item", "content"),), (Task("click", positive_rate=0.3), WATCH))
    network = build(ModelConfig(head=contract.small("head", head)), schema)
    read_out = ReadOut(ModelConfig(head=contract.small("head", head)), schema)
    found = read_out.predictions(network({"item_content": {"x": tf.zeros(3)}}))
    np.testing.assert_allclose(found, [[0.3, 20.0]] * 3, rtol=1e-5)
    found = read_out.scores(network({"item_content": {"x": tf.zeros(3)}}))
    np.testing.assert_allclose(found["watch"], [20.0] * 3, rtol=1e-5)
    assert set(found) == set(read_out.names(causes=False))


def test_moments_are_of_the_sample_space_of_the_training_days(log):
    schema = data.fit(log, contract.SCHEMA, contract.DAYS)
    watch = schema.tasks[3]
    batches = data.read(log, schema, contract.DAYS, 500)
    labels = np.concatenate([columns["watch"].numpy() for _, columns in batches])
    np.testing.assert_allclose([watch.mean, watch.std], [labels.mean(), labels.std()], rtol=1e-6)
    assert "watch" in schema.targets and "watch" not in schema.binary_columns
    assert pbtxt.loads(pbtxt.dumps(schema)) == schema == Schema.from_dict(json.loads(json.dumps(_as_dict(schema))))


def _as_dict(schema):
    import dataclasses

    return dataclasses.asdict(schema)


@pytest.mark.slow
def test_it_is_measured_calibrated_around_and_served(job, log):
    schema, score = job.schema, evaluation.scorer(job.scored, job.read_out)
    shown = evaluation.predict(score, schema, log, contract.DAYS[1])
    found = evaluation.evaluate(shown, schema, bootstrap=20)
    y, p = shown.labels[:, 3], shown.probabilities[:, 3]
    assert found["watch"]["mae"] == pytest.approx(np.abs(y - p).mean()) and "auc" not in found["watch"]
    assert found["watch"]["rank_correlation"] == pytest.approx(stats.spearmanr(y, p).statistic)
    assert "entire_space" in found["buy"] and "entire_space" not in found["watch"]
    text = report.table({"day": found})
    assert "| day | watch | 120 |" in text and "| MAE |" in text and text.count("| click |") == 1
    calibration = fit(shown, schema, "platt", "day")
    assert "watch" not in calibration.knots
    np.testing.assert_array_equal(calibration.apply(shown, schema.task_names).probabilities[:, 3], p)

    model = TrainedModel(job.config, schema, job.fitted, job.scored, job.days)
    fusion = Fusion("product", {"click": 1.0, "watch": 2.0}, ranges={"watch": [0.0, 40.0]})
    scores = {n: v.numpy() for n, v in Server(model, fusion=fusion).score_raw(**_rows(log, schema)).items()}
    by_hand = scores["click"] * np.clip(scores["watch"] / 40, 1e-12, 1) ** 2
    np.testing.assert_allclose(scores["fused"], by_hand, rtol=1e-4)
    np.testing.assert_allclose(scores["watch"], p[: len(by_hand)], rtol=1e-5)
    classes = Server(model, classify=True)
    contract.ranks_as_rows(classes, log)
    with pytest.raises(UserError, match=r"\['watch'\] are numbers, not probabilities, so a weight of theirs needs"):
        Server(model, fusion=Fusion("sum", {"watch": 1.0}))


def _rows(log, schema):
    from dlen_cam2.serving import request_log

    return {n: tf.constant(c) for n, c in request_log.first_rows(log, contract.DAYS[1], schema, 40).items()}


@pytest.mark.slow
def test_a_fusion_is_searched_with_numbers(job, log):
    shown = evaluation.predict(evaluation.scorer(job.scored, job.read_out), job.schema, log, contract.DAYS[1])
    goal = Goal.parse("rate/watch", job.schema)
    day = Day(shown, job.schema, [goal], top=3)
    space = Space(day, "product", ["click", "watch"])
    found = space(np.full(space.size, 0.5))
    predicted = shown.serving["watch"]
    low, high = found.ranges["watch"]
    assert low == min(0, predicted.min()) and high == pytest.approx(predicted.max()) and low < high
    order = Fusion("product", {"watch": 1.0}, ranges=found.ranges)
    # The first three of each user, by hand.
    users, expected = shown.users, []
    for user in np.unique(users):
        rows = np.flatnonzero(users == user)
        first = rows[np.argsort(-shown.serving["watch"][rows], kind="stable")][:3]
        expected.append(shown.labels[first, 3].mean())
    assert day.measure(order)[goal] == pytest.approx(np.mean(expected), rel=1e-6)
    with pytest.raises(UserError, match="the goal of a task that is a number must be its rate"):
        Goal.parse("ndcg/watch", job.schema)


@pytest.mark.parametrize(("ranges", "message"), [
    ({"watch": [3, 3]}, "numbers within ±1e37 with low < high"),
    ({"watch": [0]}, "numbers within"), ({"watch": [0, float("inf")]}, "numbers within"),
    ({"watch": "ab"}, "numbers within"), ([1], "numbers within"),
])
def test_ranges_that_are_none(ranges, message):
    with pytest.raises(UserError, match=message):
        Fusion("sum", {"watch": 1.0}, ranges=ranges)


def test_metrics_by_hand_and_where_they_are_undefined():
    found = metrics.regression_metrics([1, 2, 4, 5], [2, 2, 2, 6], [0, 0, 1, 2], bootstrap=50)
    assert found["mae"] == 1.0 and found["rmse"] == pytest.approx(np.sqrt(1.5)) and found["calibration"] == 1.0
    assert found["rank_correlation"] == pytest.approx(stats.spearmanr([1, 2, 4, 5], [2, 2, 2, 6]).statistic)
    assert found["intervals"]["mae"][0] <= 1.0 <= found["intervals"]["mae"][1]
    empty = metrics.regression_metrics([], [], [])
    assert empty["rows"] == 0 and empty["mae"] is None and empty["intervals"]["mae"] is None
    assert metrics.regression_metrics([0, 0], [1, 2], [0, 1])["calibration"] is None
    assert metrics.regression_metrics([3, 3], [1, 2], [0, 1])["rank_correlation"] is None
    with pytest.raises(UserError, match="must be finite"):
        metrics.regression_metrics([np.nan], [1], [0])


def test_refusals(log):
    with pytest.raises(UserError, match=r"the kind of the task 'x' must be a label, one of \['binary', 'regression'\]"):
        Task("x", kind="number")
    with pytest.raises(UserError, match="a column must be either numeric, or a binary label or mask"):
        Schema("s", (), (Task("a"), Task("b", label="a", kind="regression")))
    config = contract.config(without=contract.NEW)
    with pytest.raises(UserError, match=r"Received: \['watch'\] as well, which are numbers"):
        zoo.rows(config, Log(str(log), contract.DAYS[:1], contract.DAYS[1:]), ["MMOE"])
