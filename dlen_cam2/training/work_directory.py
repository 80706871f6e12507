"""The work directory, in which a run keeps what it needs to resume: whose it is, and that nobody else writes to it."""

import contextlib
import pathlib
import shutil
from typing import Any

from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import locked, read_json, write_json

_JOB = "job.json"
_LOCK = "lock"


def claim(
    work: pathlib.Path, asked: dict[str, Any], chief: bool, restart: bool, held: contextlib.ExitStack, model_dir: str
) -> None:
    """Claim the work directory, or check that it belongs to the same run; lock it until `held` is closed.

    Args:
        work: the directory.
        asked: the request of the run.
        chief: whether this process writes to it.
        restart: discard the state of an earlier run.
        held: the stack that keeps the lock.
        model_dir: the model directory that the run will write.

    Raises:
        UserError: it belongs to another run or to somebody else, or another process holds it.
    """
    path = work / _JOB
    if chief:
        work.mkdir(parents=True, exist_ok=True)
        held.enter_context(locked(work / _LOCK, f"another process is training {model_dir}"))
        if restart:
            for old in work.iterdir():
                if old.name != _LOCK:
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
    if path.exists():
        before = read_json(path)
        if different := sorted(key for key in asked if before.get(key) != asked[key]):
            raise UserError(
                f"{work} holds the state of another run that was not finished. Finish that run, or pass --restart to "
                f"discard it. Received: different {different}."
            )
        return
    if not chief:
        return
    if strange := sorted(p.name for p in work.iterdir() if p.name != _LOCK):
        raise UserError(
            f"{work} is the working directory of the training and must be empty: remove it, or pass --restart. "
            f"Received: {strange[:5]}, and no {_JOB}."
        )
    write_json(path, asked)
