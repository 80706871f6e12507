"""Fusion: the formula by hand, its files, and its asset in processes that did not write it."""

import json
import math
import shutil

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dlen_cam2.schema import Task
from dlen_cam2.serving.fusion import Fusion, FusionTable, read_asset, reweigh, write_asset
from dlen_cam2.utils.errors import UserError
from tests.support import processes
from tests.support.fusions import NEGATIVE, TASKS

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
    ({"weights": [1.0]}, "`weights` must map scores to numbers"),
    ({"weights": {"click": -1.0}}, "'click' must be a number from 0 to 1e.09. Received: -1.0"),
    ({"weights": {"click": "2"}}, "Received: '2'"),
    ({"weights": {"click": True}}, "Received: True"),
    ({"weights": {"click": math.nan}}, "Received: nan"),
    ({"weights": {"click": 0.0}}, "at least one weight must be above 0"),
    ({"weights": {"p_up": 1.0}}, "P.UP. has a `power` and a `floor`, not a weight"),
    ({"power": math.inf}, "'power' must be a number"),
    ({"floor": 1.0}, "`floor` must be below 1. Received: 1.0"),
])
def test_numbers_that_are_none_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        Fusion(**{"form": "product", "weights": {"click": 1.0}, **values})


@pytest.mark.parametrize(("fusion", "names", "message"), [
    (FULL, ["click", "like", "p_up"], r"must name scores of the model. Received: \['hate'\]. .*'click', 'like'\]"),
    (FULL, ["click", "hate"], "`power` and `floor` need a model with a score P.UP."),
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


@pytest.mark.slow
def test_an_edited_asset_changes_the_scores_in_a_process_that_did_not_write_it(served):
    edited = shutil.copytree(served / "1", served / "2")
    write_asset(edited / "assets" / "fusion.tsv", read_asset(edited / "assets" / "fusion.tsv") | {
        "form": 0.0, "weight/click": 0.0, "weight/like": 4.0, "power": 0.0, "floor": 0.0,
    })
    done = processes.run(["-c", LOADERS, json.dumps(SCORES), served / "1", edited])
    assert done.returncode == 0, done.stderr[-2000:]
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
    with pytest.raises(UserError, match=r"Received: \['share'\].*'click', 'like', 'hate'\]"):
        reweigh(served, Fusion("sum", {"share": 1.0}))
    with pytest.raises(UserError, match=r"Received: 7. Known: \[1\]"):
        reweigh(served, FULL, version=7)
    with pytest.raises(UserError, match="Received: the newest"):
        reweigh(served / "nowhere", FULL)
    (served / "1" / "assets" / "fusion.tsv").write_text("form\tproduct\n")
    with pytest.raises(UserError, match="a key, a tab and a number in each line. Received: 'form.tproduct'"):
        reweigh(served, FULL)
    (served / "1" / "assets" / "fusion.tsv").unlink()
    with pytest.raises(UserError, match="must have a fused score: export the model again"):
        reweigh(served, FULL)
    assert [p.name for p in served.iterdir()] == ["1"]


@pytest.mark.parametrize("number", [int, np.float64])
def test_whole_numbers_and_numpys_are_numbers(tmp_path, number):
    given = Fusion("sum", {"click": number(2), "hate": number(3)}, number(1), ranges={"like": (number(0), number(4))})
    plain = Fusion("sum", {"click": 2.0, "hate": 3.0}, 1.0, ranges={"like": (0.0, 4.0)})
    np.testing.assert_array_equal(given(scores(), NEGATIVE), plain(scores(), NEGATIVE))
    write_asset(tmp_path / "fusion.tsv", given.asset(NEGATIVE, NAMES))
    assert read_asset(tmp_path / "fusion.tsv") == plain.asset(NEGATIVE, NAMES)


def test_a_range_may_be_of_microseconds():
    usual = Fusion.default([Task("watch", kind="regression", mean=8e8, std=3e8)])
    np.testing.assert_allclose(usual({"watch": tf.constant([8e8, 2e9])}, []), [0.5, 1.0], rtol=1e-6)
    for wrong in ((0.0, 1e38), (0.0, 1e-40), (1.0, 1.0)):
        with pytest.raises(UserError, match="within ±1e37 with low < high"):
            Fusion("sum", {"watch": 1.0}, ranges={"watch": wrong})
