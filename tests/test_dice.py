"""DICE, the baseline of the causal table."""

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.suites import dice

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
    """Two users, one negative each: in the first pair the positive is the popular one, in the second it is not."""
    model = with_vectors(user_relevance=[[1, 0], [0, 2]], item_relevance=[[1, 1], [0, 1], [2, 0]],
                         user_conformity=[[1, 0], [1, 1]], item_conformity=[[3, 0], [1, 0], [0, 1]])
    users, positives, negatives = np.array([0, 1]), np.array([0, 1]), np.array([[1], [0]])
    popular = np.array([[0], [1]], np.float32)
    found = float(dice.objective(model, *map(tf.constant, (users, positives, negatives, popular, np.float32(0.1)))))
    interest = np.array([1 - 0, 2 - 2])  # of the positive, less that of the negative
    conformity = np.array([3 - 1, 1 - 3])
    bpr = lambda margin: np.log1p(np.exp(-np.asarray(margin, float)))  # noqa: E731
    click = bpr(interest + conformity).mean()
    causes = bpr(interest[1]) / 2 + (bpr(conformity[0]) + bpr(-conformity[1])) / 2
    tables = {name: table.embeddings.numpy() for name, table in model.tables.items()}
    apart = sum(naive_distance_correlation(tables[side, "relevance"][ids], tables[side, "conformity"][ids])
                for side, ids in (("user", [0, 1]), ("item", [0, 1])))
    assert found == pytest.approx(click + 0.1 * causes + 0.01 * apart, abs=1e-4)


def test_negatives_are_far_enough_and_not_the_users_own():
    items = np.repeat(np.arange(200), np.arange(200))  # item i has i positives
    users = RNG.integers(0, 2000, len(items))
    negatives = dice.Negatives(users, items, 200)
    rows = RNG.permutation(len(items))[:2000]
    drawn, popular = negatives.draw(users[rows], items[rows], 40.0, np.random.default_rng(1))
    pairs = users * 200 + items
    own = np.isin(users[rows, None] * 200 + drawn, pairs)
    assert not own.any()
    positive = items[rows, None]
    assert np.all((drawn > positive + 40) | (drawn < positive / 2))
    np.testing.assert_array_equal(popular, drawn > positive)
    both = ((positive >= 80) & (positive <= 119))[:, 0]  # 40 items or more on both sides
    assert abs(popular[both].mean() - 0.5) < 0.03
    assert np.all(popular[positive[:, 0] > 160] == 0) and np.all(popular[positive[:, 0] < 60] == 1)


def test_negatives_where_all_items_are_alike():
    negatives = dice.Negatives(np.array([0, 1]), np.array([0, 1]), 2)
    drawn, popular = negatives.draw(np.array([0, 1]), np.array([0, 1]), 40.0, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn, [[1] * dice.NEGATIVES, [0] * dice.NEGATIVES])
    assert not popular.any()


def test_who_follows_the_crowd_has_conformity_and_who_does_not_has_interest():
    """Half of the users take what is popular, the others one of three kinds of rare items."""
    items_of = [np.arange(50) if user % 2 else np.arange(50 + user // 2 % 3, 200, 3) for user in range(180)]
    users = np.repeat(np.arange(180), 20)
    items = np.concatenate([np.random.default_rng(user).choice(own, 20) for user, own in enumerate(items_of)])
    tf.keras.utils.set_random_seed(0)
    model, rng = dice.Dice(180, 200), np.random.default_rng(0)
    step, negatives = dice.training_step(model), dice.Negatives(users, items, 200)
    for _ in range(150):
        drawn, popular = negatives.draw(users, items, 5.0, rng)
        step(users, items, drawn, popular, tf.constant(0.1))
    every = model((tf.range(180), tf.tile(tf.range(200)[None], (180, 1))))
    crowd, kind = np.arange(200) < 50, (np.arange(200) - 50) % 3
    of_crowd, of_kind = {}, {}
    for cause, scores in ((cause, s.numpy()) for cause, s in every.items()):
        niche = [row[~crowd][kind[~crowd] == n % 3].mean() - row[~crowd].mean() for n, row in enumerate(scores[::2])]
        of_crowd[cause], of_kind[cause] = np.mean(scores[:, :50]) - np.mean(scores[:, 50:]), np.mean(niche)
    assert of_crowd["conformity"] > 5 * abs(of_crowd["relevance"])
    assert of_kind["relevance"] > 1.4 * of_kind["conformity"] > 0
