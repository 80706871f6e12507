"""Cells in processes of their own: kept, resumed, and what happens when one fails or dies."""

import os
import time

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.experiments import grid
from dlen_cam2.utils import worker_processes
from dlen_cam2.utils.errors import UserError

pytestmark = pytest.mark.slow


def work(value, wanted="done"):
    """What a cell does; other processes import it from here."""
    print(f"works on {value}")
    if wanted == "fail":
        raise ValueError(f"no answer for {value}")
    if wanted == "die":
        os._exit(1)
    if wanted == "sleep":
        time.sleep(60)
    return {"value": np.array(value), "pid": np.array(os.getpid()),
            "threads": np.array(tf.config.threading.get_intra_op_parallelism_threads())}


def cell(value, wanted="done"):
    return grid.Cell(f"cell{value}", {"value": value}, work, (value, wanted))


def test_cells_run_in_processes_and_are_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(worker_processes, "cores", lambda: 6)
    cells = [cell(0), cell(1, "fail"), cell(2)]
    with pytest.raises(UserError, match="1 of 3 cells failed; the others are kept .*cell1: ValueError: no answer for"):
        grid.run(cells, tmp_path, processes=2)
    assert "cells: 3 cells in" in capsys.readouterr().out
    logs = {path.name: path.read_text() for path in tmp_path.glob("*.log")}
    assert set(logs) == {"cell0.log", "cell1.log", "cell2.log"}
    assert "works on 0" in logs["cell0.log"] and "no answer for 1" in logs["cell1.log"]

    found = grid.run([cell(0, "fail"), cell(1), cell(2, "fail")], tmp_path, processes=2)  # 0 and 2 are there already
    assert "1 cells to train, 2 finished" in capsys.readouterr().out
    assert {name: int(arrays["value"]) for name, arrays in found.items()} == {"cell0": 0, "cell1": 1, "cell2": 2}
    assert found["cell0"]["pid"] != os.getpid() and found["cell0"]["threads"] == 3  # its share of six cores
    assert found["cell1"]["pid"] == os.getpid()  # one that is left needs no other process


def test_a_process_that_dies_is_said(tmp_path):
    with pytest.raises(UserError, match="was ended from outside, or memory ran out.*start the command again"):
        grid.run([cell(0, "die"), cell(1, "sleep")], tmp_path, processes=2)


def test_another_key_is_another_cell(tmp_path):
    grid.run([cell(0)], tmp_path, processes=1)
    other = grid.Cell("cell0", {"value": "other"}, work, (7,))
    assert int(grid.run([other], tmp_path, processes=1)["cell0"]["value"]) == 7
    assert len(list(tmp_path.glob("*.npz"))) == 2
