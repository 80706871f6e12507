"""DICE, the baseline of the causal table."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from dlen_cam2.config import Config
from dlen_cam2.experiments.baselines import dice
from dlen_cam2.schema import Schema, Task
from pipelines.writer.dataset import write_dataset

RNG = np.random.default_rng(0)


def naive_distance_correlation(x, y):
    """By the definition, in float64."""
    def centred(rows):
        a = np.array([[np.linalg.norm(p - q) for q in rows] for p in rows])
        return a - a.mean(0) - a.mean(1)[:, None] + a.mean()

    a, b = centred(x), centred(y)
    return np.sqrt((a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean()))


def test_distance_correlation():
    x, y = RNG.normal(size=(2, 30, 4))
    found = [float(dice.distance_correlation(tf.constant(x, tf.float32), tf.constant(z, tf.float32)))
             for z in (y, 3 * x + 1, x[RNG.permutation(30)])]
    wanted = [naive_distance_correlation(x, z) for z in (y, 3 * x + 1)]
    np.testing.assert_allclose(found[:2], wanted, atol=1e-3)
    assert found[1] == pytest.approx(1, abs=1e-3) and found[2] < 0.9


def test_its_gradient_is_finite_where_vectors_are_equal():
    x = tf.Variable(tf.ones((3, 2)))
    with tf.GradientTape() as tape:
        value = dice.distance_correlation(x, 2 * x)
    assert np.isfinite(value) and np.all(np.isfinite(tape.gradient(value, x)))


def with_vectors(**tables):
    model = dice.Dice(2, 3)
    model((tf.constant([0]), tf.constant([[0]])))
    for name, values in tables.items():
        table = model.tables[tuple(name.split("_"))]
        full = np.zeros(table.embeddings.shape, np.float32)
        full[:, : len(values[0])] = values
        table.embeddings.assign(full)
    return model


def test_the_objective_by_hand():
    """Three pairs: the positive is the popular one, the negative is, neither."""
    model = with_vectors(user_relevance=[[1, 0], [0, 2]], item_relevance=[[1, 1], [0, 1], [2, 0]],
                         user_conformity=[[1, 0], [1, 1]], item_conformity=[[3, 0], [1, 0], [0, 1]])
    users, positives, negatives = np.array([0, 1, 0]), np.array([0, 1, 0]), np.array([[1], [0], [1]])
    side = np.array([[-1], [1], [0]], np.float32)
    found = float(dice.objective(model, *map(tf.constant, (users, positives, negatives, side, np.float32(0.1)))))
    interest = np.array([1 - 0, 2 - 2, 1 - 0])  # of the positive, less that of the negative
    conformity = np.array([3 - 1, 1 - 3, 3 - 1])
    bpr = lambda margin: np.log1p(np.exp(-np.asarray(margin, float)))  # noqa: E731
    click = bpr(interest + conformity).mean()
    causes = bpr(interest[1]) / 3 + (bpr(conformity[0]) + bpr(-conformity[1])) / 3
    tables = {name: table.embeddings.numpy() for name, table in model.tables.items()}
    apart = sum(naive_distance_correlation(tables[side, "relevance"][ids], tables[side, "conformity"][ids])
                for side, ids in (("user", [0, 1]), ("item", [0, 1])))
    assert found == pytest.approx(click + 0.1 * causes + 0.01 * apart, abs=1e-4)


def test_negatives_are_far_enough_distinct_and_not_the_users_own():
    items = np.repeat(np.arange(200), np.arange(200))  # item i has i positives
    users = RNG.integers(0, 2000, len(items))
    negatives = dice.Negatives(users, items, np.arange(200))
    rows = RNG.permutation(len(items))[:2000]
    drawn, side = negatives.draw(users[rows], items[rows], 40.0, np.random.default_rng(1))
    pairs = users * 200 + items
    own = np.isin(users[rows, None] * 200 + drawn, pairs)
    assert not own.any()
    assert all(len(set(row)) == dice.NEGATIVES for row in drawn)
    positive = items[rows, None]
    assert np.all((drawn > positive + 40) | (drawn < positive / 2))
    np.testing.assert_array_equal(side, np.where(drawn > positive, 1, -1))
    both = ((positive >= 80) & (positive <= 119))[:, 0]  # 40 items or more on both sides
    assert abs(side[both].mean()) < 0.06
    assert np.all(side[positive[:, 0] > 160] == -1) and np.all(side[positive[:, 0] < 60] == 1)


def test_negatives_where_all_items_are_alike():
    """They are of neither side."""
    negatives = dice.Negatives(np.array([0, 1]), np.array([0, 1]), np.arange(2))
    drawn, side = negatives.draw(np.array([0, 1]), np.array([0, 1]), 40.0, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn, [[1] * dice.NEGATIVES, [0] * dice.NEGATIVES])
    assert not side.any()


def test_negatives_are_items_that_were_shown():
    shown = np.array([0, 2, 3, 7])  # 1 and 4 to 6 were not; 2 and 3 have no positives
    negatives = dice.Negatives(np.array([0, 1]), np.array([0, 7]), shown)
    drawn, _ = negatives.draw(np.repeat([0, 1], 50), np.repeat([0, 7], 50), 40.0, np.random.default_rng(0))
    assert set(drawn.ravel()) == {2, 3}


@pytest.mark.slow
def test_who_and_what_was_not_met_keeps_initial_vectors(tmp_path, monkeypatch):
    """Items of the last day are no negatives of the days before. One day of training has no rows."""
    original, made = dice.Dice, []

    def build(users, items):
        model = original(users, items)
        model((tf.constant([0]), tf.constant([[0]])))
        made.append((model, model.get_weights()))
        return model

    days = {
        "20240101": [(user, 100 + (user + k) % 6, k % 2) for user in range(10) for k in range(6)],
        "20240102": [],
        "20240103": [(user, 106, 1) for user in range(10)],
        "20240104": [(user, 107, 1) for user in range(5, 15)],
    }
    tables = [
        (day, pa.table(dict(zip(("user", "item", "like"), np.array(rows, np.int64).reshape(-1, 3).T, strict=True))))
        for day, rows in days.items()
    ]
    schema = Schema("log", (), (Task("like"),), keys={"user": "user", "item": "item"})
    write_dataset(tmp_path / "log", schema, tables, {})
    monkeypatch.setattr(dice, "Dice", build)
    found = dice.train(Config("dice"), tmp_path / "log", ["20240101", "20240102"], ["20240103", "20240104"], "like")
    assert {name: len(rows) for name, rows in found.items()} == dict.fromkeys(
        [f"logged/{name}" for name in ("relevance", "conformity", "engaged", "space")], 20)

    [(model, before)] = made
    after = dict(zip([w.name for w in model.weights], model.get_weights(), strict=True))
    before = dict(zip(after, before, strict=True))
    for name, table in after.items():
        changed = np.any(table != before[name], axis=1)
        met = 10 if "user" in name else 7  # of 15 users, and of 8 items
        assert changed[:met].all() and not changed[met:].any(), name


@pytest.mark.slow
def test_who_follows_the_crowd_has_conformity_and_who_does_not_has_interest():
    """Half of the users take what is popular, the others one of three kinds of rare items."""
    items_of = [np.arange(50) if user % 2 else np.arange(50 + user // 2 % 3, 200, 3) for user in range(180)]
    users = np.repeat(np.arange(180), 20)
    items = np.concatenate([np.random.default_rng(user).choice(own, 20) for user, own in enumerate(items_of)])
    tf.keras.utils.set_random_seed(0)
    model, rng = dice.Dice(180, 200), np.random.default_rng(0)
    step, negatives = dice.training_step(model), dice.Negatives(users, items, np.arange(200))
    for _ in range(150):
        drawn, side = negatives.draw(users, items, 5.0, rng)
        step(users, items, drawn, side, tf.constant(0.1))
    every = model((tf.range(180), tf.tile(tf.range(200)[None], (180, 1))))
    crowd, kind = np.arange(200) < 50, (np.arange(200) - 50) % 3
    of_crowd, of_kind = {}, {}
    for cause, scores in ((cause, s.numpy()) for cause, s in every.items()):
        niche = [row[~crowd][kind[~crowd] == n % 3].mean() - row[~crowd].mean() for n, row in enumerate(scores[::2])]
        of_crowd[cause], of_kind[cause] = np.mean(scores[:, :50]) - np.mean(scores[:, 50:]), np.mean(niche)
    assert of_crowd["conformity"] > 5 * abs(of_crowd["relevance"])
    assert of_kind["relevance"] > 1.4 * of_kind["conformity"] > 0
