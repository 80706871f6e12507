"""A grid of cells, trained in processes of their own as the cores allow, and resumed where it was stopped."""

import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from dlen_cam2.experiments.cells import Arrays, cell, load
from dlen_cam2.utils import console, worker_processes
from dlen_cam2.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        name: of the cell and its files, such as "mmoe-seed0".
        key: all that the result depends on, as plain data; see `cell`.
        compute: trains and returns named arrays; a function of a module, since another process calls it.
        arguments: of `compute`.
    """

    name: str
    key: Mapping[str, Any]
    compute: Callable[..., Arrays]
    arguments: tuple[Any, ...]


def run(cells: Sequence[Cell], directory: str | os.PathLike, processes: int = 0) -> dict[str, Arrays]:
    """The arrays of all cells by name; what an earlier call finished is kept.

    Several processes divide the cores between them as threads, and what a cell prints goes to `NAME.log` beside it.
    With one, cells run in this process and print.

    Args:
        cells: what to compute, of distinct names.
        directory: where cells are kept.
        processes: how many cells at a time; 0: as many as there are cores.

    Raises:
        UserError: cells failed; all others are finished first, and kept.
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    found = {c.name: load(directory, c.name, c.key) for c in cells}
    missing = [c for c in cells if found[c.name] is None]
    console.say(f"{len(missing)} cells to train, {len(cells) - len(missing)} finished earlier ({directory})")
    processes = min(processes or worker_processes.cores(), max(len(missing), 1))
    failed: dict[str, str] = {}
    # The generator holds the processes, which have to end before an error is reported.
    with (contextlib.closing(_each(missing, directory, processes)) as finished,
          console.Progress("cells", len(missing), "cells") as progress):
        for one, reason in finished:
            if reason:
                failed[one.name] = reason
            progress.advance(said=f"{len(failed)} failed" if failed else "")
            console.say(f"cell {one.name} {f'failed: {reason}' if reason else 'is done'}")
    if failed:
        listed = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise UserError(f"{len(failed)} of {len(cells)} cells failed; the others are kept in {directory}. "
                        f"Received: {listed}")
    found |= {c.name: load(directory, c.name, c.key) for c in missing}
    arrays = {name: found[name] for name in found if found[name] is not None}
    if lost := sorted(set(found) - set(arrays)):
        raise UserError(f"{directory} was changed while the suite ran: start it again. Received: no {lost} any more.")
    return arrays  # type: ignore[return-value]


def _each(cells: Sequence[Cell], directory: pathlib.Path, processes: int) -> Generator[tuple[Cell, str], None, None]:
    """Each cell when it is finished, and why it failed."""
    if processes == 1:
        for one in cells:
            yield one, _finish(one, directory)
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), worker_processes.prepare,
        (max(1, worker_processes.cores() // processes),)
    )
    try:
        running = {pool.submit(_finish_quietly, one, directory): one for one in cells}
        for future in concurrent.futures.as_completed(running):
            try:
                yield running[future], future.result()
            except concurrent.futures.process.BrokenProcessPool as error:
                raise UserError(
                    f"a process of the suite was ended from outside, or memory ran out. Finished cells are kept in "
                    f"{directory}: start the command again, with fewer --processes if memory is short."
                ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _finish_quietly(one: Cell, directory: pathlib.Path) -> str:
    """The same, with all that this process prints in `NAME.log`."""
    worker_processes.output_to(directory / f"{one.name}.log")
    return _finish(one, directory)


def _finish(one: Cell, directory: pathlib.Path) -> str:
    """Compute and keep a cell; returns why it failed, or nothing."""
    try:
        cell(directory, one.name, one.key, lambda: one.compute(*one.arguments))
    except Exception as error:  # whatever it is, the other cells are to be finished
        return worker_processes.reason(error)
    finally:
        tf.keras.backend.clear_session()  # or the graphs of all cells would stay in memory
    return ""
