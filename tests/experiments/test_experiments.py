"""Tables of models: what is compared with what, the baselines, and whole suites on small logs."""

import json
import sys

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from dlen_cam2 import metrics
from dlen_cam2.cli import run_suite
from dlen_cam2.config import check, replaced
from dlen_cam2.evaluation.bootstrap import over_seeds
from dlen_cam2.experiments import comparison, networks, pages, tables, tuned, zoo
from dlen_cam2.experiments.baselines import boosted_trees
from dlen_cam2.experiments.baselines import constant as constant_rate
from dlen_cam2.experiments.papers import dlen, dlen_truth, ple, task_correlation
from dlen_cam2.experiments.rows import COSTS, Log, Measured, Row
from dlen_cam2.models import build
from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.utils.errors import UserError
from pipelines import census
from pipelines.writer.dataset import write_dataset
from tests.support.builders import tiny_config, tiny_schema

pytestmark = pytest.mark.slow

TASKS = ("click", "buy")


# === What is compared with what ===

def measured(models, seeds=3, rows=600, tasks=TASKS):
    """Random predictions, better for models with a larger weight of the truth."""
    rng = np.random.default_rng(0)
    users = rng.integers(0, 60, rows)
    truth = rng.random((rows, len(tasks)))
    mask = np.ones((rows, len(tasks)))
    mask[: rows // 3, 1:] = 0
    noise = {m: rng.random((seeds, rows, len(tasks))) for m in models}
    return Measured(
        tasks, (rng.random((rows, len(tasks))) < truth).astype(float), mask, users,
        {m: np.clip(w * truth + (1 - w) * noise[m], 0.01, 0.99) for m, w in models.items()},
        {m: {c: np.full(seeds, 7.0) for c in COSTS} for m in models}, {m: {} for m in models},
    )


def test_values_are_the_metrics_of_each_tasks_own_rows():
    rows = measured({"MMOE": 0.5, "better": 0.9})
    found = comparison.compare(rows, "MMOE", "better", resamples=20)
    k = rows.mask[:, 1] == 1
    for model, p in rows.probabilities.items():
        for seed in range(3):
            arguments = rows.labels[k, 1], p[seed][k, 1]
            wanted = {"auc": metrics.auc(*arguments), "ne": metrics.normalized_entropy(*arguments),
                      "calibration": metrics.calibration(*arguments),
                      "gauc": metrics.gauc(*arguments, rows.users[k])[0]}
            for name, value in wanted.items():
                assert found.level(model, "buy", name)[seed] == pytest.approx(value, rel=1e-12)


def test_differences_are_paired_and_gains_are_above_0_where_it_is_better():
    found = comparison.compare(measured({"MMOE": 0.5, "better": 0.9, "same": 0.5}), "MMOE", "MMOE", resamples=100)
    for task in TASKS:
        value, low, high = found.difference("better", "MMOE", task, "auc")
        assert value == pytest.approx(
            found.level("better", task, "auc").mean() - found.level("MMOE", task, "auc").mean())
        assert 0 < low < value < high
        assert found.difference("MMOE", "MMOE", task, "auc") == (0.0, 0.0, 0.0)
        assert found.gain("better", task, "auc") == found.difference("better", "MMOE", task, "auc")
        assert found.gain("better", task, "ne")[0] == -found.difference("better", "MMOE", task, "ne")[0] > 0


def test_over_seeds_is_students_interval():
    assert over_seeds(np.array([1.0, 2.0, 3.0])) == pytest.approx((2.0, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    assert over_seeds(np.array([2.0]))[0] == 2.0 and np.isnan(over_seeds(np.array([2.0]))[1])


def test_dlens_page(tmp_path, drawn):
    models = {zoo.CONSTANT: 0.0, zoo.SINGLE: 0.6, "MMOE": 0.5, "PLE": 0.6, "MMOE-DLEN": 0.8, "PLE-DLEN": 0.4}
    rows = measured(models, tasks=("click", "like"))
    rows.costs[zoo.CONSTANT]["flops"][:] = 0
    found = comparison.compare(rows, "MMOE", zoo.SINGLE, resamples=50)
    asked = tables.Asked(tiny_config(), Log("nowhere", ("1", "2", "3"), ("4",)), tmp_path, 3)
    dlen.write(asked, tables.Table(found))
    results, text = json.loads((tmp_path / pages.RESULTS).read_text()), (tmp_path / pages.REPORT).read_text()
    assert {p.name for p in tmp_path.iterdir()} == {
        "report.html", "report.md", "results.json", "differences.png", "mtl_gain.png"}
    assert results["dlen_on_each_trunk"]["MMOE-DLEN"]["click"]["auc"][0] > 0 > (
        results["dlen_on_each_trunk"]["PLE-DLEN"]["click"]["auc"][0])
    assert set(results["mtl_gain"]) == {"MMOE", "PLE", "MMOE-DLEN", "PLE-DLEN"}  # neither of rates nor of itself
    assert results["rows"] == {"click": 600, "like": 400}
    assert "trained on 1..3, measured on 4, 3 seeds" in text and "on other data" in text


# === The rows ===

def test_operations_of_a_network():
    """2 for each weight of a matrix, which a row meets once, 1 for a bias, 5 for an entry of a softmax."""
    def flops(**model):
        return networks.flops(build(tiny_config(trunk="mmoe", **model).model, tiny_schema()))

    # A fourth expert: its layers 22 x 8 and 8 x 6, an entry more of three gates, and its share of three mixtures.
    assert flops(experts=4) - flops() == 2 * (22 * 8 + 8 * 6) + 8 + 6 + 3 * (2 * 22 + 5) + 2 * 3 * 6
    # A fifth unit of the towers, and its weights in the read-outs: one product for all tasks, with zeros where the unit
    # is of another one, which a multiplication makes.
    assert flops(tower_units=(5,)) - flops() == 3 * (2 * 6 + 1) + 3 * 3 * (2 + 1)


def test_trees_see_the_first_value_of_a_list_and_its_length():
    schema = tiny_schema().select(features=["history", "ctr"])
    features = {"user_content": {"history": tf.constant([[4, 0, -1], [-1, -1, -1]])},
                "item_statistical": {"ctr": tf.constant([0.5, 0.25])}}
    assert boosted_trees.columns(features, schema).tolist() == [[4, 2, 0.5], [-1, 0, 0.25]]


def test_without_lightgbm(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(UserError, match=r"need LightGBM: pip install 'dlen_cam2\[experiments\]'"):
        boosted_trees.library()


def test_a_day_is_trained_on_or_measured():
    with pytest.raises(UserError, match=r"Received in both: \['2'\]"):
        Log("nowhere", ("1", "2"), ("2", "3"))


# === Whole suites ===

@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Clicks that follow x, and purchases among the clicked rows that follow z."""
    directory = tmp_path_factory.mktemp("shop") / "data"
    rng = np.random.default_rng(1)
    x, z = rng.normal(size=(2, 1800)).astype(np.float32)
    click = rng.random(1800) < 1 / (1 + np.exp(-2 * x))
    table = pa.table({
        "user": rng.integers(0, 50, 1800), "x": x, "z": z, "click": click.astype(np.int64),
        "buy": (click & (rng.random(1800) < 1 / (1 + np.exp(1 - 2 * z)))).astype(np.int64),
    })
    schema = Schema(
        "shop", (Feature("x", "float", "user", "content"), Feature("z", "float", "item", "content")),
        (Task("click"), Task("buy", mask="click")), keys={"user": "user"},
    )
    parts = (("train", table.slice(0, 1000)), ("validation", table.slice(1000, 300)), ("test", table.slice(1300)))
    write_dataset(str(directory), schema, parts, {}, train_days="train")
    return str(directory)


def config():
    return replaced(tiny_config(), {"train.batch_size": 32, "train.learning_rate": 0.01, "train.epochs": 2})


def test_the_mtl_suite(shop, tmp_path, capsys, monkeypatch):
    networks = ["ESMM", "MMOE"]
    monkeypatch.setattr(zoo, "without", lambda head: networks)
    asked = tables.Asked(config(), Log(shop, ("train",), ("test",)), tmp_path, 1, processes=1)
    ple.run(asked)
    results = json.loads((tmp_path / pages.RESULTS).read_text())
    assert list(results["levels"]) == [zoo.CONSTANT, zoo.TREES, zoo.SINGLE, *networks]
    assert results["levels"][zoo.CONSTANT]["click"]["auc"] == [0.5]
    assert results["rows"]["click"] == 500 > results["rows"]["buy"] == results["positives"]["click"]
    for model in (zoo.TREES, zoo.SINGLE, *networks):
        for task in TASKS:
            assert results["levels"][model][task]["auc"][0] > 0.6, (model, task)
    assert 0.5 < results["levels"]["ESMM"]["buy"]["calibration"][0] < 2
    single, bottom = (results["costs"][m]["parameters"][0] for m in (zoo.SINGLE, "ESMM"))
    assert bottom < single  # two networks, and one with a shared bottom
    assert all(results["costs"][m]["rows_per_second"][0] > 0 for m in (zoo.TREES, zoo.SINGLE, *networks))
    text = (tmp_path / pages.REPORT).read_text()
    assert "`ESMM` is built over the shared bottom" in text and "The papers' figures" not in text

    capsys.readouterr()
    ple.run(asked)  # the cells are kept, and say the same again
    assert "0 cells to train, 6 finished" in capsys.readouterr().out
    assert json.loads((tmp_path / pages.RESULTS).read_text()) == results


def test_census_pages_have_the_papers_figures_of_their_pair():
    income, education = ("\n".join(ple.papers(census.PAIRS[pair])) for pair in ("income", "education"))
    assert "| .9522 | .9945 |" in income and "wrong sign" in income
    assert "| .8826 | .9924 |" in education and ".9522" not in education


def test_each_network_gets_a_search_of_the_same_budget(shop, tmp_path, capsys):
    log = Log(shop, ("train", "validation"), ("test",))
    constant, network = Row(zoo.CONSTANT, {"": config()}, constant_rate.train), zoo.network(config(), "MMOE")
    found, (search,) = tuned.tuned([constant, network], log, ("validation",), 1, tmp_path, processes=1)
    assert found[0] is constant  # no network
    assert (search.model, search.task, search.failed) == ("MMOE", "", 0) and search.best <= search.configured
    assert found[1].configs[""] == replaced(network.configs[""], search.values)
    assert tuned.tuned([network], log, ("validation",), 1, tmp_path, processes=1)[1] == [search]
    assert "tuning MMOE with 1 trials" in capsys.readouterr().out
    section = tuned.section([search], 1, ("validation",))
    assert "tuned with 1 random trials" in section and f"| {search.configured:.4f} |" in section


@pytest.mark.parametrize("train, validation, message", [
    (("train",), ("test",), r"may not be measured. Received: \['test'\]"),
    (("train",), ("train",), "needs days to train on, and other days to validate on"),
    (("train",), (), "needs days to train on, and other days to validate on"),
])
def test_days_to_choose_hyperparameters_by(shop, tmp_path, train, validation, message):
    with pytest.raises(UserError, match=message):
        tuned.tuned([], Log(shop, train, ("test",)), validation, 1, tmp_path)


def test_the_correlation_sweep(tmp_path, monkeypatch, drawn):
    monkeypatch.setattr(task_correlation, "CORRELATIONS", (0.0, 1.0))
    monkeypatch.setattr(task_correlation, "NETWORKS", ("MMOE",))
    sweep = task_correlation.run(replaced(config(), {"train.epochs": 1}), tmp_path, 1, 400, processes=1)
    assert sweep.labels[1.0] > 0.9 > 0.4 > abs(sweep.labels[0.0])
    assert np.isfinite([e[0] for by_p in sweep.gains["auc"].values() for e in by_p.values()]).all()
    assert "| MMOE |" in "\n".join(task_correlation.section(sweep, 1, 400))
    task_correlation.draw(tmp_path / "sweep.png", sweep)
    assert (tmp_path / "sweep.png").stat().st_size > 0


def test_dlens_cap_and_story(tmp_path, monkeypatch, drawn):
    monkeypatch.setattr(dlen_truth, "ALPHAS", (None,))
    monkeypatch.setattr(dlen_truth, "BROKEN", (0.0, 1.0))
    small = replaced(config(), {"model.features": ("user_topics", "topics"), "model.tasks": ("click", "like"),
                                "train.epochs": 1})
    caps, told = dlen_truth.run(small, tmp_path, 1, 1500, processes=1)
    assert list(caps.use) == ["uncapped"] and all(0 < e[0] < 1 for e in caps.use["uncapped"].values())
    assert told.lost["error"][0.0] == (0.0, 0.0, 0.0) and np.isfinite(told.changes["ne"][1.0]).all()
    assert "uncapped" in "\n".join(dlen_truth.section(caps, told, 1, 1500))
    dlen_truth.draw(tmp_path / "story.png", caps, told)
    assert (tmp_path / "story.png").stat().st_size > 0


def test_every_default_config_is_sound():
    for by_name in run_suite.CONFIGS.values():
        for make in by_name.values():
            check(make())
