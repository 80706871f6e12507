"""Warm start: training continues from yesterday's model."""

import os

from dlen_cam2.config import Config, as_dict
from dlen_cam2.training import model_directory
from dlen_cam2.training.distribution import Place
from dlen_cam2.training.jobs import Job, assemble
from dlen_cam2.utils.errors import UserError


def resume(
    config: Config, data_dir: str | os.PathLike, directory: str | os.PathLike, on_bad_record: str = "fail",
    place: Place | None = None,
) -> Job:
    """Load the model in `directory` with its optimizer's state, ready for further training.

    Raises:
        UserError: `directory` holds no model, or one that was built from another `config.model`.
    """
    previous = model_directory.load(directory)
    before, now = (as_dict(c.model) for c in (previous.config, config))
    if different := [key for key in now if now[key] != before[key]]:
        raise UserError(
            f"config.model must equal the one of {directory}, whose weights are continued. Received: different "
            f"{different}: {[now[key] for key in different]} in place of {[before[key] for key in different]}."
        )
    if (method := config.train.step_rule.name) != (earlier := previous.config.train.step_rule.name):
        raise UserError(
            f"config.train.step_rule must equal the one of {directory}, whose state is continued (--grow initialises "
            f"it). Received: {method!r} in place of {earlier!r}."
        )
    job = assemble(config, data_dir, previous.schema, previous.fitted, on_bad_record, place or Place())
    job.days += previous.days
    model_directory.restore(directory, job.checkpoint)
    return job
