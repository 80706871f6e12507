"""A run that is led astray says so, and what it leaves."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.training import failures, jobs, passes
from dlen_cam2.training.callbacks import checkpointing
from dlen_cam2.utils.errors import Interrupted, UserError
from tests.support.builders import ROOT
from tests.support.jobs import config
from tests.support.stopped_runs import train

pytestmark = pytest.mark.slow


def test_a_loss_that_is_not_finite_stops_the_run(log, tmp_path, monkeypatch):
    """The step, the task and the batch are saved, and no checkpoint after it."""
    monkeypatch.setattr(checkpointing.Checkpointing, "LOOK", 1)
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


@pytest.mark.parametrize("settings", [{}, {"monitor": "ne"}], ids=["plain", "monitored"])
def test_a_loss_that_is_not_finite_is_found_at_the_end_of_a_pass(log, tmp_path, settings):
    """Fewer steps than lie between two looks, and before anything is measured."""
    wild = config(epochs=1, batch_size=256, learning_rate=1e30, **settings)
    options = {"validation_days": "20240104"} if settings else {}
    with pytest.raises(failures.Diverged, match="its batch and statistics are in"):
        train(log, tmp_path / "m", wild, **options)
    assert list((tmp_path / "m.training" / "nonfinite").glob("step-*/batch.npz"))


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
