"""The commands, as a user types them, on small data."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest

from dlen_cam2 import data, evaluation
from dlen_cam2.schema import pbtxt
from dlen_cam2.training import model_directory
from dlen_cam2.utils.errors import UserError
from pipelines import simulate
from tests.support.builders import FEW, command, run, train
from tests.support.jobs import DAY, DAYS, small

OVERRIDES = [
    "--config.model.trunk.units=(8,)", "--config.model.tower_units=(4,)", "--config.model.head.latent_units=(4,)",
    "--config.train.batch_size=128", "--config.train.bootstrap=5",
]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A small simulated data set."""
    directory = tmp_path_factory.mktemp("log") / "data"
    simulate.write(simulate.World(rows=1500, seed=1, days=3), str(directory))
    return directory


@pytest.fixture(scope="module")
def plain(log, tmp_path_factory):
    """(directory, metrics) of a small model, which tests only read."""
    directory = tmp_path_factory.mktemp("plain") / "m"
    return directory, train(small(bootstrap=0), log, directory, DAYS, DAY)


def weights(directory):
    return model_directory.load(directory).network.get_weights()


@pytest.mark.slow
def test_train_evaluate_export_score(log, tmp_path, drawn):
    """The README's path through the product."""
    model = tmp_path / "model"
    done = command(
        "dlen_cam2.cli.train", "--config=dlen_cam2/configs/quickstart_mmoe_dlen.py", f"--data_dir={log}",
        f"--model_dir={model}", f"--train_days={DAYS}", f"--eval_days={DAY},{DAY}_random", *OVERRIDES,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"pass 1/\d \(.*\): [\d,]+ rows in \d+ s, [\d,]+ rows/s, loss [\d.]+\n", done.stdout)
    assert done.stdout.splitlines()[-1] == f"next: dlen_cam2 export --model_dir={model} --output=served/ranker"
    assert done.stderr == ""
    found = {p.name for p in model.iterdir()}
    assert {"config.json", "schema.pbtxt", "metrics.json", "tensorboard"} <= found
    assert {"report.md", "report.html", "report.png"} <= found
    metrics = json.loads((model / "metrics.json").read_text())
    assert list(metrics) == [DAY, f"{DAY}_random"]
    assert list(metrics[DAY]) == [*simulate.TASKS, "user_favor"]
    rows = data.statistics(log)["days"][DAY]["rows"]
    assert {task["rows"] for task in metrics[DAY].values()} == {rows}
    assert 0 < metrics[DAY]["click"]["auc"] < 1 and metrics[DAY]["click"]["intervals"]["auc"] is not None
    assert "never a measure" in metrics[DAY]["user_favor"]["note"]
    config = json.loads((model / "config.json").read_text())
    assert config["model"]["head"]["kind"] == "dlen" and config["model"]["trunk"]["units"] == [8]
    assert "report.png" in (model / "report.md").read_text() and list((model / "tensorboard").rglob("*tfevents*"))

    again = command("dlen_cam2.cli.evaluate", f"--model_dir={model}", f"--data_dir={log}", f"--days={DAY}",
                    f"--output={tmp_path / 'again.json'}", "--bootstrap=5")
    assert again.returncode == 0, again.stderr[-2000:]
    assert json.loads((tmp_path / "again.json").read_text()) == {DAY: metrics[DAY]}

    exported = command("dlen_cam2.cli.export", f"--model_dir={model}", f"--output={tmp_path / 'served'}")
    assert exported.returncode == 0, exported.stderr[-2000:]
    flags = [f"--model={tmp_path / 'served'}", f"--data_dir={log}", f"--day={DAY}", "--rows=3"]
    scored = run("dlen_cam2.cli.predict", *flags)
    assert scored.returncode == 0, scored.stderr[-2000:]
    head, _, *lines = [line.strip("| ").split(" | ") for line in scored.stdout.splitlines() if line.startswith("|")]
    loaded = model_directory.load(model)
    wanted = evaluation.predict(evaluation.scorer(loaded.network, loaded.read_out), loaded.schema, log, DAY).serving
    assert head == ["score", "row 0", "row 1", "row 2"]
    found = {name: np.array(values, float) for name, *values in lines}
    assert list(found) == sorted([*wanted, "fused"])
    for name, scores in wanted.items():
        np.testing.assert_allclose(found[name], scores[:3], atol=1e-6)
    np.testing.assert_allclose(found["fused"], np.prod([found[t] for t in loaded.schema.task_names], axis=0), atol=1e-6)


@pytest.mark.slow
def test_a_seed_gives_the_same_weights_and_another_does_not(log, plain, tmp_path):
    for name, seed in (("b", small().train.seed), ("c", 2)):
        train(small(seed=seed, bootstrap=0), log, tmp_path / name, DAYS, DAY)
    a, b, c = (weights(directory) for directory in (plain[0], tmp_path / "b", tmp_path / "c"))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
    assert not all(np.array_equal(x, y) for x, y in zip(a, c, strict=True))


@pytest.mark.slow
def test_days_in_order(log, tmp_path, capsys):
    """`order="days"` passes over each day in turn, and that is not the shuffled run."""
    train(small(order="days", epochs=2, bootstrap=0), log, tmp_path / "days", DAYS, DAY)
    passes = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("pass")]
    assert list(dict.fromkeys(passes)) == [
        "pass 1/4 (20240101)", "pass 2/4 (20240101)", "pass 3/4 (20240102)", "pass 4/4 (20240102)",
    ]


@pytest.mark.slow
def test_the_model_keeps_what_was_fitted_on_training_days_only(log, plain):
    schema = model_directory.load(plain[0]).schema
    days = data.parse_days(DAYS, list(data.statistics(log)["days"]))
    assert schema == pbtxt.load(log).select(features=FEW).fit(data.statistics(log), days)
    positives, rows = (
        sum(data.statistics(log)["days"][d]["tasks"]["like"][key] for d in days) for key in ("positives", "rows")
    )
    assert next(t.positive_rate for t in schema.tasks if t.name == "like") == positives / rows


@pytest.mark.slow
def test_a_day_without_positives_is_undefined_and_not_an_error(tmp_path):
    """Nobody forwards anything in this world."""
    world = simulate.World(rows=1500, seed=1, days=3)
    world.rates["forward"] = 1e-12
    simulate.write(world, str(tmp_path / "data"))
    metrics = train(small(), tmp_path / "data", tmp_path / "m", DAYS, DAY)
    forward = json.loads((tmp_path / "m" / "metrics.json").read_text())[DAY]["forward"]
    assert forward == metrics[DAY]["forward"] and forward["positives"] == 0 and forward["rows"] > 0
    assert (forward["auc"], forward["ne"], forward["calibration"]) == (None, None, None)
    assert "| forward |" in (tmp_path / "m" / "report.md").read_text()
    assert "undefined" in (tmp_path / "m" / "report.md").read_text()
    with pytest.raises(UserError, match="task 'forward' has no positives on the training days"):
        train(small("dlen"), tmp_path / "data", tmp_path / "dlen", DAYS, DAY)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "m"]


def damaged(log, tmp_path, day):
    """A copy of the data set with one byte of `day`'s shard flipped: (directory, shard)."""
    copy = tmp_path / "copy"
    shutil.copytree(log, copy)
    shard = pathlib.Path(data.shards(copy, [day]).paths[0])
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    return copy, shard


@pytest.mark.slow
def test_a_damaged_shard_ends_training_and_leaves_nothing(log, tmp_path):
    copy, shard = damaged(log, tmp_path, "20240102")
    with pytest.raises(UserError, match=f"shard {shard} is damaged"):
        train(small(bootstrap=0), copy, tmp_path / "m", DAYS, DAY)
    assert [p.name for p in tmp_path.iterdir()] == ["copy"]


@pytest.mark.slow
def test_a_damaged_shard_of_a_measured_day_costs_no_training(log, plain, tmp_path, capsys):
    """There is no model directory; once the shard is mended, the same call measures and writes it."""
    copy, shard = damaged(log, tmp_path, DAY)
    with pytest.raises(UserError, match=f"shard {shard} is damaged"):
        train(small(bootstrap=0), copy, tmp_path / "m", DAYS, DAY)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy", "m.training"]
    shutil.copy(data.shards(log, [DAY]).paths[0], shard)
    capsys.readouterr()
    metrics = train(small(bootstrap=0), copy, tmp_path / "m", DAYS, DAY)
    assert "pass" not in capsys.readouterr().out.split("resuming at")[1].split("\n", 1)[1]
    assert metrics == plain[1]


BAD = {
    "unknown key": (["--config.model.nonsense=1"], 2, "nonsense"),
    "unknown key of a part": (["--config.model.trunk.levels=3"], 2, "config.model.trunk (mmoe) has no key ['levels']"),
    "unknown part": (["--config.model.trunk=transformer"], 2, "config.model.trunk must be a trunk, one of ['cgc', "),
    "value of another type": (["--config.train.epochs=two"], 2, "config.train.epochs must be int"),
    "key without a value": (["--config.train.epochs"], 2, "--config.train.epochs needs a value"),
    "value out of range": (["--config.model.head=dlen", "--config.model.head.alpha=7"], 2, "config.model.head.alpha"),
    "unknown task": (["--config.model.tasks=('clack',)"], 1, "clack"),
    "unknown feature": (["--config.model.features=('colour',)"], 1, "colour"),
    "unknown day": (["--train_days=20230101..20230102"], 1, "20230101..20230102"),
    "no data": (["--data_dir=/nonexistent"], 1, "/nonexistent"),
    "unknown flag": (["--colour=red"], 2, "colour"),
    "no such configuration": (["--config=nowhere.py"], 2, "nowhere.py"),
}


@pytest.mark.parametrize(("flags", "status", "word"), BAD.values(), ids=BAD)
def test_bad_input_is_one_message(log, tmp_path, flags, status, word):
    model = tmp_path / "m"
    done = command(
        "dlen_cam2.cli.train", "--config=dlen_cam2/configs/kuairand_mmoe.py", f"--data_dir={log}",
        f"--model_dir={model}", f"--train_days={DAYS}", f"--eval_days={DAY}", *flags,
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == status and len(errors) == 1 and word in errors[0]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_day_is_not_both_trained_and_measured_on(log, tmp_path):
    with pytest.raises(UserError, match=r"not both\. Received in both: \['20240102'\]"):
        train(small(bootstrap=0), log, tmp_path / "m", DAYS, f"20240102,{DAY}")


def test_a_model_directory_that_is_not_ours_is_kept(log, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="not empty and was not written by this command"):
        train(small(bootstrap=0), log, tmp_path / "m", DAYS, DAY)
    assert (tmp_path / "m" / "thesis.txt").read_text() == "years of work"


def test_a_directory_without_a_model_is_named(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} holds no trained model"):
        model_directory.load(tmp_path)
