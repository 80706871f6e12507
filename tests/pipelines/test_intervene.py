"""The intervened split: what is sampled how often, and that rows only move."""

import dataclasses
import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from dlen_cam2 import data
from dlen_cam2.schema import Feature, Schema, Task, pbtxt
from dlen_cam2.utils.errors import UserError
from pipelines import intervene, simulate
from pipelines.intervene import INTERVENED, SUFFIXES, TRAIN, VALIDATION, assign
from pipelines.writer import dataset
from tests.support.builders import command

import tensorflow as tf  # isort: skip

# Strings, lists of them, empty values, days of one row and of none; the item key is a string.
TEXT = Schema("text", (
    Feature("user", "int", "user", "content", size=5, width=2),
    Feature("video", "string", "item", "content", size=9, hashed=True, width=2),
    Feature("tags", "string", "item", "content", vocabulary=("a", "東京"), width=2, max_length=2),
    Feature("seen", "int", "user", "content", size=9, width=2, max_length=3),
    Feature("seconds", "float", "context", "context"),
), (Task("click"), Task("share", mask="shareable")), ("seconds",), {"user": "user", "item": "video", "time": "ms"})
DAYS = {"1": 40, "2": 1, "2_random": 4, "3": 23, "4": 0}


def write_text(directory, schema=TEXT):
    rng, first = np.random.default_rng(5), itertools.accumulate(DAYS.values(), initial=0)
    tables = {
        split: pa.table({
            "user": rng.integers(-1, 8, rows),
            "video": rng.choice(["x", "", "快手"], rows, p=[0.7, 0.1, 0.2]).tolist(),
            "tags": pa.array([["東京", "a", "", "q"][:n] for n in rng.integers(0, 5, rows)], pa.list_(pa.string())),
            "seen": pa.array([[5, -1, 2**40][:n] for n in rng.integers(0, 4, rows)], pa.list_(pa.int64())),
            "seconds": rng.uniform(0, 60, rows).astype(np.float32),
            **{name: rng.integers(0, 2, rows) for name in ("click", "share", "shareable")},
            "ms": 2**60 + start + np.arange(rows),
        }) for (split, rows), start in zip(DAYS.items(), first, strict=False)
    }
    dataset.write_dataset(directory, schema, tables.items(), {"made": "by hand"})
    return directory


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "set")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    directory = tmp_path_factory.mktemp("log") / "set"
    simulate.write(simulate.World(rows=1500, seed=1, days=3), str(directory))
    return directory


def records(directory, split):
    """The rows of a split as plain values, in their order; read without the code under test."""
    def plain(feature):
        kind = feature.WhichOneof("kind")
        return list(getattr(feature, kind).value)

    serialized = tf.data.TFRecordDataset(list(data.shards(directory, [split]).paths))
    examples = (tf.train.Example.FromString(s.numpy()).features.feature for s in serialized)
    return [{name: plain(e[name]) for name in e} for e in examples]


def files(directory, pattern="*"):
    """Every file's bytes by its path."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob(pattern) if p.is_file()}


def sizes(n):
    """Rows of the parts, in the order of their numbers."""
    return [n - round(0.1 * n) - round(0.2 * n), round(0.1 * n), round(0.2 * n)]


def run(*flags):
    return command("pipelines.intervene", *flags)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 8, 13, 15, 25, 99, 1000, 10_007])
def test_sizes_are_exact(n):
    parts = assign(np.random.default_rng(n).integers(0, 7, n), seed=3)
    assert np.bincount(parts, minlength=3).tolist() == sizes(n)


def test_a_quarter_of_what_is_sampled_trains():
    """4,000 of 10,000 rows have an item of their own, so all of them but about ln 4000 are sampled."""
    rare = assign(np.concatenate([np.zeros(6000, int), 1 + np.arange(4000)]), 0)[6000:]
    np.testing.assert_allclose(np.bincount(rare), [1000, 1000, 2000], atol=30)


def test_parts_depend_on_the_seed_and_on_nothing_else():
    items = np.random.default_rng(8).integers(0, 30, 500)
    np.testing.assert_array_equal(assign(items, 1), assign(items, 1))
    np.testing.assert_array_equal(assign(items, 1), assign(1000 - items, 1))  # an id is a name, not a number
    assert (assign(items, 1) != assign(items, 2)).mean() > 0.2


@pytest.mark.parametrize("items,weights", [
    ([0, 0, 0, 1, 2], [1 / 3, 1 / 3, 1 / 3, 1, 1]),  # the 95th percentile is 1: no cap
    ([0] * 9 + [1], [1 / 9] * 9 + [0.6]),  # position 0.95 * 9 = 8.55 between 1/9 and 1
])
def test_a_row_is_in_a_part_as_often_as_its_weight_says(items, weights):
    """Against the sum over all orders in which rows can be drawn one after another."""
    n, sampled, seeds = len(items), round(0.4 * len(items)), 4000
    inside = np.zeros(n)
    for drawn in itertools.permutations(range(n), sampled):
        left, p = sum(weights), 1.0
        for row in drawn:
            p, left = p * weights[row] / left, left - weights[row]
        inside[list(drawn)] += p
    assert inside.sum() == pytest.approx(sampled)
    parts = np.stack([assign(np.array(items), seed) for seed in range(seeds)])
    for held_out in ([VALIDATION], [INTERVENED], [VALIDATION, INTERVENED]):
        p = inside * sum(sizes(n)[part] for part in held_out) / sampled  # each part has its share of every row
        z = (np.isin(parts, held_out).sum(axis=0) - seeds * p) / np.sqrt(seeds * p * (1 - p) + 1e-9)
        assert np.abs(z).max() < 4.5, (held_out, z)


def zipf(exponent, items, rows=20_000):
    p = 1 / np.arange(1, items + 1) ** exponent
    return np.random.default_rng(77).choice(items, rows, p=p / p.sum())


def test_popularity_decides_far_less_in_the_test():
    items = zipf(0.5, 300)
    parts, popularity = assign(items, 0), np.bincount(items)
    train, validation, test = (
        stats.spearmanr(popularity, np.bincount(items[parts == part], minlength=300)).statistic for part in SUFFIXES
    )
    assert train > 0.9 and validation < 0.6 and test < 0.6


def test_popular_items_lose_their_share_where_most_items_are_rare():
    items = zipf(1.0, 500)
    parts = assign(items, 0)
    train, validation, test = ((items[parts == part] < 50).mean() for part in SUFFIXES)
    assert train > 0.7 and validation < 0.4 and test < 0.4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["log", "text"])
def test_rows_move_and_stay_what_they_are(name, request, tmp_path):
    source, output = request.getfixturevalue(name), tmp_path / "out"
    schema = pbtxt.load(source)
    time, item = schema.keys["time"], schema.keys["item"]
    items, parts = intervene.write(str(source), str(output), seed=2)
    assert pbtxt.load(output) == schema
    days = [d for d in data.statistics(source)["days"] if d.isdigit()]
    written = data.statistics(output)["days"]
    read, start = [], 0
    for day in days:
        rows = records(source, day)
        read += rows
        part = parts[start : start + len(rows)]
        start += len(rows)
        for value, suffix in SUFFIXES.items():
            wanted = [row for row, p in zip(rows, part, strict=True) if p == value]
            assert (day + suffix in written) == bool(wanted)
            assert not wanted or records(output, day + suffix) == wanted
    assert len({row[time][0] for row in read}) == len(read) == len(parts) == sum(s["rows"] for s in written.values())
    assert {split.partition("_")[0] for split in written} <= set(days)
    np.testing.assert_array_equal(parts, assign(np.array([row[item][0] for row in read]), seed=2))
    assert len({(row[item][0], code) for row, code in zip(read, items, strict=True)}) == len(set(items))


@pytest.mark.slow
def test_batches_of_the_first_pass_and_shards_keep_the_order(log, tmp_path, monkeypatch):
    intervene.write(str(log), str(tmp_path / "whole"), seed=0)
    monkeypatch.setattr(intervene, "_BATCH", 7)
    intervene.write(str(log), str(tmp_path / "batches"), seed=0)
    whole, batches = (files(tmp_path / d) for d in ("whole", "batches"))
    assert whole == batches and len(whole) > 20


@pytest.mark.slow
def test_the_seed_decides_the_files(log, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        intervene.write(str(log), str(tmp_path / name), seed)
    a, b, c = (files(tmp_path / d, "*.tfrecord*") for d in "abc")
    assert a == b and len(a) == 9
    assert not any(a[name] == c[name] for name in a)


@pytest.mark.slow
def test_the_written_data_set_reads_like_any_other(log, tmp_path):
    intervene.write(str(log), str(tmp_path / "out"), seed=0)
    known = list(data.statistics(tmp_path / "out")["days"])
    days = data.parse_days("20240101..20240103", known)
    assert days == ["20240101", "20240102", "20240103"]  # a range takes the training rows only
    held_out = [data.parse_days(",".join(d + s for d in days), known) for s in ("_validation", "_intervened")]
    schema = pbtxt.load(tmp_path / "out")
    rows = [sum(len(labels["click"]) for _, labels in data.read(tmp_path / "out", schema, splits, 100))
            for splits in (days, *held_out)]
    total = sum(data.statistics(log)["days"][d]["rows"] for d in days)
    assert rows == sizes(total)


def test_what_is_left_out_and_not_written_is_said_and_recorded(text, tmp_path, capsys):
    _, parts = intervene.write(str(text), str(tmp_path / "out"), seed=0)
    said = capsys.readouterr().out.splitlines()
    assert "4 rows are left out, since their splits are not days: 2_random" in said
    only = f"2{SUFFIXES[parts[40]]}"  # day 2 has one row, so two of its splits have none
    for split in {"2", "2_validation", "2_intervened"} - {only}:
        assert f"{split} has no rows and is not written" in said
    statistics = data.statistics(tmp_path / "out")
    assert [s for s in statistics["days"] if s.startswith("2")] == [only]
    assert statistics["source"] == {
        "pipeline": "intervene", "source": {"made": "by hand"}, "seed": 0, "cap_percentile": 95,
        "shares": {"sampled": 0.4, "validation": 0.1, "intervened": 0.2}, "rows_left_out": {"2_random": 4},
    }


@pytest.mark.slow
def test_the_truth_comes_along_only_if_there_is_one(log, text, tmp_path):
    for name, source in (("log", log), ("text", text)):
        intervene.write(str(source), str(tmp_path / name), seed=0)
    assert pq.read_table(tmp_path / "log" / data.TRUTH).equals(pq.read_table(log / data.TRUTH))
    assert not (tmp_path / "text" / data.TRUTH).exists()


@pytest.mark.slow
def test_command(log, tmp_path):
    done = run(f"--data_dir={log}", f"--output={tmp_path / 'out'}", "--seed=4")
    assert done.returncode == 0, done.stderr[-2000:]
    items, parts = intervene.write(str(log), str(tmp_path / "again"), seed=4)
    said = done.stdout.splitlines()[-3:]
    assert said == intervene.summary(items, parts).splitlines()
    assert [line.split(" rows; ")[0] for line in said] == [
        f"{name}: {n:,}" for name, n in zip(("training", "validation", "test"), sizes(len(items)), strict=True)
    ]


def test_summary_of_a_case_by_hand():
    """Item 0 has 4 of 10 rows and the test shows it least; a tenth of four items is one."""
    items = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3])
    parts = np.array([TRAIN, TRAIN, TRAIN, VALIDATION, TRAIN, TRAIN, INTERVENED, TRAIN, INTERVENED, INTERVENED])
    training, validation, test = intervene.summary(items, parts).splitlines()
    assert training.startswith("training: 6 rows; ") and " 1.000; " in training and " 50.0% " in training
    assert validation.startswith("validation: 1 rows; ") and " 100.0% " in validation
    assert test.startswith("test: 3 rows; ") and " -0.775; " in test and " 0.0% " in test


@pytest.mark.parametrize("same", [True, False])
def test_the_source_is_not_replaced(log, text, tmp_path, same):
    outer = tmp_path / "outer"
    write_text(outer)
    inner = outer if same else write_text(outer / "inner")
    link = tmp_path / "link"
    link.symlink_to(outer)
    before = files(inner)
    done = run(f"--data_dir={inner}", f"--output={link}")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: --output is replaced, so it must not be or contain")
    assert files(inner) == before and len(before) > 9


def test_no_item_key_is_one_message(tmp_path):
    source = write_text(tmp_path / "set", dataclasses.replace(TEXT, keys={"user": "user", "time": "ms"}))
    done = run(f"--data_dir={source}", f"--output={tmp_path / 'out'}")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: the schema of {source} must have an item key")
    assert "Received: {'user': 'user', 'time': 'ms'}" in done.stderr and not (tmp_path / "out").exists()


def test_no_day_at_all(tmp_path):
    write_text(tmp_path / "set")
    text = (tmp_path / "set" / data.STATISTICS).read_text()
    for day in ("1", "2", "3"):
        text = text.replace(f'"{day}": {{', f'"{day}_random_too": {{')
    (tmp_path / "set" / data.STATISTICS).write_text(text)
    with pytest.raises(UserError, match="must have rows in splits that are days"):
        intervene.write(str(tmp_path / "set"), str(tmp_path / "out"), 0)


def test_a_damaged_shard_is_named_and_nothing_is_written(tmp_path):
    source = write_text(tmp_path / "set")
    shard = source / "3" / "text.tfrecord-00000-of-00001"
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    shard.write_bytes(raw)
    with pytest.raises(UserError, match=f"{shard.name} is damaged"):
        intervene.write(str(source), str(tmp_path / "out"), 0)
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_a_column_that_the_records_lack_is_not_made_up(tmp_path):
    source = write_text(tmp_path / "set")
    more = Feature("city", "int", "user", "content", size=5, width=2)
    pbtxt.save(dataclasses.replace(TEXT, features=(*TEXT.features, more)), source)
    with pytest.raises(UserError, match=r"has no column \['city'\]"):
        intervene.write(str(source), str(tmp_path / "out"), 0)
