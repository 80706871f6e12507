"""A run that is stopped, killed, damaged or led astray, and what is left of it."""

import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.kill import differences, killed
from dlen_cam2 import data
from dlen_cam2.config import DailyConfig
from dlen_cam2.training import checkpoints, distribution, failures, jobs, passes, runs, train_request
from dlen_cam2.training.callbacks import checkpointing
from dlen_cam2.utils.errors import Interrupted, UserError
from tests.support.builders import FEW, ROOT, run
from tests.support.jobs import DAY, DAYS, addresses, all_finished, arguments, config, start, start_several

pytestmark = pytest.mark.slow


def train(log, directory, wanted=None, **options):
    return runs.train(train_request.once(wanted or config(), log, directory, DAYS, DAY, **options))


class Stop(Exception):
    """As if the process were killed."""


def stopped_at(monkeypatch, step, log, directory, **options):
    """A run that ends, without a word, in the step after so many of this process; and what pytest caught of it."""
    seen = []

    def on_train_batch_end(self, batch, logs=None):
        seen.append(batch)
        kept(self, batch, logs)
        if len(seen) == step:
            raise Stop

    kept = checkpointing.Keeper.on_train_batch_end
    with monkeypatch.context() as patched:
        patched.setattr(checkpointing.Keeper, "on_train_batch_end", on_train_batch_end)
        with pytest.raises(Stop) as stopped:
            train(log, directory, **options)
    return stopped


def lines(directory):
    return [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(log, tmp_path_factory):
    """The model of a run that nothing stops."""
    directory = tmp_path_factory.mktemp("whole") / "m"
    train(log, directory)
    return directory


@pytest.mark.parametrize("steps", [(3, 20, 4), (60,)], ids=str)
def test_goes_on_where_it_was_stopped(log, whole, tmp_path, monkeypatch, steps):
    """Also in the second pass, and with dropout's random state."""
    for step in steps:
        stopped_at(monkeypatch, step, log, tmp_path / "m", checkpoint_steps=2)
    assert not (tmp_path / "m").exists()
    train(log, tmp_path / "m", checkpoint_steps=2)
    assert differences(tmp_path / "m", whole) == []
    assert sum(line["event"] == "resumed" for line in lines(tmp_path / "m")) == len(steps)
    assert (tmp_path / "m" / "metrics.json").read_text() == (whole / "metrics.json").read_text()
    assert not (tmp_path / "m.training").exists()


class Rates(tf.keras.callbacks.Callback):
    """Adam's rate at each step."""

    def __init__(self):
        super().__init__()
        self.found = []

    def on_train_batch_end(self, batch, logs=None):
        self.found.append(float(self.model.optimizer.optimizers[0].learning_rate))


def test_rates_fall_at_the_end_of_a_stage_also_of_a_run_that_goes_on(log, tmp_path, monkeypatch):
    """Over the last quarter of two passes; the next day's job has the passes, rates and cooldown of a daily step."""
    falling = config(cooldown=0.25, daily=DailyConfig(3, 0.5, 0.1))
    steps = 2 * -(-sum(data.shards(log, ["20240101", "20240102"]).rows) // 32)
    rates = Rates()
    runs.train(train_request.once(falling, log, tmp_path / "whole", DAYS, DAY), callbacks=[rates])
    wanted = [0.001 * min(1, (steps - s) / (0.25 * steps)) for s in range(steps)]
    np.testing.assert_allclose(rates.found, wanted, rtol=1e-5)
    stopped_at(monkeypatch, steps - 9, log, tmp_path / "m", wanted=falling, checkpoint_steps=2)
    train(log, tmp_path / "m", falling)
    assert differences(tmp_path / "m", tmp_path / "whole") == []
    rates = Rates()
    runs.train(train_request.once(falling, log, tmp_path / "next", DAY, "20240104", continue_from=tmp_path / "m"),
               callbacks=[rates])
    steps = 3 * -(-sum(data.shards(log, [DAY]).rows) // 32)
    wanted = [0.0005 * min(1, (steps - s) / (0.1 * steps)) for s in range(steps)]
    np.testing.assert_allclose(rates.found, wanted, rtol=1e-5)


def test_steps_of_one_call_have_the_mean_of_their_rates(log, tmp_path):
    several = config(cooldown=0.5, steps_per_execution=3)
    steps, rates = 2 * -(-sum(data.shards(log, ["20240101", "20240102"]).rows) // 32), Rates()
    runs.train(train_request.once(several, log, tmp_path / "m", DAYS, DAY), callbacks=[rates])
    each = [0.001 * min(1, (steps - s) / (0.5 * steps)) for s in range(steps)]
    half = steps // 2
    wanted = [np.mean(each[a : min(a + 3, steps)] + [each[-1]] * max(a + 3 - steps, 0))
              for start in (0, half) for a in range(start, start + half, 3)]
    np.testing.assert_allclose(rates.found, wanted, rtol=1e-4)
    with pytest.raises(UserError, match=f"steps_per_execution must be at most {steps // 8} for a cooldown of 0.5"):
        train(log, tmp_path / "n", config(cooldown=0.5, steps_per_execution=32))


def test_parameter_servers_have_no_cooldown(log):
    place = distribution.Place("parameter_server")
    assert place.asynchronous
    with pytest.raises(UserError, match=r"config.train.cooldown must be 0 with --strategy=parameter_server.*0\.5"):
        start(config(cooldown=0.5), log, ["20240101"], place=place)


def test_killed_processes_end_with_the_same_weights(log, tmp_path):
    """SIGKILL at random moments, on two replicas, day by day with what is measured between."""
    flags = [
        f"--data_dir={log}", "--config=dlen_cam2/configs/quickstart_mmoe_dlen.py", "--days=20240101..20240102",
        "--eval=next", "--checkpoint_steps=3", "--strategy=mirrored", "--cpu_devices=2", "--config.model.dropout=0.1",
        "--config.train.batch_size=64", "--config.model.units=(8,)", "--config.train.bootstrap=0",
        f"--config.model.features={FEW}",
    ]
    moments = killed(tmp_path / "parts", flags, kills=1, least=6, most=12, seed=1)
    assert moments
    assert run("dlen_cam2.cli.train", f"--model_dir={tmp_path / 'whole'}", *flags).returncode == 0
    assert differences(tmp_path / "parts", tmp_path / "whole") == []
    found, wanted = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("parts", "whole"))
    assert found == wanted and [d for d in found if "_" not in d] == ["20240102", "20240103"]


def test_sigterm_finishes_the_step_and_saves(log, tmp_path):
    flags = ["--config=dlen_cam2/configs/quickstart_mmoe.py", "--config.train.epochs=200", "--checkpoint_seconds=0",
             f"--config.model.features={FEW}", "--config.model.units=(8,)"]
    process = start(log, tmp_path / "m", *flags)
    work = tmp_path / "m.training"
    deadline = time.monotonic() + 600
    while not list(work.glob("checkpoints/checkpoint-*")) and time.monotonic() < deadline:  # behind the first pass
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 143 and "stopped: SIGTERM at step" in err and "Traceback" not in err
    last = lines(work)[-2:]
    assert [line["event"] for line in last] == ["checkpoint", "interrupted"]
    assert last[0]["step"] == last[1]["step"] and not (tmp_path / "m").exists()


def test_another_run_of_the_same_directory_is_refused(log, tmp_path, monkeypatch):
    stopped_at(monkeypatch, 5, log, tmp_path / "m", checkpoint_steps=2)
    other = config(learning_rate=0.01)
    with pytest.raises(UserError, match=r"has the state of another run.*Received: different \['config'\]"):
        train(log, tmp_path / "m", other)
    train(log, tmp_path / "m", other, restart=True)
    assert "resumed" not in {line["event"] for line in lines(tmp_path / "m")}


def test_two_processes_do_not_train_one_model(log, tmp_path, monkeypatch):
    stopped = stopped_at(monkeypatch, 5, log, tmp_path / "m", checkpoint_steps=2)
    assert stopped.traceback  # It keeps the run alive, which yet holds the lock no more.
    with (tmp_path / "m.training" / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for restart in (False, True):
            with pytest.raises(UserError, match=r"m\.training is in use: another process trains"):
                train(log, tmp_path / "m", restart=restart)
    train(log, tmp_path / "m")
    assert "resumed" in {line["event"] for line in lines(tmp_path / "m")}


def test_what_is_in_the_way_is_kept(log, tmp_path):
    (tmp_path / "m.training").mkdir()
    (tmp_path / "m.training" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"must be empty: remove it, or pass --restart.*thesis\.txt"):
        train(log, tmp_path / "m")
    assert (tmp_path / "m.training" / "thesis.txt").read_text() == "years of work"


def test_a_damaged_checkpoint_is_passed_over(log, whole, tmp_path, monkeypatch, capsys):
    stopped_at(monkeypatch, 9, log, tmp_path / "m", checkpoint_steps=2)
    kept = sorted((tmp_path / "m.training" / "checkpoints").iterdir())
    assert [p.name[-2:] for p in kept] == ["02", "03", "04"]
    (kept[1] / "weights.data-00000-of-00001").unlink()
    flipped = kept[2] / "weights.data-00000-of-00001"
    flipped.write_bytes(b"\0" * flipped.stat().st_size)
    train(log, tmp_path / "m")
    warnings = capsys.readouterr().err
    assert warnings.count("The checkpoint before it is taken") == 2 and "another SHA-256" in warnings
    assert differences(tmp_path / "m", whole) == []


def test_no_whole_checkpoint_is_one_message(log, tmp_path, monkeypatch):
    stopped_at(monkeypatch, 5, log, tmp_path / "m", checkpoint_steps=2)
    for path in (tmp_path / "m.training" / "checkpoints").iterdir():
        (path / "state.json").write_text("{")
    with pytest.raises(UserError, match="none of the checkpoints in .* can be read"):
        train(log, tmp_path / "m")


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(log, whole, tmp_path, monkeypatch, capsys):
    """The earlier checkpoint stays, and the run goes on from it when it is stopped."""
    written = checkpoints.write

    def fails(directory, *rest):
        if directory.name > "checkpoint-000000002":
            raise OSError(28, "No space left on device")
        written(directory, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "write", fails)
        stopped_at(monkeypatch, 9, log, tmp_path / "m", checkpoint_steps=2)
    assert "warning: no checkpoint was written, the earlier ones stay: [Errno 28]" in capsys.readouterr().err
    assert [p.name for p in sorted((tmp_path / "m.training" / "checkpoints").iterdir())] == [
        "checkpoint-000000001", "checkpoint-000000002",
    ]
    train(log, tmp_path / "m")
    assert differences(tmp_path / "m", whole) == []


def test_the_best_pass_gives_the_weights(log, tmp_path, monkeypatch):
    """Three passes of which the second is best; then one more without a gain would be waited for, two are not."""
    values = iter([0.9, 0.8, 0.85, 0.84, 0.1])
    monkeypatch.setattr(runs, "monitored", lambda metrics, name: next(values))
    best = config(epochs=5, monitor="ne", patience=2)
    train(log, tmp_path / "m", best, validation_days="20240104")
    events = lines(tmp_path / "m")
    assert [e["value"] for e in events if e["event"] == "validation"] == [0.9, 0.8, 0.85, 0.84]
    train(log, tmp_path / "two", config(epochs=2))
    assert differences(tmp_path / "m", tmp_path / "two") == []


def test_early_stopping_goes_on_where_it_was(log, tmp_path, monkeypatch):
    """Killed in the third pass: the best value and the passes waited are those of before."""
    per_pass = -(-sum(data.shards(log, ["20240101", "20240102"]).rows) // 32)
    patient = config(epochs=9, monitor="like/ne", patience=1, learning_rate=0.02)
    train(log, tmp_path / "whole", patient, validation_days="20240104")
    events = [e for e in lines(tmp_path / "whole") if e["event"] == "validation"]
    assert 1 < len(events) < 9
    stopped_at(monkeypatch, per_pass + 3, log, tmp_path / "m", wanted=patient, validation_days="20240104")
    train(log, tmp_path / "m", patient, validation_days="20240104")
    assert differences(tmp_path / "m", tmp_path / "whole") == []
    assert [e["value"] for e in lines(tmp_path / "m") if e["event"] == "validation"] == [e["value"] for e in events]


@pytest.mark.parametrize(("options", "words"), [
    ({"validation_days": "20240104"}, "config.train.monitor and --validation_days need each other"),
    ({"wanted": config(monitor="ne")}, "config.train.monitor and --validation_days need each other"),
    ({"wanted": config(monitor="ne"), "validation_days": DAY}, r"neither trained on nor measured.*\['20240103'\]"),
    ({"wanted": config(monitor="clack/ne"), "validation_days": "20240104"}, "must name a task of the model"),
    ({"grow": True}, "--grow is about the model of --continue_from"),
])
def test_what_does_not_go_together_is_one_message(log, tmp_path, options, words):
    with pytest.raises(UserError, match=words):
        train(log, tmp_path / "m", **options)
    assert not list(tmp_path.iterdir())


def test_recurring_days_equal_a_command_a_day(log, tmp_path):
    """Each day is measured by the model of the day before."""
    found = runs.train(train_request.recurring(config(), log, tmp_path / "m", "20240101..20240102"))
    before = None
    for day, after in (("20240101", "20240102"), ("20240102", "20240103")):
        measured = f"{after},{after}_random"
        one = runs.train(train_request.once(config(), log, tmp_path / day, day, measured, continue_from=before))
        before = tmp_path / day
        assert one == {split: found[split] for split in measured.split(",")}
    assert len(found) == 4 and differences(tmp_path / "m", tmp_path / "20240102") == []


def test_a_step_that_makes_a_day_worse_is_named(log, whole, tmp_path, capsys):
    """At a thousand times the rates; what it made of each task stands in the report and in the log."""
    found = {}
    for name, rates in (("wild", 1000.0), ("calm", 1e-6)):
        wanted = config(daily=DailyConfig(1, rates, 0.0))
        days = DAY, "20240104,20240104_random"
        runs.train(train_request.once(wanted, log, tmp_path / name, *days, continue_from=whole))
        found[name] = capsys.readouterr().out
        events = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        steps = {event["day"]: event["tasks"] for event in events if event["event"] == "step"}
        assert list(steps) == ["20240104", "20240104_random"]
        report = (tmp_path / name / "report.md").read_text()
        click = steps["20240104"]["click"]
        assert f"| 20240104 after {DAY} | click | {click['ne'][0]:.4f} → {click['ne'][1]:.4f} |" in report
        assert click["worse"] == (name == "wild"), click
        if name == "calm":
            np.testing.assert_allclose(*click["ne"], rtol=1e-3)
    assert "warning: the step made click worse on 20240104: NE" in found["wild"]
    assert "warning" not in found["calm"]
    assert "a day more (config.train.daily): passes 1, rates times 1000, cooldown 0" in found["wild"]


def test_a_step_that_makes_validation_worse_is_named(log, whole, tmp_path, capsys):
    wanted = config(monitor="ne", daily=DailyConfig(1, 1000.0, 0.0))
    runs.train(train_request.once(wanted, log, tmp_path / "m", DAY, "20240104_random", "20240104", continue_from=whole))
    assert "the step made click worse on 20240104: NE" in capsys.readouterr().out


def test_nothing_after_the_last_day_is_one_message(log, tmp_path):
    with pytest.raises(UserError, match="--eval=next needs a day after"):
        train_request.recurring(config(), log, tmp_path / "m", "20240105")
    with pytest.raises(UserError, match=r"--days must be days of the log\. Received: \['20240102_random'\]"):
        train_request.recurring(config(), log, tmp_path / "m", "20240101,20240102_random")


def test_a_loss_that_is_not_finite_stops_the_run(log, tmp_path, monkeypatch):
    """The step, the task and the batch are saved, and no checkpoint after it."""
    monkeypatch.setattr(checkpointing.Keeper, "LOOK", 1)
    poisoned = passes.batches
    monkeypatch.setattr(passes, "batches", lambda *a: poisoned(*a).enumerate().map(poison))
    monkeypatch.setattr(failures, "batches", lambda *a, **k: poisoned(*a, **k))
    with pytest.raises(failures.Diverged, match=r"step 11: the loss of \['like'\] is not finite") as error:
        train(log, tmp_path / "m", checkpoint_steps=5)
    assert error.value.status == 3 and not (tmp_path / "m").exists()
    saved = tmp_path / "m.training" / "nonfinite" / "step-11"
    statistics = json.loads((saved / "statistics.json").read_text())
    assert statistics["not_finite"] == ["like"] and statistics["losses"]["like"] == "nan"
    assert statistics["features"]["video_impressions"]["not_finite"] == 0
    with np.load(saved / "batch.npz") as batch:
        assert len(batch["user_id"]) == 32 and len(batch["label:like"]) == 32
    states = [json.loads(p.read_text())["state"] for p in (tmp_path / "m.training").glob("checkpoints/*/state.json")]
    assert max(s["position"]["step"] for s in states) == 10


@pytest.mark.parametrize("settings", [{}, {"monitor": "ne"}], ids=["logistic", "monitored"])
def test_a_loss_that_is_not_finite_is_found_at_the_end_of_a_pass(log, tmp_path, settings):
    """Fewer steps than lie between two looks, and before anything is measured."""
    wild = config(epochs=1, batch_size=256, learning_rate=1e30, **settings)
    options = {"validation_days": "20240104"} if settings else {}
    with pytest.raises(failures.Diverged, match="its batch and statistics are in"):
        train(log, tmp_path / "m", wild, **options)
    assert list((tmp_path / "m.training" / "nonfinite").glob("step-*/batch.npz"))


def test_another_balancing_method_is_named(log, whole, tmp_path):
    other = config()
    other.train.balance.method = "pcgrad"
    with pytest.raises(UserError, match=r"config.train.step_rule must be that of .*'pcgrad' in place of 'fixed'"):
        runs.train(train_request.once(other, log, tmp_path / "m", DAY, "20240104", continue_from=whole))


def poison(step, batch):
    features, labels = batch
    bad = tf.where(step == 11, np.nan, 0.0)
    return features, labels | {"like": labels["like"] + tf.cast(bad, tf.float32)}


def test_memory_that_runs_out_is_named(log, tmp_path, monkeypatch):
    def fails(*arguments, **options):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[1]")

    monkeypatch.setattr(jobs, "start", fails)
    with pytest.raises(UserError, match="out of memory: lower config.train.batch_size.*OOM when allocating") as error:
        train(log, tmp_path / "m")
    assert error.value.status == 1


def test_a_worker_that_dies_is_named_and_the_cluster_goes_on(log, tmp_path):
    """Worker 1 is killed; worker 0 says so with a status to be started again; both then end as if nothing had been."""
    flags = [
        "--config=dlen_cam2/configs/quickstart_mmoe.py", "--config.model.units=(8,)", "--config.train.epochs=2",
        "--config.train.bootstrap=0", "--config.train.batch_size=32", "--checkpoint_steps=5",
        f"--config.model.features={FEW}",
    ]
    tasks = [(cluster, "worker", index) for cluster in [addresses(worker=2)] for index in range(2)]
    chief, other = (start(log, tmp_path / "m", *flags, "--strategy=multi_worker", task=task) for task in tasks)
    work = tmp_path / "m.training"
    deadline = time.monotonic() + 600
    while not list(work.glob("checkpoints/checkpoint-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    other.kill()
    _, err = chief.communicate(timeout=600)
    other.wait()
    assert chief.returncode == 138 and "a process of the cluster ended or cannot be reached" in err
    jobs = {model: arguments(log, tmp_path / model, flags) for model in ("m", "whole")}
    tasks = [(cluster, "worker", index) for cluster in [addresses(worker=2)] for index in range(2)]
    for process in [start_several(jobs, "multi_worker", task=task) for task in tasks]:
        all_finished(process)
    assert "resumed" in {line["event"] for line in lines(tmp_path / "m")}
    assert differences(tmp_path / "m", tmp_path / "whole") == []


def test_interrupted_is_not_an_error_of_the_user():
    assert Interrupted.status == 143 and not issubclass(Interrupted, UserError)
    assert subprocess.run(
        [sys.executable, "-c", "from dlen_cam2.utils import commands, errors\n"
         "def main(): raise errors.Interrupted('asked')\ncommands.run(main, lambda: None)"],
        capture_output=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
    ).returncode == 143


def test_tensorboard_has_losses_ne_norms_gates_and_a_profile(log, tmp_path, capsys):
    train(log, tmp_path / "m", config(epochs=1, batch_size=16), profile_steps=(3, 5))
    assert "profile of the steps up to 5" in capsys.readouterr().out
    assert list((tmp_path / "m" / "tensorboard").rglob("*.xplane.pb"))
    tags = set()
    for path in pathlib.Path(tmp_path / "m" / "tensorboard").rglob("*tfevents*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            tags |= {value.tag for value in event.summary.value}
    wanted = {"loss", "loss/click", "ne/click", "gradient_norm", "gate_entropy/gates/click", "cap_use/click", "p_up"}
    assert wanted <= tags
    assert any(tag.startswith("expert_use/") for tag in tags)
