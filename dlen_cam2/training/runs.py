"""A run of `train`: a job with its checkpoints, from the first step or from where it was killed to a model directory.

During training, `MODEL_DIR.training` holds everything needed to resume: `job.json` (what was asked for),
`checkpoints/`, `best/` (weights of the best pass), `measured/` (predictions of days that are done), `tensorboard/` and
`log.jsonl`. The same command resumes from there. At the end, the model directory is written as a whole and
`MODEL_DIR.training` is removed.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from dlen_cam2 import __version__, data, evaluation
from dlen_cam2.config import MONITORS, as_dict, larger_is_better
from dlen_cam2.evaluation import Predictions, report
from dlen_cam2.evaluation.daily_step import DailySteps
from dlen_cam2.training import checkpoints, model_directory, passes, wanted_job, work_directory
from dlen_cam2.training.callbacks.checkpointing import Checkpointing
from dlen_cam2.training.callbacks.tensorboard import Profiler, TensorBoard
from dlen_cam2.training.distribution import Place
from dlen_cam2.training.failures import NONFINITE, check_finite, named_causes
from dlen_cam2.training.monitor import monitored
from dlen_cam2.training.plan import Stage
from dlen_cam2.training.train_request import Request
from dlen_cam2.utils import console
from dlen_cam2.utils.errors import Interrupted, UserError
from dlen_cam2.utils.event_log import EventLog
from dlen_cam2.utils.files import replaceable, staged, write_json


def train(
    wanted: Request, place: Place | None = None, callbacks: Sequence[tf.keras.callbacks.Callback] = ()
) -> dict[str, Any]:
    """Train, measure and write the model directory as a whole, or resume an unfinished run.

    Args:
        wanted: the request: what to train, and on what.
        place: where to train; default: one device.
        callbacks: additional Keras callbacks.

    Returns:
        The metrics, `{split: {task: {…}}}`, as in `metrics.json`.

    Raises:
        UserError: the configuration, the data or a directory cannot be used; or training diverged, ran out of memory,
            or lost a peer, see `dlen_cam2.training.failures`.
        Interrupted: the process received SIGTERM; the state is saved.
    """
    replaceable(wanted.model_dir, model_directory.CONFIG)
    place = place or Place()
    with named_causes(place), contextlib.ExitStack() as held:
        run = Run(wanted, place, held)
        try:
            return run.finish(callbacks)
        except UserError:
            run.drop_if_nothing_to_go_on_from()
            raise


class Run:
    """One process of a run. It builds the job, and restores the newest checkpoint if there is one.

    The work directory is locked until `held` is closed.
    """

    def __init__(self, wanted: Request, place: Place, held: contextlib.ExitStack):
        self.wanted = wanted
        self.config = wanted.config
        self.work = wanted.work
        described = place.describe(self.config.train)
        self.job = wanted_job.make(wanted, place)
        task = self.config.train.monitor.rpartition("/")[0]
        if task and task not in self.job.schema.task_names:
            raise UserError(
                f"config.train.monitor must name a task of the model. Received: {task!r}. "
                f"Known: {list(self.job.schema.task_names)}."
            )
        self.checkpoints = checkpoints.Checkpoints(self.work / "checkpoints", wanted.keep)
        self.best: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {}
        self.steps = DailySteps(self.work / "before", self.job.schema)
        self.asked_to_stop = False
        work_directory.claim(self.work, self._asked(), place.chief, wanted.restart, held, os.fspath(wanted.model_dir))
        self._score = evaluation.scorer(self.job.scored, self.job.read_out)
        self.log = EventLog(self.work / "log.jsonl" if place.chief else None)
        wanted_job.announce(self.job, wanted, described)
        network = self.job.network
        self.log.event("start", model=network.name, parameters=network.count_params(), **described)
        self._restore()

    def _asked(self) -> dict[str, Any]:
        """The part of the request that is the same in every process of a run."""
        wanted = self.wanted
        recorded = data.statistics(wanted.data_dir)["days"]
        return json.loads(json.dumps({
            "version": __version__, "config": as_dict(self.config), "strategy": self.job.place.name,
            "replicas": self.job.place.replicas, "stages": [dataclasses.asdict(s) for s in wanted.stages],
            "validation": wanted.validation, "grow": wanted.grow,
            "continue_from": wanted.continue_from and os.fspath(wanted.continue_from),
            "rows": {day: recorded[day]["rows"] for s in wanted.stages for day in s.days},
        }))

    def _restore(self) -> None:
        if self.job.place.chief:
            self.checkpoints.tidy()
        state = self.checkpoints.restore(self.job.checkpoint)
        if state is not None:
            self._set(state)
            step = self.job.step
            at = self.job.position
            console.say(f"resuming at step {step:,}: stage {at.stage + 1}, pass {at.epoch + 1}, step {at.step:,} of it")
            self.log.event("resumed", step=step, position=dataclasses.asdict(self.job.position))

    def drop_if_nothing_to_go_on_from(self) -> None:
        """After an error, remove the work directory unless it holds something to resume from."""
        if self.job.place.chief and not self.checkpoints.numbers() and not (self.work / NONFINITE).exists():
            shutil.rmtree(self.work, ignore_errors=True)

    def _state(self) -> dict[str, Any]:
        """The state in a checkpoint that is not a tensor."""
        return {
            "position": dataclasses.asdict(self.job.position), "days": self.job.days, "best": self.best,
            "metrics": self.metrics, "steps": self.steps.found,
        }

    def _set(self, state: dict[str, Any]) -> None:
        for key, value in state["position"].items():
            setattr(self.job.position, key, value)
        self.job.days[:] = state["days"]
        self.best, self.metrics, self.steps.found = state["best"], state["metrics"], state["steps"]

    def look(self) -> None:
        """Raise `Diverged` if a step was not finite."""
        check_finite(self.job, self.wanted.stages, self.work)

    def save(self) -> None:
        """Write a checkpoint, in the chief only."""
        self.look()
        if self.job.place.chief:
            start = time.monotonic()
            written = self.checkpoints.save(self.job.checkpoint, self._state())
            seconds = round(time.monotonic() - start, 3)
            self.log.event("checkpoint", step=self.job.step, written=written, seconds=seconds)

    def finish(self, callbacks: Sequence[tf.keras.callbacks.Callback] = ()) -> dict[str, Any]:
        """Do all the work that is left."""
        with self._signals():
            self._measure()
            self._look_ahead()
            for stage in passes.passes(self.job, self.wanted.stages, [*self._callbacks(), *callbacks], self.log):
                # `position` is behind this pass already: at the next one, or at the next stage.
                if self.config.train.monitor:
                    self._validate(stage)
                self.save()
                self.stop_if_asked()
                self._measure()
                self._look_ahead()
        if self.job.place.chief:
            if pathlib.Path(self.wanted.model_dir, model_directory.CONFIG).exists():
                console.say(f"the earlier model in {self.wanted.model_dir} is replaced")
            with staged(self.wanted.model_dir, model_directory.CONFIG) as directory:
                self._publish(directory)
            shutil.rmtree(self.work)
        self.job.place.together()
        return self.metrics

    def _callbacks(self) -> list[tf.keras.callbacks.Callback]:
        callbacks: list[tf.keras.callbacks.Callback] = [Checkpointing(self)]
        if self.job.place.chief:
            logs = self.work / "tensorboard"
            looked_at = None
            if not self.job.place.asynchronous:
                days = self.wanted.stages[0].days
                with data.explained(self.wanted.data_dir, self.job.schema, days):
                    looked_at = next(iter(passes.batches(self.job, days).take(1)))[0]
            callbacks.append(TensorBoard(logs, self.job.network, self.job.read_out, looked_at, self.job.step))
            if self.wanted.profile_steps:
                callbacks.append(Profiler(logs, *self.wanted.profile_steps))
        return callbacks

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """While the block runs, SIGTERM asks for a stop after the current step."""

        def ask(number: int, frame: Any) -> None:
            self.asked_to_stop = True

        before = signal.signal(signal.SIGTERM, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def stop_if_asked(self) -> None:
        """Raise `Interrupted` if SIGTERM was received; the caller has saved the state."""
        if self.asked_to_stop:
            self.log.event("interrupted", step=self.job.step)
            raise Interrupted(
                f"SIGTERM at step {self.job.step:,}. The state is saved in {self.work}; the same command resumes."
            )

    def _validate(self, stage: Stage) -> None:
        """Compute the monitored metric; keep the best weights of a stage, and end it when patience runs out."""
        train, position = self.config.train, self.job.position
        self.job.refresh()
        shown = {day: self._predictions(day) for day in self.wanted.validation}
        metrics = {day: evaluation.evaluate(p, self.job.schema, bootstrap=0) for day, p in shown.items()}
        value = monitored(metrics, train.monitor)
        larger = larger_is_better(train.monitor)
        first = not self.best or self.best["stage"] != list(stage.days)
        better = first or (value > self.best["value"] if larger else value < self.best["value"])
        if better:
            self.best = {"stage": list(stage.days), "value": value, "waited": 0}
            if self.job.place.chief:
                checkpoints.write(self.work / "best", self.job.checkpoint, {})
        else:
            self.best["waited"] += 1
        console.say(f"{train.monitor} on {', '.join(self.wanted.validation)}: {value:.5f}"
                    + ", the best so far" * better)
        self.log.event("validation", step=self.job.step, metric=train.monitor, value=value, best=self.best["value"])
        if train.patience and self.best["waited"] >= train.patience and position.epoch > 0:
            console.say(f"stopping early: {self.best['waited']} passes without a better {train.monitor}")
            position.stage, position.epoch = position.stage + 1, 0
        if position.epoch == 0 and not better:
            iterations = self.job.step
            checkpoints.read(self.work / "best", self.job.checkpoint)
            self.log.event("best restored", step=iterations, of=self.job.step)
            if stage.daily:
                self.job.refresh()
                shown = {day: self._predictions(day) for day in self.wanted.validation}
        if stage.daily and position.epoch == 0:
            for day, predictions in shown.items():
                self._compare(stage, day, predictions)

    def _predictions(self, day: str) -> Predictions:
        return evaluation.predict(
            self._score, self.job.schema, self.wanted.data_dir, day, on_bad_record=self.wanted.on_bad_record
        )

    def _measure(self) -> None:
        """Measure the splits of the stage before `position`, unless they are measured already."""
        job, position = self.job, self.job.position
        if not job.place.chief or position.stage == 0 or position.epoch or position.step:
            return
        days = [day for day in self.wanted.stages[position.stage - 1].measured if day not in self.metrics]
        if not days:
            return
        job.refresh()
        for day in days:
            predictions = self._predictions(day)
            predictions.save(self.work / "measured" / f"{day}.npz")
            if (stage := self.wanted.stages[position.stage - 1]).daily:
                self._compare(stage, day, predictions)
            self.metrics[day] = evaluation.evaluate(predictions, job.schema, self.config.train.bootstrap)
            shown = {task: {k: m[k] for k in MONITORS if k in m} for task, m in self.metrics[day].items()}
            self.log.event("measured", step=job.step, day=day, tasks=shown)
        self.save()
        self.stop_if_asked()

    def _look_ahead(self) -> None:
        """Before a daily step, score the splits to be measured after it and validation days with the current model."""
        position, stages = self.job.position, self.wanted.stages
        if not self.job.place.chief or position.stage == len(stages) or position.epoch or position.step:
            return
        if stages[position.stage].daily:
            self.job.refresh()
            for day in dict.fromkeys((*stages[position.stage].measured, *self.wanted.validation)):
                self.steps.look_ahead(day, self._predictions(day))

    def _compare(self, stage: Stage, day: str, after: Predictions) -> None:
        self.log.event("step", step=self.job.step, day=day, tasks=self.steps.compare(day, stage.days[-1], after))

    def _publish(self, stage: pathlib.Path) -> None:
        """Write the model directory."""
        job = self.job
        predictions = {day: Predictions.load(self.work / "measured" / f"{day}.npz") for day in self.metrics}
        model_directory.save(stage, self.config, job.schema, job.fitted, job.checkpoint, job.days)
        trained = sorted({day for s in self.wanted.stages for day in s.days})
        title = f"{trained[0]}..{trained[-1]}" if len(trained) > 1 else trained[0]
        if before := [day for day in job.days if day not in trained]:
            title += f", after {before[0]}..{before[-1]} (the model in {self.wanted.continue_from})"
        report.write(stage, self.config, job.schema, self.metrics, predictions, title,
                     self.steps.section())
        write_json(stage / model_directory.METRICS, self.metrics)
        self.log.event("done", step=job.step, days=job.days)
        shutil.copytree(self.work / "tensorboard", stage / "tensorboard")
        shutil.copy(self.work / "log.jsonl", stage / "log.jsonl")
