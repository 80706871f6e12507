"""The simulator: reproducible, true to its truth, and silent about it."""

import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from dlen_cam2.data.manifest import TRUTH
from dlen_cam2.schema import pbtxt
from dlen_cam2.utils.errors import UserError
from pipelines import simulate
from pipelines.options import SNAPSHOTS
from pipelines.simulation.world import DAY_MS, TASKS, World

import tensorflow as tf  # isort: skip

SMALL = World(rows=1200, seed=3, days=3)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    output = tmp_path_factory.mktemp("simulated") / "out"
    return output, simulate.write(SMALL, str(output))


@pytest.fixture(scope="module")
def large():
    """Columns of the exposures and of the truth as arrays, without the SQL and the writing."""
    feed, rows = simulate.simulate(World(rows=40_000, seed=1)), slice(0, 40_000)
    exposures, truth = feed.exposures(rows).drop_columns(["topics", "user_topics"]), feed.truth(rows)
    return tuple({n: table.column(n).to_numpy() for n in table.column_names} for table in (exposures, truth))


def contents(directory):
    """What every file holds by its path: its bytes, or of a snapshot's table, whose rows have no order, its rows."""
    return {
        str(p.relative_to(directory)): sorted(map(repr, pq.read_table(p).to_pylist()))
        if SNAPSHOTS in p.parts and p.suffix == ".parquet" else p.read_bytes()
        for p in directory.rglob("*") if p.is_file()
    }


def records(directory):
    return [tf.train.Example.FromString(r.numpy()).features.feature
            for p in sorted(directory.rglob("*.tfrecord*")) for r in tf.data.TFRecordDataset(str(p))]


@pytest.mark.slow
def test_the_same_seed_writes_the_same_bytes_and_another_seed_does_not(written, tmp_path):
    output, _ = written
    simulate.write(SMALL, str(tmp_path / "again"))
    first, again = contents(output), contents(tmp_path / "again")
    # A day and its random exposures have a shard, counts and a manifest each, and the day a snapshot: its tables, and
    # where it ends.
    tables = json.loads((output / SNAPSHOTS / "20240101/boundary.json").read_text())["tables"]
    assert {"kept_counts_0", "kept_listed_0", "kept_hours", "tail"} <= set(tables)
    assert first.keys() == again.keys() and len(first) == SMALL.days * (2 * 3 + len(tables) + 1) + 5
    different = [name for name in first if first[name] != again[name]]
    assert different == []
    simulate.write(dataclasses.replace(SMALL, seed=4), str(tmp_path / "other"))
    other = contents(tmp_path / "other")
    same = [name for name in first if first[name] == other.get(name)]
    assert not [name for name in same if "tfrecord" in name or name == TRUTH]


def test_rows_add_up_and_parameters_and_seed_are_recorded(written):
    output, statistics = written
    assert json.loads((output / "statistics.json").read_text()) == statistics
    assert sum(day["rows"] for day in statistics["days"].values()) == SMALL.rows == len(records(output))
    assert statistics["source"]["world"] == dataclasses.asdict(SMALL)
    assert statistics["source"]["pipeline"] == "simulate"
    days = ["20240101", "20240102", "20240103"]
    assert list(statistics["days"]) == sorted([*days, *(f"{d}_random" for d in days)])
    truth = pq.read_table(output / TRUTH)
    splits, counts = np.unique(truth.column("split").to_numpy(), return_counts=True)
    assert dict(zip(splits, counts, strict=True)) == {day: s["rows"] for day, s in statistics["days"].items()}


def test_no_truth_in_the_schema_or_the_records_but_it_joins_by_time(written):
    output, _ = written
    truth = pq.read_table(output / TRUTH)
    schema = pbtxt.load(output)
    assert set(truth.column_names) & set(schema.columns) == {"time_ms"}
    times = truth.column("time_ms").to_pylist()
    assert len(set(times)) == SMALL.rows
    found = records(output)
    assert {name for f in found for name in f} == set(schema.columns)
    assert sorted(f["time_ms"].int64_list.value[0] for f in found) == sorted(times)
    # The row of the same time is the row of the same exposure: labels follow their own probabilities far better.
    by_time = dict(zip(times, truth.column("p_up").to_pylist(), strict=True))
    p = np.array([by_time[f["time_ms"].int64_list.value[0]] for f in found])
    click = np.array([f["click"].int64_list.value[0] for f in found])
    assert p[click == 1].mean() - p[click == 0].mean() > 0.1
    # Exposures of the log stand in time order within a split.
    for path in output.rglob("*.tfrecord*"):
        at = [tf.train.Example.FromString(r.numpy()).features.feature["time_ms"].int64_list.value[0]
              for r in tf.data.TFRecordDataset(str(path))]
        assert at == sorted(at)


def test_truth_is_the_mixture_over_the_preference(large):
    _, truth = large
    for task in TASKS:
        up, up_not, p = truth[f"p_{task}_given_up"], truth[f"p_{task}_given_not_up"], truth["p_up"]
        np.testing.assert_allclose(truth[f"p_{task}"], up * p + up_not * (1 - p), rtol=1e-12)
        for values in (up, up_not, p):
            assert 0 <= values.min() and values.max() <= 1


@pytest.mark.parametrize("task", [t for t in TASKS if t != "long_view"])
def test_without_preference_a_behaviour_stays_below_the_cap(large, task):
    _, truth = large
    assert truth[f"p_{task}_given_not_up"].max() < World(1, 0).cap * truth[f"p_{task}"].mean()


def test_without_preference_a_long_view_is_rare(large):
    _, truth = large  # its probability comes from the watch time, so the cap holds on the whole, not row by row
    assert truth["p_long_view_given_not_up"].mean() < World(1, 0).cap * truth["p_long_view"].mean()


@pytest.mark.parametrize("task", [*TASKS, "preferred"])
def test_labels_follow_their_probabilities(large, task):
    exposures, truth = large
    label = truth["preferred"] if task == "preferred" else exposures[task]
    p = truth["p_up"] if task == "preferred" else truth[f"p_{task}"]
    assert set(np.unique(label)) == {0, 1}
    groups = {"all": np.ones(len(p), bool), "likely": p > np.quantile(p, 0.8), "unlikely": p < np.quantile(p, 0.5),
              "random": np.char.endswith(exposures["split"].astype(str), "_random")}
    for name, rows in groups.items():
        z = (label[rows] - p[rows]).sum() / np.sqrt((p[rows] * (1 - p[rows])).sum())
        assert abs(z) < 4.5, (name, z)


@pytest.mark.parametrize("task", TASKS)
def test_labels_follow_the_probabilities_given_the_preference(large, task):
    exposures, truth = large
    for given, column in ((1, "given_up"), (0, "given_not_up")):
        rows = truth["preferred"] == given
        label, p = exposures[task][rows], truth[f"p_{task}_{column}"][rows]
        z = (label - p).sum() / np.sqrt((p * (1 - p)).sum())
        assert abs(z) < 4.5, (column, z)


def test_watch_time_is_the_long_view(large):
    exposures, _ = large
    seconds, watch = exposures["duration_s"], exposures["play_s"]
    assert (watch <= seconds).all() and (watch > 0).all()
    assert (exposures["long_view"] == (watch >= np.minimum(seconds, 18))).all()


def test_the_policy_favours_popular_and_relevant_items_and_the_random_log_does_not(large):
    exposures, truth = large
    random = np.char.endswith(exposures["split"].astype(str), "_random")
    share = World(1, 0).random_share
    assert abs(random.mean() - share) < 5 * np.sqrt(share * (1 - share) / len(random))
    for column in ("popularity", "relevance"):
        logged, shown = truth[column][~random], truth[column][random]
        error = np.sqrt(logged.var() / len(logged) + shown.var() / len(shown))
        assert logged.mean() - shown.mean() > 8 * error, column
    items = exposures["video_id"].max() + 1
    counts = np.bincount(exposures["video_id"][~random], minlength=items)
    popularity = np.zeros(items)
    popularity[exposures["video_id"]] = truth["popularity"]
    assert stats.spearmanr(counts, popularity).statistic > 0.4


def test_the_random_log_shows_what_is_uploaded_uniformly(large):
    exposures, truth = large
    item, time = exposures["video_id"], (truth["time_ms"] - truth["time_ms"].min() // DAY_MS * DAY_MS) / DAY_MS
    uploaded = np.full(World(len(item), 0).items, np.inf)
    np.minimum.at(uploaded, item, time - exposures["video_age_days"])
    assert np.isfinite(uploaded).all()
    assert (exposures["video_age_days"] >= 0).all() and (time >= uploaded[item] - 1e-9).all()
    random = np.char.endswith(exposures["split"].astype(str), "_random")
    available = (uploaded[None, :] <= time[random, None] + 1e-9)
    expected = (available / available.sum(axis=1, keepdims=True)).sum(axis=0)
    counts = np.bincount(item[random], minlength=len(uploaded))
    common = expected > 5
    assert common.mean() > 0.8
    z2 = ((counts - expected) ** 2 / expected)[common].sum()
    assert stats.chi2.sf(z2, common.sum()) > 1e-4
    logged = np.bincount(item[~random], minlength=len(uploaded)) * random.sum() / (~random).sum()
    assert stats.chi2.sf(((logged - expected) ** 2 / expected)[common].sum(), common.sum()) < 1e-9  # the test can fail


# === The story broken ===

def test_a_broken_story_violates_the_cap_and_shows_the_same_things():
    worlds = {b: simulate.simulate(dataclasses.replace(SMALL, rows=20_000, broken=b)) for b in (0.0, 0.5, 1.0)}
    whole = slice(0, 20_000)
    truths = {b: {n: c.to_numpy() for n, c in zip(t.column_names, t.columns, strict=True)}
              for b, t in ((b, world.truth(whole)) for b, world in worlds.items())}
    for name in ("user", "item", "time"):
        assert np.array_equal(worlds[0.0].shown[name], worlds[1.0].shown[name])
    for task in simulate.TASKS:
        given_up, given_not_up = (truths[1.0][f"p_{task}_given_{s}"] for s in ("up", "not_up"))
        np.testing.assert_allclose(given_not_up, given_up)  # preference says nothing about the behaviour
        np.testing.assert_allclose(
            truths[0.5][f"p_{task}_given_not_up"],
            (truths[0.0][f"p_{task}_given_not_up"] + truths[1.0][f"p_{task}_given_not_up"]) / 2)
        if task != "long_view":
            cap = SMALL.cap * worlds[0.0].cap_rates[task]
            assert truths[0.0][f"p_{task}_given_not_up"].max() <= cap < truths[1.0][f"p_{task}_given_not_up"].mean()
        for b, world in worlds.items():  # the truth columns stay true
            p = truths[b][f"p_{task}"]
            error = (world.response[task].mean() - p.mean()) / np.sqrt((p * (1 - p)).sum()) * len(p)
            assert abs(error) < 4, (task, b)
    with pytest.raises(UserError, match=r"--broken must be in \[0, 1\]. Received: 1.5"):
        simulate.World(100, 0, broken=1.5)
