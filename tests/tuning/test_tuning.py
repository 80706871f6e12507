"""Searches: keras-tuner's three ways to choose, the best, resumption, and what is refused."""

import json

import pytest

from dlen_cam2 import tuning
from dlen_cam2.config import MONITORS, Config, TrainConfig, larger_is_better, replaced
from dlen_cam2.tuning.result import CONFIGURED
from dlen_cam2.tuning.trial_process import means
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import locked
from tests.support.searches import CONFIG, DAYS, Stub, find, rate


# === Searches ===
@pytest.mark.parametrize("tuner, trials, processes", [
    ("random", 4, 1), ("random", 4, 3), ("bayesian", 3, 2), ("hyperband", 13, 1), ("hyperband", 14, 3),
])
def test_every_tuner(log, tmp_path, tuner, trials, processes):
    found = find(log, tmp_path / "out", tuner=tuner, trials=trials, processes=processes)
    assert len(found.trials) == len(Stub.calls) == trials + 1 and found.trials[0].name == CONFIGURED
    assert found.value == min(trial.metrics["ne"] for trial in found.trials) == found.best.metrics["ne"]
    assert found.config == replaced(CONFIG, found.best.values)
    rates = [trial.values["train.learning_rate"] for trial in found.trials]
    epochs = [trial.epochs for trial in found.trials]
    assert epochs == [call.train.epochs for call in Stub.calls] or processes > 1
    if tuner != "hyperband":
        assert len(set(rates)) == trials + 1 and set(epochs) == {9}
    elif processes == 1:
        # Three of nine trials of one pass are promoted to three passes, and the best of these to nine.
        assert epochs[1:] == [1] * 9 + [3] * 3 + [9]
        nine = sorted(rates[1:10], key=lambda rate: abs(rate / 0.003 - 1))
        assert set(rates[10:13]) == set(nine[:3]) and rates[13] == nine[0]


def test_bayes_follows_what_it_saw(log, tmp_path):
    """Three random trials, then where the least NE is to be expected: below the best of these."""
    found = find(log, tmp_path / "bayes", tuner="bayesian", trials=5)
    drawn = find(log, tmp_path / "random", trials=3)
    assert [trial.values for trial in found.trials[:4]] == [trial.values for trial in drawn.trials]
    assert found.value < drawn.value


@pytest.mark.parametrize("objective, larger", [
    ("ne", False), ("auc", True), ("gauc", True), ("click/ne", False), ("mae", False), ("rank_correlation", True)])
def test_the_direction_follows_the_metric(objective, larger):
    assert larger_is_better(objective) is larger and set(MONITORS) == {"ne", "auc", "gauc", "mae", "rank_correlation"}


def test_the_best_is_the_greatest_auc_and_the_least_ne(log, tmp_path):
    auc = find(log, tmp_path / "auc", objective="auc")
    assert auc.value == max(trial.metrics["auc"] for trial in auc.trials) > min(t.metrics["auc"] for t in auc.trials)
    task = find(log, tmp_path / "task", objective="click/ne")
    assert task.value == min(trial.metrics["click/ne"] for trial in task.trials)


def test_a_seed_gives_the_same_choices_and_another_does_not(log, tmp_path):
    seeds = {"a": 0, "b": 0, "c": 1}
    a, b, c = ([t.values for t in find(log, tmp_path / name, seed=seed).trials] for name, seed in seeds.items())
    assert a == b and a[1:] != c[1:]


def test_a_space_may_have_fewer_choices_than_trials(log, tmp_path):
    def levels(hp):
        return {"model.trunk.levels": hp.Choice("model.trunk.levels", [1, 2])}

    found = find(log, tmp_path / "out", space=levels, config=replaced(CONFIG, {"model.trunk": "ple"}), trials=9)
    assert sorted(trial.values["model.trunk.levels"] for trial in found.trials[1:]) == [1, 2]
    assert "2 of 9 trials" in tuning.report.text_of(found, "")


def test_the_configuration_as_given_wins_if_nothing_is_better(log, tmp_path):
    config = replaced(CONFIG, {"train.learning_rate": 0.003, "train.bootstrap": 7})
    found = find(log, tmp_path / "out", config=config)
    assert found.best.name == CONFIGURED and found.config == config
    assert found.best.values == {"train.learning_rate": 0.003}


def test_a_space_may_choose_between_parts(log, tmp_path):
    """And values that one of them alone has; the configuration as given is recorded by its parts' names."""
    def parts(hp):
        trunk, causal = hp.Choice("model.trunk", ["ple", "mmoe"]), hp.Choice("model.causal", ["cam2", "none"])
        levels = {"model.trunk.levels": hp.Int("model.trunk.levels", 1, 2, step=1)} if trunk == "ple" else {}
        return rate(hp) | {"model.trunk": trunk, "model.causal": causal} | levels

    given = replaced(CONFIG, {"model.trunk.experts": 3, "train.learning_rate": 0.003})
    found = find(log, tmp_path / "out", space=parts, config=given, trials=8)
    assert found.trials[0].values == {"train.learning_rate": 0.003, "model.trunk": "mmoe", "model.causal": "none"}
    assert found.best.name == CONFIGURED and found.config == given
    assert Stub.calls[0].model == given.model
    chosen = [replaced(given, trial.values) for trial in found.trials[1:]]
    assert {config.model.trunk.name for config in chosen} == {"mmoe", "ple"}
    assert {config.model.causal and config.model.causal.name for config in chosen} == {None, "cam2"}
    assert {config.model.trunk.experts for config in chosen} == {3}
    tuning.write(found, tmp_path / "out", "the command")
    assert "| mmoe |" in (tmp_path / "out/tune.md").read_text() and (tmp_path / "out/search.png").exists()


def test_means_over_days_and_tasks():
    day = {"click": {"auc": 0.5, "gauc": None, "ne": 1.0}, "like": {"auc": 0.7, "gauc": 0.6, "ne": 0.8}}
    other = {"click": {"auc": 0.6, "gauc": None, "ne": 0.9}, "like": {"auc": None, "gauc": None, "ne": None}}
    found = means({"a": day | {"user_favor": {"auc": 0.9}}, "b": other})
    assert found == pytest.approx({
        "auc": 0.6, "gauc": 0.6, "ne": 0.9, "click/auc": 0.55, "click/ne": 0.95, "like/auc": 0.7, "like/gauc": 0.6,
        "like/ne": 0.8,
    })


# === Stopped, failed, refused ===
class Killed(BaseException):
    pass


@pytest.mark.parametrize("tuner, trials", [("random", 5), ("hyperband", 13), ("bayesian", 4)])
def test_a_stopped_search_goes_on(log, tmp_path, tuner, trials):
    whole = find(log, tmp_path / "whole", tuner=tuner, trials=trials)
    Stub.calls = []

    def kill(number):
        if number == 4:
            raise Killed

    Stub.trouble = staticmethod(kill)
    with pytest.raises(Killed):
        find(log, tmp_path / "out", tuner=tuner, trials=trials)
    assert len(list((tmp_path / "out/trials").glob("*/result.json"))) == 3
    found = find(log, tmp_path / "out", tuner=tuner, trials=trials, processes=2)
    assert len(Stub.calls) == trials + 1 + 1  # the one that was killed is trained again, no other is
    assert Stub.calls[3] == Stub.calls[4]
    names = [trial.name for trial in whole.trials]
    assert [trial.name for trial in found.trials] == names
    if tuner == "random":
        assert [t.values for t in found.trials] == [t.values for t in whole.trials]
    again = find(log, tmp_path / "out", tuner=tuner, trials=trials)
    assert again == found and len(Stub.calls) == trials + 2


def test_a_kill_between_two_files_of_the_state(log, tmp_path):
    """The trial is on disk, and the oracle's file does not know of it yet."""
    Stub.trouble = staticmethod(lambda number: (_ for _ in ()).throw(Killed()) if number == 3 else "")
    with pytest.raises(Killed):
        find(log, tmp_path / "out")
    state = tmp_path / "out/trials/oracle.json"
    content = json.loads(state.read_text())
    assert content["ongoing_trials"] == {"process0": "1"}
    content["ongoing_trials"], content["start_order"] = {}, ["0"]
    state.write_text(json.dumps(content))
    found = find(log, tmp_path / "out")
    assert [trial.name for trial in found.trials] == [CONFIGURED, "0", "1", "2", "3"]


def test_a_failed_trial_is_recorded_and_the_search_goes_on(log, tmp_path, capsys):
    Stub.trouble = staticmethod(lambda number: "step 3: the loss of ['click'] is | not finite" if number > 2 else "")
    found = find(log, tmp_path / "out", trials=6)
    assert [bool(trial.reason) for trial in found.trials] == [False, False] + [True] * 5
    said = capsys.readouterr()
    assert "failed: step 3" in said.out and "Traceback" not in said.out + said.err
    tuning.write(found, tmp_path / "out", "the command")
    page = (tmp_path / "out/tune.md").read_text()
    assert "5 trials failed." in page and page.count("['click'] is \\| not finite |") == 5 and "6 of 6 trials" in page


def test_a_choice_that_breaks_a_rule_is_a_failed_trial(log, tmp_path):
    def wide(hp):
        return {"model.dropout": hp.Float("model.dropout", -1.0, 1.0, default=0.0)}

    found = find(log, tmp_path / "out", space=wide, trials=6)
    wrong = [trial for trial in found.trials if trial.values["model.dropout"] < 0]
    assert 0 < len(wrong) < 6
    for trial in found.trials:
        assert trial.reason.startswith("config.model.dropout must be in [0, 1)") == (trial in wrong)


def test_if_all_fail_that_is_an_error(log, tmp_path):
    Stub.trouble = staticmethod(lambda number: "out of memory")
    with pytest.raises(UserError, match=r"all 5 trials failed; .*Received: out of memory$"):
        find(log, tmp_path / "out")
    assert len(Stub.calls) == 5


def test_what_is_no_trials_fault_ends_the_search(log, tmp_path):
    """keras-tuner by itself would go on, and the trial be missing from the page."""
    def full(number):
        if number == 3:
            raise OSError("No space left on device")
        return ""

    Stub.trouble = staticmethod(full)
    with pytest.raises(OSError, match="No space left"):
        find(log, tmp_path / "out", processes=2)
    assert len(find(log, tmp_path / "out").trials) == 5


def test_an_undefined_objective_is_a_reason(log, tmp_path):
    with pytest.raises(UserError, match="gauc is undefined on the validation days"):
        find(log, tmp_path / "out", objective="gauc", trials=1)


def test_another_search_needs_restart(log, tmp_path):
    find(log, tmp_path / "out")
    with pytest.raises(UserError, match=r"another search.*pass --restart.*Received: different \['seed', 'trials'\]"):
        find(log, tmp_path / "out", trials=2, seed=1)
    with pytest.raises(UserError, match=r"Received: different \['space'\]"):
        find(log, tmp_path / "out", space=lambda hp: {"train.learning_rate": hp.Float("train.learning_rate", 0.1, 0.2)})
    assert len(find(log, tmp_path / "out", trials=2, seed=1, restart=True).trials) == 3


def test_a_directory_that_is_not_ours_or_in_use_is_left_alone(log, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/thesis.txt").write_text("years of work")
    for restart in (False, True):
        with pytest.raises(UserError, match="not empty and was not written by this command"):
            find(log, tmp_path / "thesis", restart=restart)
    find(log, tmp_path / "out")
    with locked(tmp_path / "out/lock", "a test"), pytest.raises(UserError, match="in use: another process is running"):
        find(log, tmp_path / "out")


@pytest.mark.parametrize("options, message", [
    ({"objective": "loss"}, r"objective must be one of \('auc', .*\), or TASK/.* Received: 'loss'"),
    ({"objective": "clack/ne"}, r"must name a task of the model. Received: 'clack'"),
    ({"tuner": "grid"}, r"tuner must be one of \('random', 'hyperband', 'bayesian'\). Received: 'grid'"),
    ({"trials": 0}, "trials must be at least 1. Received: 0"),
    ({"processes": 0}, "processes must be at least 1. Received: 0"),
    ({"space": lambda hp: {"train.learning_rate": 0.1}}, "at least one value with `hp`. Received: none"),
    ({"config": Config(train=TrainConfig(monitor="ne"))}, "config.train.monitor must be empty"),
])
def test_a_search_that_cannot_be(log, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        find(log, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_no_day_is_both_trained_and_validated_on(log, tmp_path):
    with pytest.raises(UserError, match=r"not both\. Received in both: \['20240102'\]"):
        tuning.search(CONFIG, rate, log, DAYS, "20240102", "ne", "random", 1, 0, tmp_path / "out")
