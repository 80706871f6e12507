"""The search with keras-tuner, which chooses the values to try; only this module imports it.

keras-tuner's oracles choose values and keep their state; its `BaseTuner.search` asks an oracle for a trial, runs it and
reports back. Several tuners, one in each thread, share an oracle, and each has a process in which its trials train.
"""

import copy
import json
import os
import pathlib
import queue
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras_tuner
from keras_tuner.engine import base_tuner
from keras_tuner.engine.trial import Trial as Chosen
from keras_tuner.engine.trial import TrialStatus
from keras_tuner.src import config as keras_tuner_config

from dlen_cam2 import __version__, data
from dlen_cam2.config import MONITORS, Config, as_dict, larger_is_better, replaced
from dlen_cam2.configs.spaces import Space
from dlen_cam2.schema import pbtxt
from dlen_cam2.training import train_request
from dlen_cam2.tuning.result import Found
from dlen_cam2.tuning.trial_process import TrialProcess
from dlen_cam2.tuning.trials import TRIALS, Trials
from dlen_cam2.utils import worker_processes
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import locked, read_json, replaceable, write_json

keras_tuner_config.DEBUG = False  # a trial that fails is said in a line, by us, and not by its traceback

ASKED = "search.json"
_LOCK = "lock"
# Seconds between two questions for a trial; hyperband answers "none yet" while others finish a round.
_PAUSE = 0.1
# Seconds that a thread whose process was ended has to end itself.
_LAST_WORDS = 5


def search(
    config: Config, space: Space, data_dir: str | os.PathLike, train_days: str, validation_days: str, objective: str,
    tuner: str, trials: int, seed: int, output: str | os.PathLike, processes: int = 1, restart: bool = False,
) -> Found:
    """Try `trials` choices of `space`, and `config` as given, each trained as by `dlen_cam2 train`.

    A killed search resumes when the function is called again with the same arguments (except `processes` and
    `restart`). Finished trials are kept, and a call for a finished search returns its result at once.

    Args:
        config: the configuration to start from; `train.epochs` is the largest number of passes of a trial.
            `train.monitor` must be empty.
        space: chooses the values, see `dlen_cam2.configs.spaces` (usually `spaces.fitting(config)`).
        data_dir: a data set of the pipelines.
        train_days, validation_days: the days to train on and to measure, such as "20220425..20220503". No day may be in
            both.
        objective: "ne", "auc", "gauc" (means over tasks), or for one task "click/ne". NE is minimized, others
            maximized.
        tuner: "random", "bayesian", or "hyperband" (which trains most trials for fewer passes).
        trials: the number of trials; a promotion of hyperband counts as one.
        seed: seed of the choices; weights and shuffling use `config.train.seed`.
        output: a directory for this search alone.
        processes: number of trials at the same time, each in a separate process with its share of the cores.
        restart: discard what another search left in `output`.

    Returns:
        The best configuration and all trials. A failed trial is included with its reason. There are fewer than `trials`
        if the space has no more choices.

    Raises:
        UserError: an argument cannot be used, `output` belongs to another search, or all trials failed.
    """
    _check(config, objective, tuner, {"trials": trials, "processes": processes}, data_dir)
    stages = train_request.once(config, data_dir, output, train_days, validation_days).stages
    hp = keras_tuner.HyperParameters()
    values = space(hp)
    replaced(config, values)
    if not hp.space:
        raise UserError("the search space must choose at least one value with `hp`. Received: none.")
    days = {"train_days": [day for stage in stages for day in stage.days], "validation_days": stages[-1].measured}
    known = data.statistics(data_dir)["days"]
    asked = json.loads(json.dumps({
        "version": __version__, "config": as_dict(config), "space": hp.get_config()["space"],
        "rows": {day: known[day]["rows"] for chosen in days.values() for day in chosen}, **days,
        "objective": objective, "tuner": tuner, "trials": trials, "seed": seed,
    }))
    target = replaceable(output, ASKED)
    target.mkdir(parents=True, exist_ok=True)
    with locked(target / _LOCK, "another process is running a search there"):
        _claim(target, asked, restart)
        record = Trials(config, os.fspath(data_dir), train_days, validation_days, objective, trials, target)
        oracle = _oracle(tuner, hp, objective, trials, seed, config.train.epochs)
        threads = max(worker_processes.cores() // processes, 1)
        tuners = [_Tuner(oracle, record, space, TrialProcess(threads), f"process{i}") for i in range(processes)]
        _run(tuners, oracle, list(values))
        return record.found(asked)


def _check(
    config: Config, objective: str, tuner: str, numbers: Mapping[str, int], data_dir: str | os.PathLike
) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise UserError(f"{name} must be at least 1. Received: {number}.")
    if config.train.monitor:
        raise UserError(
            "config.train.monitor must be empty, since the validation days compare trials and cannot choose passes "
            f"too. Received: {config.train.monitor!r}."
        )
    task, _, metric = objective.rpartition("/")
    if metric not in MONITORS:
        raise UserError(
            f"the objective must be one of {tuple(MONITORS)}, or TASK/ and one of these. Received: {objective!r}."
        )
    names = pbtxt.load(data_dir).select(config.model.tasks).task_names
    if task and task not in names:
        raise UserError(f"the objective must name a task of the model. Received: {task!r}. Known: {list(names)}.")
    if tuner not in _ORACLES:
        raise UserError(f"the tuner must be one of {TUNERS}. Received: {tuner!r}.")


def _claim(target: pathlib.Path, asked: Mapping[str, Any], restart: bool) -> None:
    """Claim the directory for this search, or check that it belongs to it."""
    if restart:
        for old in target.iterdir():
            if old.name != _LOCK:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
    if (target / ASKED).exists():
        before = read_json(target / ASKED)
        if different := sorted(key for key in asked if before.get(key) != asked[key]):
            raise UserError(
                f"{target} holds another search. Choose another directory, or pass --restart to discard that search. "
                f"Received: different {different}."
            )
    write_json(target / ASKED, asked)


def _run(tuners: Sequence["_Tuner"], oracle: "_Kept", keys: Sequence[str]) -> None:
    """Run the configuration as given and all remaining trials, with a thread and a process for each of `tuners`."""
    oracle.take_up()
    ended: queue.Queue[BaseException | None] = queue.Queue()

    def work(tuner: "_Tuner") -> None:
        try:
            if tuner is tuners[0]:
                tuner.record.configured(keys, tuner.process)
            tuner.search()
            ended.put(None)
        except keras_tuner.errors.FatalError as error:
            ended.put(error.__cause__)
        except BaseException as error:
            ended.put(error)

    # Daemons: after an error in one, others may wait for ever for a lock that it holds within keras-tuner.
    threads = [threading.Thread(target=work, args=(t,), name=t.tuner_id, daemon=True) for t in tuners]
    for thread in threads:
        thread.start()
    try:
        with tuners[0].record.progress:
            for _ in tuners:
                if (error := ended.get()) is not None:
                    raise error
    finally:
        for tuner in tuners:
            tuner.process.end()
        for thread in threads:
            thread.join(_LAST_WORDS)


class _Tuner(base_tuner.BaseTuner):
    """keras-tuner's loop over trials. Its own `Tuner.build` refuses tf_keras models, so this class runs the trials."""

    def __init__(self, oracle: keras_tuner.Oracle, record: Trials, space: Space, process: TrialProcess, name: str):
        super().__init__(oracle, directory=str(record.output), project_name=TRIALS)
        self.tuner_id = name
        self.record = record
        self._space = space
        self.process = process

    def pre_create_trial(self) -> None:
        time.sleep(_PAUSE)

    def run_trial(self, trial: Chosen, *arguments: Any, **options: Any) -> dict[str, float]:
        """Run a trial and return its objective.

        Raises:
            FailedTrialError: the trial failed, which is recorded.
            FatalError: anything else went wrong, its cause. Otherwise, keras-tuner would count that as a failed trial.
        """
        try:
            values = self._space(trial.hyperparameters)
            if (passes := trial.hyperparameters.values.get("tuner/epochs")) is not None:
                values = values | {"train.epochs": passes}
            done = self.record.trial(trial.trial_id, values, self.process)
        except Exception as error:
            raise keras_tuner.errors.FatalError(f"trial {trial.trial_id}") from error
        if done.reason:
            raise keras_tuner.errors.FailedTrialError(done.reason)
        return {self.record.objective: done.metrics[self.record.objective]}

    def save(self) -> None:
        """Do nothing: the oracle keeps its own state, and this tuner has none."""


class _Kept(keras_tuner.Oracle):
    """Lets threads share keras-tuner's oracles, and lets a search be killed at any moment."""

    def save(self) -> None:
        """Write the state so that the file is always whole; keras-tuner's own may be cut short."""
        write_json(self._get_oracle_fname(), self.get_state())

    def _save_trial(self, trial: Chosen) -> None:
        write_json(os.path.join(self._get_trial_dir(trial.trial_id), "trial.json"), trial.get_state())

    def create_trial(self, tuner_id: str) -> Chosen:
        """Return a copy: a tuner marks its trial as completed, visible to others, before the oracle has its score."""
        return copy.deepcopy(super().create_trial(tuner_id))

    def take_up(self) -> None:
        """Resume from the state on disk, if there is one; unfinished trials are run again first."""
        if os.path.exists(self._get_oracle_fname()):
            self.reload()
            # By the trials' own files: a kill may have come between one of these and the oracle's.
            self._retry_queue = [name for name, trial in self.trials.items() if trial.status == TrialStatus.RUNNING]


class _Random(_Kept, keras_tuner.oracles.RandomSearchOracle):
    pass


class _Bayesian(_Kept, keras_tuner.oracles.BayesianOptimizationOracle):
    pass


class _Hyperband(_Kept, keras_tuner.oracles.HyperbandOracle):
    pass


_ORACLES = {"random": _Random, "hyperband": _Hyperband, "bayesian": _Bayesian}
TUNERS = tuple(_ORACLES)


def _oracle(
    tuner: str, hp: keras_tuner.HyperParameters, objective: str, trials: int, seed: int, epochs: int
) -> _Kept:
    """Create keras-tuner's oracle, which never ends a search because of failures, and for which 0 is a valid seed."""
    options: dict[str, Any] = {"hyperband_iterations": trials, "max_epochs": epochs} if tuner == "hyperband" else {}
    oracle = _ORACLES[tuner](
        objective=keras_tuner.Objective(objective, "max" if larger_is_better(objective) else "min"),
        hyperparameters=hp, seed=seed + 1, max_consecutive_failed_trials=trials + 1, **options,
    )
    oracle.max_trials = trials  # hyperband counts brackets and takes no such argument, and yet keeps to it
    oracle.verbose = 0
    return oracle
