"""The job that a request asks for: a new model, yesterday's, or yesterday's in a larger schema."""

from collections.abc import Mapping
from typing import Any

from dlen_cam2.training import grow, jobs, warm_start
from dlen_cam2.training.distribution import Place
from dlen_cam2.training.jobs import Job
from dlen_cam2.training.train_request import Request
from dlen_cam2.utils import console
from dlen_cam2.utils.errors import UserError


def make(wanted: Request, place: Place) -> Job:
    """Create the job, with new weights or those from which it continues.

    Raises:
        UserError: the configuration, the data or yesterday's model cannot be used, or a day was already trained on.
    """
    if any(stage.daily for stage in wanted.stages):
        jobs.check_daily(wanted.config, place)
    days = [day for stage in wanted.stages for day in stage.days]
    if wanted.continue_from is None:
        return jobs.start(wanted.config, wanted.data_dir, wanted.fitted, wanted.on_bad_record, place)
    arguments = (wanted.on_bad_record, place)
    if wanted.grow:
        job = grow.resume(wanted.config, wanted.data_dir, wanted.continue_from, wanted.fitted, *arguments)
    else:
        job = warm_start.resume(wanted.config, wanted.data_dir, wanted.continue_from, *arguments)
    measured = [day for stage in wanted.stages for day in stage.measured]
    if again := [day for day in (*days, *measured, *wanted.validation) if day in job.days]:
        raise UserError(
            f"a day that {wanted.continue_from} was trained on may not be trained on again or measured. "
            f"Received: {again}."
        )
    return job


def announce(job: Job, wanted: Request, described: Mapping[str, Any]) -> None:
    """Print what is trained, where and how."""
    network, schema = job.network, job.schema
    console.say(f"{network.name}: {network.count_params():,} parameters, {len(schema.features)} features, "
                f"tasks {', '.join(schema.task_names)}")
    for state in job.fitted.values():
        console.say(state.describe())
    console.say(", ".join(f"{key} {value}" for key, value in described.items()))
    if any(stage.daily for stage in wanted.stages):
        daily = wanted.config.train.daily
        console.say(f"daily steps (config.train.daily): {daily.epochs} passes, rates times {daily.rates:g}, cooldown "
                    f"{daily.cooldown:g}")
    if job.place.asynchronous:
        tables = network.get_layer("embeddings").tables
        sharded = sum(hasattr(t, "variables") for t in tables)
        console.say(f"{sharded} of {len(tables)} tables are sharded across the parameter servers")
    console.say(f"to watch the training: tensorboard --logdir={wanted.work / 'tensorboard'}")
