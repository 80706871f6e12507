"""Day by day: continuing from yesterday's weights and optimizer state, and measuring tomorrow."""

import copy
import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import spearmanr

from dlen_cam2 import data, evaluation
from dlen_cam2.config import Config, DailyConfig, TrainConfig
from dlen_cam2.configs import simulated_cam2
from dlen_cam2.evaluation.truth import truth_at
from dlen_cam2.experiments import recurring
from dlen_cam2.experiments.papers.cam2 import VARIANTS
from dlen_cam2.schema import pbtxt
from dlen_cam2.training import jobs, model_directory, passes, warm_start
from dlen_cam2.training.optimizers import composite
from dlen_cam2.utils.errors import UserError
from pipelines import intervene, simulate
from tests.support.builders import branches, command, flat, train

pytestmark = pytest.mark.slow

DAYS = ["20240101", "20240102", "20240103", "20240104"]
# What CAM2's branches read, an id and a list: most of a run's time builds graphs of columns and tasks.
FEATURES = ("user_topics", "watched", "video_id", "topics", "user_click_rate", "video_click_rate", "video_age_days")
TASKS = ("click", "like")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    directory = tmp_path_factory.mktemp("log") / "data"
    simulate.write(simulate.World(rows=2000, seed=1, days=4), str(directory))
    return directory


# A day more is trained on as the days before it.
AS_BEFORE = DailyConfig(2, 1.0, 0.0)


def small(variant="proposed", trunk="mmoe", head="logistic", **train):
    cam2 = branches(variant=variant, statistic="video_click_rate", units=6, blocks=1, embedding=4, interests=3)
    sizes = {"experts": 2, "task_experts": 1, "units": (8,), "tower_units": (4,), "latent_units": (4,)}
    return Config("small", flat(trunk, head=head, dropout=0.2, causal=cam2, features=FEATURES, tasks=TASKS, **sizes),
                  TrainConfig(**{"batch_size": 64, "order": "days", "bootstrap": 0, "daily": AS_BEFORE, **train}))


def state(directory):
    """Every number of the stored checkpoint: weights, optimizer slots, steps."""
    path = str(directory / "weights" / "final")
    return {n: tf.train.load_variable(path, n) for n, _ in tf.train.list_variables(path) if "GRAPH" not in n}


def same(a, b):
    return [n for n in a if not np.array_equal(a[n], b[n])] if a.keys() == b.keys() else ["keys"]


def test_two_jobs_are_one(log, tmp_path):
    """Day 2 in another job, with the optimizer's state, is bit for bit the uninterrupted run; without it, it is not."""
    config = small("proposed", "ple", "dlen", epochs=2)
    # What is fitted comes from the first job's day, so the uninterrupted run starts there too.
    whole = jobs.start(config, log, DAYS[:1])
    passes.fit(whole, DAYS[:2])
    (tmp_path / "whole").mkdir()
    model_directory.save(tmp_path / "whole", config, whole.schema, whole.fitted, whole.checkpoint)

    train(config, log, tmp_path / "day1", DAYS[0], DAYS[3])
    train(config, log, tmp_path / "day2", DAYS[1], DAYS[3], continue_from=tmp_path / "day1")
    assert same(state(tmp_path / "whole"), state(tmp_path / "day2")) == []
    assert model_directory.load(tmp_path / "day2").fitted == whole.fitted

    # The same weights and dropout state, and an optimizer that starts anew.
    job = warm_start.resume(config, log, tmp_path / "day1")
    job.ranker.compile(optimizer=composite(job.network, config.train))
    passes.fit(job, DAYS[1:2])
    different = [not np.array_equal(a, b) for a, b in
                 zip(job.network.get_weights(), whole.network.get_weights(), strict=True)]
    assert sum(different) > len(different) / 2


def test_continue_from_the_command_line(log, tmp_path):
    flags = ["--config=dlen_cam2/configs/simulated_cam2.py", f"--data_dir={log}", f"--eval_days={DAYS[3]}",
             f"--config.model.features={FEATURES}", f"--config.model.tasks={TASKS}", "--config.model.trunk.units=(8,)",
             "--config.train.bootstrap=0"]
    first = command("dlen_cam2.cli.train", *flags, f"--model_dir={tmp_path / 'a'}",
                    f"--train_days={DAYS[0]}..{DAYS[1]}")
    assert first.returncode == 0, first.stderr[-2000:]
    assert "any_positive counts as conformity where video_click_rate >=" in first.stdout
    second = command("dlen_cam2.cli.train", *flags, f"--model_dir={tmp_path / 'b'}", f"--train_days={DAYS[2]}",
                     f"--continue_from={tmp_path / 'a'}")
    assert second.returncode == 0, second.stderr[-2000:]
    a, b = (model_directory.load(tmp_path / n) for n in "ab")
    assert a.fitted == b.fitted != {} and a.schema == b.schema
    assert any(np.any(x != y) for x, y in zip(a.network.get_weights(), b.network.get_weights(), strict=True))
    assert b.days == DAYS[:3]

    other = dataclasses.replace(a.config, model=copy.deepcopy(a.config.model))
    other.model.causal.variant = "task_arch"
    for config, day, before, message in (
        (other, DAYS[2], "a", r"Received: different \['causal'\]"),
        (a.config, DAYS[2], "nothing", "holds no trained model"),
        (a.config, DAYS[1], "a", rf"may not be trained on again or measured. Received: \['{DAYS[1]}'\]"),
    ):
        with pytest.raises(UserError, match=message):
            train(config, log, tmp_path / "c", day, DAYS[3], continue_from=tmp_path / before)
    assert not (tmp_path / "c").exists()


def test_one_config_file_runs_every_variant(log):
    for variant in VARIANTS:
        config = simulated_cam2.get_config()
        config.model.features, config.model.tasks, config.model.causal.blocks = FEATURES, TASKS, 1
        if variant == "production":
            config.model.causal = None
        else:
            config.model.causal.variant = variant
        config.model.trunk.units, config.model.trunk.experts, config.train.bootstrap = (8,), 2, 0
        job = jobs.start(config, log, DAYS[:1])
        job.ranker.run_eagerly = True  # a few steps: a graph takes longer to build
        passes.fit(job, DAYS[:1])
        assert all(np.isfinite(w).all() for w in job.network.get_weights())
        assert ("conformity" in job.network.output) == (variant != "production")


def test_each_day_is_measured_before_it_is_trained_on(log, monkeypatch):
    """Rows and kinds are right, and day D+1's predictions are those of a model trained on exactly the days to D."""
    found = recurring.recurring(small(), log, DAYS[:1], DAYS[1:], ("video_age_days",))
    sizes = data.statistics(log)["days"]
    assert set(found) == {"logged", "random"}
    assert len(found["logged"].labels) == sum(sizes[d]["rows"] for d in DAYS[1:])
    assert len(found["random"].labels) == sum(sizes[f"{d}_random"]["rows"] for d in DAYS[1:])
    assert found["logged"].columns["video_age_days"].min() >= 0
    assert set(found["logged"].causes) == {"conformity", "relevance"}

    job = jobs.start(small(), log, DAYS[:1])
    passes.fit(job, DAYS[:2])
    alone = evaluation.predict(evaluation.scorer(job.network, job.read_out), job.schema, log, DAYS[2])
    first = sizes[DAYS[1]]["rows"]
    rows = slice(first, first + sizes[DAYS[2]]["rows"])
    np.testing.assert_array_equal(found["logged"].probabilities[rows], alone.probabilities)
    np.testing.assert_array_equal(found["logged"].keys["time"][rows], alone.keys["time"])


def test_what_is_measured_is_what_is_served(log, tmp_path):
    """Trained in bfloat16, each day is scored in float32 by the weights of the day before, as a loaded model scores."""
    config = small(precision="mixed_bfloat16")
    found = recurring.recurring(config, log, DAYS[:1], DAYS[1:3])["logged"]
    job, served = jobs.start(config, log, DAYS[:1]), []
    for trained, measured in zip(DAYS[:2], DAYS[1:3], strict=True):
        passes.fit(job, [trained])
        (tmp_path / trained).mkdir()
        model_directory.save(tmp_path / trained, config, job.schema, job.fitted, job.checkpoint)
        model = model_directory.load(tmp_path / trained)
        assert {layer.compute_dtype for layer in model.network.layers} <= {"float32", "int32", "int64"}
        served.append(evaluation.predict(evaluation.scorer(model.network, model.read_out), job.schema, log, measured))
    np.testing.assert_array_equal(found.probabilities, np.concatenate([each.probabilities for each in served]))


def test_active_days(log):
    schema = dataclasses.replace(pbtxt.load(log), features=(), targets=())
    users = {}
    for day in DAYS[:3]:
        for _, labels in data.read(log, schema, [day], 512):
            users.setdefault(day, set()).update(labels["user_id"].numpy().tolist())
    active = recurring.active_days(log, DAYS[:3])
    assert active == {u: sum(u in users[d] for d in DAYS[:3]) for u in set().union(*users.values())}
    assert recurring.active_days(log, DAYS[:3], last=1) == dict.fromkeys(users[DAYS[2]], 1)


def test_a_split_follows_the_first_days_only(log):
    """Continuing keeps the threshold, whatever later days hold."""
    first, both = (jobs.start(small(), log, DAYS[:days]).fitted["label_threshold"] for days in (1, 2))
    assert first.thresh != both.thresh
    config = small()
    config.model.causal.thresh, config.model.causal.thresh_unit = 2.0, "value"
    with pytest.raises(UserError, match="both sides of video_click_rate = 2, else a cause"):
        jobs.start(config, log, DAYS[:1])
    config = small()
    config.model.causal.without = ("nope",)
    with pytest.raises(UserError, match=r"has no feature \['nope'\]"):
        jobs.start(config, log, DAYS[:1])


def test_intervened_exposures_are_measured(log, tmp_path):
    intervene.write(str(log), str(tmp_path / "intervened"), seed=0)
    found = recurring.recurring(small(), tmp_path / "intervened", DAYS[:2], DAYS[2:])
    sizes = data.statistics(tmp_path / "intervened")["days"]
    assert set(found) == {"logged", "intervened"}
    assert len(found["intervened"].labels) == sum(sizes[f"{d}_intervened"]["rows"] for d in DAYS[2:])


@pytest.fixture(scope="module")
def causal_scores(tmp_path_factory):
    """Scores and truth on the random exposures of a small feed whose popular videos are engaged with."""
    log = tmp_path_factory.mktemp("causes") / "data"
    simulate.write(simulate.World(rows=30_000, seed=7, days=4, random_share=0.3), str(log))
    found = recurring.recurring(simulated_cam2.get_config(), log, DAYS[:3], DAYS[3:])["random"]
    truth = truth_at(str(log), found.keys["time"])
    return {(score, cause): spearmanr(found.causes[score], truth[cause]).statistic
            for score in ("conformity", "relevance") for cause in ("popularity", "relevance")}


def test_the_causes_come_apart(causal_scores):
    """Conformity goes with popularity and relevance with interest, each more than with the other's cause."""
    found = causal_scores
    assert found["conformity", "popularity"] > 0.4
    assert found["relevance", "relevance"] > 0.2
    assert found["conformity", "popularity"] > found["relevance", "popularity"] + 0.2
    assert found["relevance", "relevance"] > found["conformity", "relevance"] + 0.1
