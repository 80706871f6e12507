"""The search for weights of the fused score, and its command."""

import csv
import math
import re

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from dlen_cam2.cli.search_fusion import front_of
from dlen_cam2.evaluation import Predictions
from dlen_cam2.schema import Schema
from dlen_cam2.serving.fusion import Fusion
from dlen_cam2.serving.fusion_search import Constraint, Day, Goal, Space, search
from dlen_cam2.utils.errors import UserError
from pipelines import simulate
from tests.support.builders import command
from tests.support.fusions import NEGATIVE, TASKS

SCHEMA = Schema("three", (), TASKS, keys={"user": "user_id"})


def predictions(users, labels, mask=None, **given):
    """Rows of a day; labels (N, 3) of click, like and hate."""
    labels = np.array(labels, np.float32)
    mask = np.ones_like(labels) if mask is None else np.array(mask, np.float32)
    served = {name: np.array(values, np.float32) for name, values in given.items()}
    return Predictions(labels, mask, labels, None, served, {}, {}, {"user": np.array(users)})


def goals(*texts):
    return [Goal.parse(text, SCHEMA) for text in texts]


def one(task):
    """The fusion that ranks by one score."""
    return Fusion("product", {task: 1.0})


def test_goals_by_hand():
    # Users 7 and 3 mixed; user 5 has clicks only and counts for the rate alone.
    rows = predictions(
        [7, 3, 7, 5, 7, 3], [[1, 0, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 0], [1, 0, 1]],
        click=[0.1, 0.9, 0.8, 0.5, 0.3, 0.2],
    )
    day = Day(rows, SCHEMA, goals("ndcg/click", "rate/click", "rate/hate"), top=2)
    # Ranked, user 7 has clicks (0, 1, 1) and user 3 (0, 1); the most is 1 + 1/log2(3), and 1.
    second = 1 / math.log2(3)
    values = [(second / (1 + second) + second) / 2, (1 / 2 + 1 / 2 + 1) / 3, (1 / 2 + 1 / 2 + 0) / 3]
    assert list(day.measure(one("click")).values()) == pytest.approx(values)


def test_ndcg_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    users, labels, click = rng.permutation(np.repeat(np.arange(40), 12)), rng.random(480) < 0.3, rng.random(480)
    rows = predictions(users, np.stack([labels] * 3, axis=1), click=click)
    each = [(labels[users == u], click[users == u]) for u in range(40)]
    expected = np.mean([ndcg_score([y], [s], k=5) for y, s in each if 0 < y.sum() < 12])
    day = Day(rows, SCHEMA, goals("ndcg/click"), top=5)
    assert list(day.measure(one("click")).values()) == pytest.approx([expected])


def test_ties_keep_the_order_of_the_log():
    rows = predictions([1, 1, 1], [[0, 1, 0], [1, 0, 0], [0, 0, 0]], click=[0.5, 0.5, 0.5])
    day = Day(rows, SCHEMA, goals("ndcg/click", "ndcg/like"), top=2)
    assert list(day.measure(one("click")).values()) == pytest.approx([1 / math.log2(3), 1])


def test_rows_outside_of_the_sample_space_are_no_positives():
    mask = [[0, 1, 1], [1, 1, 1]]
    rows = predictions([1, 1], [[1, 0, 0], [1, 0, 0]], mask=mask, click=[0.9, 0.1])
    day = Day(rows, SCHEMA, goals("ndcg/click"), top=2)
    assert list(day.measure(one("click")).values()) == pytest.approx([1 / math.log2(3)])


@pytest.mark.parametrize(("text", "message"), [
    ("ndcg/likes", "Received: 'ndcg/likes'"), ("auc/like", "Received: 'auc/like'"), ("like", "Received: 'like'"),
])
def test_a_goal_that_is_none_is_quoted(text, message):
    with pytest.raises(UserError, match=message):
        Goal.parse(text, SCHEMA)


@pytest.mark.parametrize(
    "text", ["rate/hate", "rate/hate<0.1", "rate/hate<=x", "rate/hate<=-1", "<=baseline", "rate/x>=1"]
)
def test_a_constraint_that_is_none_is_quoted(text):
    with pytest.raises(UserError, match="Received: "):
        Constraint.parse(text, SCHEMA)


def test_violations():
    limit, least = (Constraint.parse(text, SCHEMA) for text in ("rate/hate<=baseline", " ndcg/like >= 0.3"))
    assert (limit.violation(0.25, 0.125), limit.violation(0.125, 0.125)) == (0.125, 0)
    assert (least.violation(0.05, 0.9), least.violation(0.3, 0.9)) == (pytest.approx(0.25), 0)


@pytest.mark.parametrize(("goal", "message"), [
    ("ndcg/like", "ndcg/like needs a user who has"), ("rate/click", "rate/click needs a user with more than"),
])
def test_a_goal_that_no_ranking_moves_is_refused(goal, message):
    rows = predictions([1, 1, 2], [[1, 0, 0], [0, 0, 0], [0, 1, 0]], click=[0.1, 0.2, 0.3])
    with pytest.raises(UserError, match=message):
        Day(rows, SCHEMA, goals(goal), top=2)


def known_day(*texts):
    """Ranking by click, which is nearly the label, puts all clicks first, and every hated row is clicked."""
    rng = np.random.default_rng(1)
    users = np.repeat(np.arange(60), 8)
    click = rng.random(480) < 0.5
    hate = click & (rng.random(480) < 0.3)
    labels = np.stack([click, rng.random(480) < 0.5, hate], axis=1)
    rows = predictions(
        users, labels, click=np.where(click, 0.9, 0.1), like=rng.random(480), hate=np.where(hate, 0.01, 0.0001),
        p_up=rng.uniform(0.2, 0.9, 480),
    )
    return Day(rows, SCHEMA, goals(*texts), top=3)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["product", "sum"])
def test_the_search_finds_the_best_ranking(form):
    day = known_day("ndcg/click", "rate/hate")
    free = [Constraint.parse("rate/hate<=1", SCHEMA)]
    best, trials = search(day, Space(day, form, ["click", "like", "hate"]), one("like"), day.goals[0], free, 1500)
    assert best.values[day.goals[0]] == pytest.approx(1)
    assert trials[0].fusion == one("like") and len(trials) <= 1501
    assert best.values == day.measure(best.fusion)


@pytest.mark.slow
def test_a_constraint_costs_of_the_goal_and_is_kept():
    day = known_day("ndcg/click", "rate/hate")
    free, limit = (Constraint.parse(f"rate/hate<={bound}", SCHEMA) for bound in (1, 0.02))
    space = Space(day, "product", ["click", "hate"])
    (most, _), (best, trials) = (search(day, space, one("hate"), day.goals[0], [c], 400) for c in (free, limit))
    assert most.values[day.goals[1]] > 0.02 >= best.values[day.goals[1]]
    assert most.values[day.goals[0]] > best.values[day.goals[0]] > day.measure(one("hate"))[day.goals[0]]
    kept = [t.values[day.goals[0]] for t in trials if t.values[day.goals[1]] <= 0.02]
    assert best.values[day.goals[0]] == max(kept)


def test_the_same_seed_searches_the_same():
    day = known_day("ndcg/like", "rate/hate")
    limit = [Constraint.parse("rate/hate<=baseline", SCHEMA)]
    space = Space(day, "product", ["click", "like", "hate"])
    found = [search(day, space, one("hate"), day.goals[0], limit, 100, seed)[1] for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_what_cannot_be_kept_is_said_with_the_nearest():
    day = known_day("ndcg/click", "rate/click")
    limit = [Constraint.parse("rate/click<=0.01", SCHEMA)]
    with pytest.raises(UserError, match=r"none of the \d+ .* keeps rate/click <= 0.01. The nearest: ndcg/click 0"):
        search(day, Space(day, "product", ["click"]), one("click"), day.goals[0], limit, 50)


def test_a_space_holds_fusions_that_float32_holds():
    day = known_day("ndcg/click")
    names = ["click", "like", "hate"]
    product = Space(day, "product", names)(np.ones(5))
    assert np.log(product(day.scores, NEGATIVE).numpy()[day.scores["p_up"] >= product.floor]).min() > -20.01
    assert product.floor == pytest.approx(np.median(day.scores["p_up"]), rel=1e-3)
    assert product.weights["hate"] > 100 * product.weights["click"]  # whose log q spreads as much less
    added = Space(day, "sum", names)(np.array([0.5, 0.5, 0.5, 0.25, 0.0]))
    assert sum(added.weights.values()) == pytest.approx(1, rel=1e-3)
    assert (added.power, added.floor) == (0.5, 0.0)
    with pytest.raises(UserError, match=r"Received: \['share'\]"):
        Space(day, "sum", ["share"])


def test_the_front_is_of_points_that_no_other_beats():
    cost, value = np.array([3.0, 1.0, 2.0, 2.0, 1.0]), np.array([0.8, 0.5, 0.4, 0.8, 0.2])
    assert front_of(cost, value).tolist() == [1, 3]


def fuse(trained, *more):
    return command(
        "dlen_cam2.cli.search_fusion", f"--data_dir={trained[0]}", f"--model_dir={trained[1]}", "--day=20240103",
        "--measure_day=20240104", "--maximize=ndcg/long_view", "--trials=100", "--top=2", *more,
    )


@pytest.mark.slow
def test_the_command_writes_its_directory(trained, tmp_path, drawn):
    out = tmp_path / "out"
    done = fuse(trained, "--subject_to=rate/like<=baseline", "--subject_to=ndcg/click>=0.1", f"--output={out}")
    assert done.returncode == 0, done.stderr[-2000:]
    names = ["fusion.html", "fusion.json", "fusion.md", "trade_off.png", "trials.csv"]
    assert sorted(p.name for p in out.iterdir()) == names
    chosen = Fusion.load(out / "fusion.json")
    with (out / "trials.csv").open(newline="") as file:
        rows = [{k: v if k == "form" else float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert all(rows[0][f"weight/{task}"] == 1 for task in simulate.TASKS) and rows[0]["floor"] == 0
    assert all((row["violation"] == 0) == (row["rate/like"] <= rows[0]["rate/like"] and row["ndcg/click"] >= 0.1)
               for row in rows)
    best = max((row for row in rows if row["violation"] == 0), key=lambda row: row["ndcg/long_view"])
    assert chosen.weights == {task: best[f"weight/{task}"] for task in simulate.TASKS}
    assert (chosen.power, chosen.floor) == (best["power"], best["floor"])
    text = (out / "fusion.md").read_text()
    assert text.count("| 20240104 | ") == 3 and "rate/like <= baseline: kept" in text


@pytest.mark.slow
@pytest.mark.parametrize(("flag", "message"), [
    ("--subject_to=ndcg/click>=1.0", "none of the .* fusions that were tried keeps .*The nearest: "),
    ("--measure_day=20240102", "two days that the model was not trained on"),
    ("--scores=share", "must name scores of the model"),
])
def test_nothing_is_written_on_an_error(trained, tmp_path, flag, message):
    done = fuse(trained, "--subject_to=rate/click>=0", f"--output={tmp_path}/out", flag)
    assert done.returncode == 1 and not any(tmp_path.iterdir())
    assert re.search(f"^error: .*{message}", done.stderr, re.MULTILINE), done.stderr[-2000:]
