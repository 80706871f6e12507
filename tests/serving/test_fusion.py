"""Fusion: the formula by hand, its asset in processes that did not write it, the search, and the commands."""

import csv
import json
import math
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from dlen_cam2.cli.search_fusion import front_of
from dlen_cam2.config import Config, ModelConfig, TrainConfig
from dlen_cam2.evaluation import Predictions
from dlen_cam2.schema import Schema, Task
from dlen_cam2.serving.fusion import Fusion, FusionTable, read_asset, reweigh, write_asset
from dlen_cam2.serving.fusion_search import Constraint, Day, Goal, Space, search
from dlen_cam2.utils.errors import UserError
from pipelines import simulate
from tests.support.builders import FEW, command, train

TASKS = (Task("click"), Task("like"), Task("hate", negative=True))
SCHEMA = Schema("three", (), TASKS, keys={"user": "user_id"})
NEGATIVE = ["hate"]
NAMES = ["click", "like", "hate", "p_up"]
# The second row is below a floor of 0.3.
SCORES = {"click": [0.5, 0.25], "like": [0.1, 0.2], "hate": [0.2, 0.5], "p_up": [0.6, 0.2]}
FULL = Fusion("product", {"click": 2.0, "hate": 3.0}, power=0.5, floor=0.3)


def scores(**columns):
    return {name: tf.constant(values, tf.float32) for name, values in (columns or SCORES).items()}


def test_product_by_hand():
    expected = [0.5**2 * 0.8**3 * 0.6**0.5, math.log(0.25**2 * 0.5**3 * 0.2**0.5)]
    np.testing.assert_allclose(FULL(scores(), NEGATIVE), expected, rtol=1e-6)


def test_sum_by_hand():
    fusion = Fusion("sum", {"click": 2.0, "hate": 3.0}, power=0.5, floor=0.3)
    expected = [(2 * 0.5 + 3 * 0.8) * 0.6**0.5, math.log((2 * 0.25 + 3 * 0.5) * 0.2**0.5 / 5)]
    np.testing.assert_allclose(fusion(scores(), NEGATIVE), expected, rtol=1e-6)


def test_the_default_is_the_product_of_all_tasks():
    expected = [0.5 * 0.1 * 0.8, 0.25 * 0.2 * 0.5]
    np.testing.assert_allclose(Fusion.default(TASKS)(scores(), NEGATIVE), expected, rtol=1e-6)


def test_scores_are_clipped():
    odd = scores(click=[0.0, 3.0, 0.5, 0.5], hate=[0.0, 0.0, 1.0, -2.0])
    fusion = Fusion("product", {"click": 1.0, "hate": 1.0})
    np.testing.assert_allclose(fusion(odd, NEGATIVE), [1e-12, 1.0, 0.5 * 2**-24, 0.5], rtol=1e-5)


def test_a_rare_negative_task_tells_rows_apart_that_one_minus_s_does_not():
    hate = [1e-4, 1e-4 + 1e-8]
    assert np.float32(1) - np.float32(hate[0]) == np.float32(1) - np.float32(hate[1])
    fused = Fusion("product", {"hate": 1e4})(scores(hate=hate), NEGATIVE).numpy()
    assert fused[0] > fused[1]


def test_no_row_is_lost_to_underflow():
    fused = Fusion("product", {"click": 100.0}, floor=0.5)(scores(click=[1e-9, 1.0], p_up=[0.9, 0.1]), []).numpy()
    assert fused[0] > 0 >= fused[1]


@pytest.mark.parametrize("form", ["product", "sum"])
def test_no_rounding_lifts_a_row_that_is_held_back_above_0(form):
    """Rows at and next to the best there are, whose sum over the scores is rounded otherwise than that of weights."""
    rng = np.random.default_rng(0)
    for count in rng.integers(2, 9, 40):
        names = [f"score_{k}" for k in range(count)]
        fusion = Fusion(form, dict(zip(names, rng.choice([1e-3, 0.1, 0.3, 0.7, 1, 3e8, 1e9], count).tolist(),
                                       strict=True)), floor=0.5)
        best = {name: rng.choice([1, 1 - 2**-24, 1 - 2**-23], 37) for name in names}
        assert fusion(scores(**best, p_up=[0.5 - 2**-25] * 37), []).numpy().max() <= 0


fraction = st.floats(0.01, 0.9)
fusions = st.builds(
    Fusion, st.sampled_from(["product", "sum"]),
    st.fixed_dictionaries({"click": st.floats(0.1, 5), "like": st.floats(0, 5), "hate": st.floats(0.1, 5)}),
    st.floats(0, 3), st.just(0.0) | st.floats(0.001, 0.99),
)


@settings(max_examples=60, deadline=None)
@given(fusions, fraction, fraction, fraction, fraction)
def test_a_better_score_ranks_higher_held_back_or_not(fusion, click, like, hate, p_up):
    rows = scores(click=[click, click * 1.1, click], like=[like] * 3, hate=[hate, hate, hate * 0.9], p_up=[p_up] * 3)
    plain, clicked, unhated = fusion(rows, NEGATIVE).numpy()
    assert clicked > plain and unhated > plain


@settings(max_examples=60, deadline=None)
@given(fusions, st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 4), min_size=2, max_size=20))
def test_rows_below_the_floor_come_after_all_others(fusion, rows):
    columns = dict(zip(NAMES, np.array(rows, np.float32).T, strict=True))
    held = columns["p_up"] < np.float32(fusion.floor)
    assume(held.any() and not held.all())
    fused = fusion(columns, NEGATIVE).numpy()
    assert np.isfinite(fused).all()
    assert fused[held].max() <= 0 < fused[~held].min()


@pytest.mark.parametrize(("values", "message"), [
    ({"form": "mean"}, "`form` must be one of .*Received: 'mean'"),
    ({"weights": [1.0]}, "`weights` must be numbers by score"),
    ({"weights": {"click": -1.0}}, "'click' must be a number from 0 to 1e.09. Received: -1.0"),
    ({"weights": {"click": "2"}}, "Received: '2'"),
    ({"weights": {"click": True}}, "Received: True"),
    ({"weights": {"click": math.nan}}, "Received: nan"),
    ({"weights": {"click": 0.0}}, "at least one weight must be above 0"),
    ({"weights": {"p_up": 1.0}}, "P.UP. has a `power` and a `floor` and no weight"),
    ({"power": math.inf}, "'power' must be a number"),
    ({"floor": 1.0}, "`floor` must be below 1. Received: 1.0"),
])
def test_numbers_that_are_none_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        Fusion(**{"form": "product", "weights": {"click": 1.0}, **values})


@pytest.mark.parametrize(("fusion", "names", "message"), [
    (FULL, ["click", "like", "p_up"], r"weights of \['hate'\], which the model does not give. .*'click', 'like'\]"),
    (FULL, ["click", "hate"], "`power` and `floor` need a model that gives P.UP."),
])
def test_a_model_that_lacks_a_score_is_refused(fusion, names, message):
    with pytest.raises(UserError, match=message):
        fusion.checked(names)
    with pytest.raises(UserError, match=message):
        FusionTable(fusion, NEGATIVE, names)


def test_files(tmp_path):
    FULL.save(tmp_path / "fusion.json")
    assert Fusion.load(tmp_path / "fusion.json") == FULL
    (tmp_path / "short.json").write_text('{"form": "sum", "weights": {"click": 1}}')
    assert Fusion.load(tmp_path / "short.json") == Fusion("sum", {"click": 1})
    for text in ('[]', '{"form": "sum"}', '{"form": "sum", "weights": {"click": 1}, "pover": 2}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(UserError, match="bad.json must have `form` and `weights`"):
            Fusion.load(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_text('{"form": "sum", "weights": {"click": -1}}')
    with pytest.raises(UserError, match="bad.json: fusion: 'click'"):
        Fusion.load(tmp_path / "bad.json")


class Served(tf.Module):
    """A model that returns the scores that it is given, and the fused one."""

    def __init__(self, fusion):
        super().__init__()
        self.fusion = FusionTable(fusion, NEGATIVE, NAMES)

    def score(self, **given):
        return {"fused": self.fusion(given)}


@pytest.fixture
def served(tmp_path):
    """A directory with a version, in which `FULL` is the fusion."""
    model = Served(FULL)
    specs = {name: tf.TensorSpec([None], tf.float32, name) for name in NAMES}
    signature = tf.function(model.score, autograph=False).get_concrete_function(**specs)
    tf.saved_model.save(model, str(tmp_path / "served" / "1"), signatures=signature)
    return tmp_path / "served"


LOADERS = """
import json, sys, tensorflow as tf
scores = json.loads(sys.argv[1])
for version in sys.argv[2:]:
    signature = tf.saved_model.load(version).signatures["serving_default"]
    print(signature(**{k: tf.constant(v) for k, v in scores.items()})["fused"].numpy().tolist())
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], version).signature_def["serving_default"]
        feed = {signature.inputs[k].name: v for k, v in scores.items()}
        print(session.run(signature.outputs["fused"].name, feed).tolist())
"""


def test_an_edited_asset_changes_the_scores_in_a_process_that_did_not_write_it(served):
    edited = shutil.copytree(served / "1", served / "2")
    write_asset(edited / "assets" / "fusion.tsv", read_asset(edited / "assets" / "fusion.tsv") | {
        "form": 0.0, "weight/click": 0.0, "weight/like": 4.0, "power": 0.0, "floor": 0.0,
    })
    command = [sys.executable, "-c", LOADERS, json.dumps(SCORES), served / "1", edited]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, after = FULL(scores(), NEGATIVE), [4 * 0.1 + 3 * 0.8, 4 * 0.2 + 3 * 0.5]
    found = [json.loads(line) for line in done.stdout.splitlines()[-4:]]
    np.testing.assert_allclose(found, [before, before, after, after], rtol=1e-6)


def test_the_asset_says_all_that_can_be_weighed(served):
    assert (served / "1" / "assets" / "fusion.tsv").read_text() == (
        "form\t1.0\npower\t0.5\nfloor\t0.3\n"
        "weight/click\t2.0\nweight/like\t0.0\nweight/hate\t3.0\nnegative/hate\t1.0\n"
    )


def test_reweigh_makes_the_next_version_and_leaves_the_first(served):
    (served / "1" / "assets.extra").mkdir()
    (served / "1" / "assets.extra" / "warm").write_text("up")
    fusion = Fusion("sum", {"like": 1.0, "hate": 1.0})
    target = reweigh(served, fusion)
    assert target == served / "2" and sorted(p.name for p in served.iterdir()) == ["1", "2"]
    assert read_asset(served / "1" / "assets" / "fusion.tsv") == FULL.asset(NEGATIVE, NAMES)
    assert read_asset(target / "assets" / "fusion.tsv") == fusion.asset(NEGATIVE, NAMES)
    assert (target / "assets.extra" / "warm").read_text() == "up"
    signature = tf.saved_model.load(str(target)).signatures["serving_default"]
    np.testing.assert_allclose(signature(**scores())["fused"], [0.1 + 0.8, 0.2 + 0.5], rtol=1e-6)
    assert read_asset(reweigh(served, FULL, version=1) / "assets" / "fusion.tsv") == FULL.asset(NEGATIVE, NAMES)


def test_reweigh_refuses_what_the_model_cannot(served):
    with pytest.raises(UserError, match=r"weights of \['share'\].*'click', 'like', 'hate'\]"):
        reweigh(served, Fusion("sum", {"share": 1.0}))
    with pytest.raises(UserError, match=r"Received: 7. Versions there: \[1\]"):
        reweigh(served, FULL, version=7)
    with pytest.raises(UserError, match="Received: the newest"):
        reweigh(served / "nowhere", FULL)
    (served / "1" / "assets" / "fusion.tsv").write_text("form\tproduct\n")
    with pytest.raises(UserError, match="a key, a tab and a number on each line. Received: 'form.tproduct'"):
        reweigh(served, FULL)
    (served / "1" / "assets" / "fusion.tsv").unlink()
    with pytest.raises(UserError, match="was exported without a fused score"):
        reweigh(served, FULL)
    assert [p.name for p in served.iterdir()] == ["1"]


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
    ("ndcg/like", "ndcg/like is undefined: no user"), ("rate/click", "rate/click is the same in every order"),
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


@pytest.mark.parametrize("form", ["product", "sum"])
def test_the_search_finds_the_best_ranking(form):
    day = known_day("ndcg/click", "rate/hate")
    free = [Constraint.parse("rate/hate<=1", SCHEMA)]
    best, trials = search(day, Space(day, form, ["click", "like", "hate"]), one("like"), day.goals[0], free, 1500)
    assert best.values[day.goals[0]] == pytest.approx(1)
    assert trials[0].fusion == one("like") and len(trials) <= 1501
    assert best.values == day.measure(best.fusion)


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
    with pytest.raises(UserError, match=r"none of \d+ fusions keeps rate/click <= 0.01. The nearest: ndcg/click 0"):
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
    with pytest.raises(UserError, match=r"weights of \['share'\]"):
        Space(day, "sum", ["share"])


def test_the_front_is_of_points_that_no_other_beats():
    cost, value = np.array([3.0, 1.0, 2.0, 2.0, 1.0]), np.array([0.8, 0.5, 0.4, 0.8, 0.2])
    assert front_of(cost, value).tolist() == [1, 3]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small DLEN on a simulated log: the flags that name the model and the data."""
    home = tmp_path_factory.mktemp("fused")
    simulate.write(simulate.World(rows=3000, seed=2, days=4), str(home / "data"))
    sizes = {"features": FEW, "experts": 2, "expert_units": (8,), "tower_units": (4,), "latent_units": (4,)}
    config = Config("small", ModelConfig("mmoe", head="dlen", **sizes), TrainConfig(batch_size=128, bootstrap=0))
    train(config, home / "data", home / "model", "20240101..20240102", "20240103")
    return [f"--model_dir={home / 'model'}", f"--data_dir={home / 'data'}"]


def fuse(trained, *more):
    return command(
        "dlen_cam2.cli.search_fusion", *trained, "--day=20240103", "--measure_day=20240104",
        "--maximize=ndcg/long_view",
        "--trials=100", "--top=2", *more,
    )


def test_the_command_writes_its_directory(trained, tmp_path):
    out = tmp_path / "out"
    done = fuse(trained, "--subject_to=rate/like<=baseline", "--subject_to=ndcg/click>=0.1", f"--output={out}")
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(p.name for p in out.iterdir()) == ["fusion.json", "fusion.md", "trade_off.png", "trials.csv"]
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


@pytest.mark.parametrize(("flag", "message"), [
    ("--subject_to=ndcg/click>=1.0", "none of .* fusions keeps .*The nearest: "),
    ("--measure_day=20240102", "two days that the model was not trained on"),
    ("--scores=share", "which the model does not give"),
])
def test_nothing_is_written_on_an_error(trained, tmp_path, flag, message):
    done = fuse(trained, "--subject_to=rate/click>=0", f"--output={tmp_path}/out", flag)
    assert done.returncode == 1 and not any(tmp_path.iterdir())
    assert re.search(f"^error: .*{message}", done.stderr, re.MULTILINE), done.stderr[-2000:]
