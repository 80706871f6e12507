"""What a daily step changed: the statistic by hand, and how often a step without any effect is called worse."""

import numpy as np
import pytest
from scipy.stats import t as student

from dlen_cam2.evaluation import Predictions, daily_step
from dlen_cam2.metrics import cross_entropy
from dlen_cam2.schema import Feature, Schema, Task

SCHEMA = Schema("s", (Feature("uid", "int", "user", "content", size=9, width=2),),
                (Task("click"), Task("buy", mask="click")), keys={"user": "uid"})


def world(rows, users, rng, rate=0.3):
    p = np.full((rows, 2), rate)
    labels = (rng.random((rows, 2)) < p).astype(float)
    mask = np.stack([np.ones(rows), labels[:, 0]], axis=1)
    return labels, mask, rng.integers(0, users, rows)


def predictions(labels, mask, users, p):
    return Predictions(labels, mask, np.asarray(p), None, {}, {}, {}, {"user": users})


def test_the_statistic_by_hand():
    rng = np.random.default_rng(0)
    labels, mask, users = world(600, 50, rng)
    before, after = (rng.uniform(0.1, 0.6, (600, 2)) for _ in range(2))
    texts = np.array([f"u{n}".encode() for n in users], object)
    shown = (predictions(labels, mask, texts, scores) for scores in (before, after))
    found = daily_step.changes(*shown, SCHEMA)
    rows = mask[:, 1] == 1
    change = cross_entropy(labels[rows, 1], after[rows, 1]) - cross_entropy(labels[rows, 1], before[rows, 1])
    by_user = np.array([change[users[rows] == u].sum() for u in np.unique(users[rows])])
    wanted = by_user.sum() / (len(by_user) ** 0.5 * by_user.std(ddof=1))
    assert found["buy"]["errors"] == pytest.approx(wanted)
    assert found["buy"]["worse"] == (wanted > student.ppf(0.999, len(by_user) - 1))


def test_a_step_without_effect_is_seldom_called_worse_and_a_bad_one_is():
    """The expected cross entropy is the same before and after: one is the other's rows in another order."""
    rng = np.random.default_rng(1)
    false, true, worlds = 0, 0, 400
    for _ in range(worlds):
        labels, mask, users = world(1500, 300, rng)
        before, after = rng.uniform(0.2, 0.4, (2, 1500, 2))
        given = predictions(labels, mask, users, before)
        false += daily_step.changes(given, predictions(labels, mask, users, after), SCHEMA)["click"]["worse"]
        bad = 1 / (1 + (1 / before - 1) * np.exp(-0.5))
        true += daily_step.changes(given, predictions(labels, mask, users, bad), SCHEMA)["click"]["worse"]
    assert false <= 4 and true > 0.9 * worlds


def test_too_little_to_tell_is_no_warning():
    rng = np.random.default_rng(2)
    labels, mask, users = world(400, 8, rng)
    before = predictions(labels, mask, users, np.full((400, 2), 0.3))
    found = daily_step.changes(before, predictions(labels, mask, users, np.full((400, 2), 0.9)), SCHEMA)
    assert found["click"]["ne"][1] > 2 * found["click"]["ne"][0] and not found["click"]["worse"]  # 8 users
    labels[:] = 0
    assert daily_step.changes(predictions(labels, mask, users, np.full((400, 2), 0.3)), before, SCHEMA) == {}
    assert daily_step.warnings("day", found) == []
