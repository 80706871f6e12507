"""The best pass, a day after the other, and what a step makes worse."""

import json

import numpy as np
import pytest

from benchmarks.kill import differences
from dlen_cam2 import data
from dlen_cam2.config import DailyConfig
from dlen_cam2.training import runs, train_request
from dlen_cam2.training.balancing import PCGrad
from dlen_cam2.utils.errors import UserError
from tests.support.jobs import DAY, config
from tests.support.stopped_runs import lines, stopped_at, train

pytestmark = pytest.mark.slow


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
    ({"validation_days": "20240104"}, "config.train.monitor and --validation_days must be given together"),
    ({"wanted": config(monitor="ne")}, "config.train.monitor and --validation_days must be given together"),
    ({"wanted": config(monitor="ne"), "validation_days": DAY}, r"may not be trained on or measured.*\['20240103'\]"),
    ({"wanted": config(monitor="clack/ne"), "validation_days": "20240104"}, "must name a task of the model"),
    ({"grow": True}, "--grow needs --continue_from"),
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
        shown = capsys.readouterr()
        found[name] = shown.out + shown.err
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
    assert "daily steps (config.train.daily): 1 passes, rates times 1000, cooldown 0" in found["wild"]


def test_a_step_that_makes_validation_worse_is_named(log, whole, tmp_path, capsys):
    wanted = config(monitor="ne", daily=DailyConfig(1, 1000.0, 0.0))
    runs.train(train_request.once(wanted, log, tmp_path / "m", DAY, "20240104_random", "20240104", continue_from=whole))
    assert "the step made click worse on 20240104: NE" in capsys.readouterr().err


def test_nothing_after_the_last_day_is_one_message(log, tmp_path):
    with pytest.raises(UserError, match="--eval=next needs a day after"):
        train_request.recurring(config(), log, tmp_path / "m", "20240105")
    with pytest.raises(UserError, match=r"--days must be days, not splits .*\. Received: \['20240102_random'\]"):
        train_request.recurring(config(), log, tmp_path / "m", "20240101,20240102_random")


def test_another_balancing_method_is_named(log, whole, tmp_path):
    other = config()
    other.train.step_rule = PCGrad()
    with pytest.raises(UserError, match=r"config.train.step_rule must equal the one of .*'pcgrad' in place of 'fixed'"):
        runs.train(train_request.once(other, log, tmp_path / "m", DAY, "20240104", continue_from=whole))
