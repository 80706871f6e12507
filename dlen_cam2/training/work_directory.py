"""The directory in which a run keeps what it needs to go on: whose it is, and that nobody else writes to it."""

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
    """Make the work directory ours, or check that it is that of the same run; lock it until `held` is closed.

    Args:
        work: the directory.
        asked: what the run was asked for.
        chief: whether this process writes it.
        restart: drop the state of an earlier run.
        held: keeps the lock.
        model_dir: what the run writes in the end.

    Raises:
        UserError: it is of another run, somebody else's, or another process holds it.
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
