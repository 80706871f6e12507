"""A run that is stopped or killed, or whose checkpoints are damaged, goes on."""

import fcntl
import json
import random
import shutil
import signal
import time

import pytest

from benchmarks.kill import differences
from dlen_cam2 import data
from dlen_cam2.training import checkpoints
from dlen_cam2.utils.errors import UserError
from tests.support.builders import run
from tests.support.jobs import (
    FEATURES,
    TASKS,
    addresses,
    all_finished,
    arguments,
    config,
    start,
    start_several,
    started,
)
from tests.support.stopped_runs import lines, stopped_at, train
from tests.support.whole_logs import content_of

pytestmark = pytest.mark.slow


# A model for commands, of which a process builds the graphs anew.
SMALL = ["--config=dlen_cam2/configs/quickstart_mmoe.py", f"--config.model.features={FEATURES}",
         f"--config.model.tasks={TASKS}", "--config.model.trunk.units=(8,)", "--config.train.bootstrap=0"]


def wait_for_checkpoints(work, process):
    """Until a process has written its first."""
    while not list(work.glob("checkpoints/checkpoint-*")):
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def stopped(log, tmp_path_factory):
    """The work directory of a run that ended in its ninth step, with three checkpoints, and what pytest caught."""
    directory = tmp_path_factory.mktemp("half")
    with pytest.MonkeyPatch.context() as patched:
        return directory / "m.training", stopped_at(patched, 9, log, directory / "m", checkpoint_steps=2)


@pytest.fixture(scope="module")
def half(stopped):
    return stopped[0]


def test_goes_on_where_it_was_stopped(log, whole, tmp_path, monkeypatch):
    """In the first pass and again in the second, with dropout's random state."""
    per_pass = -(-sum(data.shards(log, ["20240101", "20240102"]).rows) // 32)
    steps = 3, per_pass + 3
    for step in steps:
        stopped_at(monkeypatch, step, log, tmp_path / "m", checkpoint_steps=2)
    assert not (tmp_path / "m").exists()
    train(log, tmp_path / "m", checkpoint_steps=2)
    assert differences(tmp_path / "m", whole) == []
    assert sum(line["event"] == "resumed" for line in lines(tmp_path / "m")) == len(steps)
    assert (tmp_path / "m" / "metrics.json").read_text() == (whole / "metrics.json").read_text()
    assert not (tmp_path / "m.training").exists()


def test_killed_processes_end_with_the_same_weights(log, tmp_path):
    """SIGKILL at a random moment, on two replicas, day by day with what is measured between."""
    flags = [
        "dlen_cam2.cli.train", f"--data_dir={log}", "--days=20240101..20240102", "--eval=next", "--checkpoint_steps=3",
        "--strategy=mirrored", "--cpu_devices=2", "--config.model.dropout=0.1", "--config.train.batch_size=64",
        *SMALL,
    ]
    process = started(["-m", *flags, f"--model_dir={tmp_path / 'parts'}"])
    wait_for_checkpoints(tmp_path / "parts.training", process)
    time.sleep(random.random() / 2)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    for name in ("parts", "whole"):
        assert run(*flags, f"--model_dir={tmp_path / name}").returncode == 0
    assert "resumed" in {line["event"] for line in lines(tmp_path / "parts")}
    assert differences(tmp_path / "parts", tmp_path / "whole") == []
    found, wanted = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("parts", "whole"))
    assert found == wanted and [d for d in found if "_" not in d] == ["20240102", "20240103"]


def test_sigterm_finishes_the_step_and_saves(log, tmp_path):
    process = start(log, tmp_path / "m", *SMALL, "--config.train.epochs=200", "--checkpoint_seconds=0")
    work = tmp_path / "m.training"
    wait_for_checkpoints(work, process)  # behind the first pass
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "stopped: SIGTERM at step" in err and "Traceback" not in err
    last = lines(work)[-2:]
    assert [line["event"] for line in last] == ["checkpoint", "interrupted"]
    assert last[0]["step"] == last[1]["step"] and not (tmp_path / "m").exists()


def test_another_run_of_the_same_directory_is_refused(log, half, tmp_path):
    shutil.copytree(half, tmp_path / "m.training")
    other = config(learning_rate=0.01)
    with pytest.raises(UserError, match=r"holds the state of another run.*Received: different \['config'\]"):
        train(log, tmp_path / "m", other)
    train(log, tmp_path / "m", other, restart=True)
    assert "resumed" not in {line["event"] for line in lines(tmp_path / "m")}


def test_two_processes_do_not_train_one_model(log, stopped, tmp_path):
    work, caught = stopped
    assert caught.traceback  # It keeps the run alive, which yet holds the lock no more.
    with (work / "lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    shutil.copytree(work, tmp_path / "m.training")
    before = content_of(tmp_path)
    with (tmp_path / "m.training" / "lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for restart in (False, True):
            with pytest.raises(UserError, match=r"m\.training is in use: another process is training"):
                train(log, tmp_path / "m", restart=restart)
    assert content_of(tmp_path) == before


def test_what_is_in_the_way_is_kept(log, tmp_path):
    (tmp_path / "m.training").mkdir()
    (tmp_path / "m.training" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"must be empty: remove it, or pass --restart.*thesis\.txt"):
        train(log, tmp_path / "m")
    assert (tmp_path / "m.training" / "thesis.txt").read_text() == "years of work"


def test_a_damaged_checkpoint_is_passed_over(log, whole, half, tmp_path, capsys):
    shutil.copytree(half, tmp_path / "m.training")
    kept = sorted((tmp_path / "m.training" / "checkpoints").iterdir())
    assert [p.name[-2:] for p in kept] == ["02", "03", "04"]
    (kept[1] / "weights.data-00000-of-00001").unlink()
    flipped = kept[2] / "weights.data-00000-of-00001"
    flipped.write_bytes(b"\0" * flipped.stat().st_size)
    train(log, tmp_path / "m")
    warnings = capsys.readouterr().err
    assert "resumed" in {line["event"] for line in lines(tmp_path / "m")}
    assert warnings.count("The checkpoint before it is used instead") == 2 and "SHA-256 does not match" in warnings
    assert differences(tmp_path / "m", whole) == []


def test_no_whole_checkpoint_is_one_message(log, half, tmp_path):
    shutil.copytree(half, tmp_path / "m.training")
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
    warning = "warning: the checkpoint could not be written, and the earlier ones are kept: [Errno 28]"
    assert warning in capsys.readouterr().err
    assert [p.name for p in sorted((tmp_path / "m.training" / "checkpoints").iterdir())] == [
        "checkpoint-000000001", "checkpoint-000000002",
    ]
    train(log, tmp_path / "m")
    assert differences(tmp_path / "m", whole) == []


def test_a_worker_that_dies_is_named_and_the_cluster_goes_on(log, tmp_path):
    """Worker 1 is killed; worker 0 says so with a status to be started again; both then end as if nothing had been."""
    flags = [*SMALL, "--config.train.batch_size=32", "--checkpoint_steps=5"]
    tasks = [(cluster, "worker", index) for cluster in [addresses(worker=2)] for index in range(2)]
    chief, other = (start(log, tmp_path / "m", *flags, "--strategy=multi_worker", task=task) for task in tasks)
    wait_for_checkpoints(tmp_path / "m.training", chief)
    other.kill()
    _, err = chief.communicate(timeout=120)
    other.wait()
    assert chief.returncode == 138 and "a process of the cluster ended or cannot be reached" in err
    jobs = {model: arguments(log, tmp_path / model, flags) for model in ("m", "whole")}
    tasks = [(cluster, "worker", index) for cluster in [addresses(worker=2)] for index in range(2)]
    for process in [start_several(jobs, "multi_worker", task=task) for task in tasks]:
        all_finished(process)
    assert "resumed" in {line["event"] for line in lines(tmp_path / "m")}
    assert differences(tmp_path / "m", tmp_path / "whole") == []
