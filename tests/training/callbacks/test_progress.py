"""What a long command says while it works."""

import pyarrow as pa
import pytest

from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.training.callbacks.progress import Progress
from dlen_cam2.utils import console
from pipelines.writer import dataset, shards
from pipelines.writer.shards import Form


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


def shown_in(work, batch_size, clock, seconds):
    """The steps of a pass, each of which takes as long as `seconds` says."""
    with work:
        shown = Progress(work, batch_size)
        for batch, spent in enumerate(seconds):
            clock.now += spent
            shown.on_train_batch_end(batch, {"loss": 1.0})
        shown.on_train_end({"loss": 1.0})


@pytest.mark.parametrize(("done", "seconds"), [
    (0, [30, 1, 1, 1]),  # the first step takes half a minute, which is no speed
    (2, [30, 1]),  # a pass that was interrupted
])
def test_the_rate_leaves_the_first_step_out(monkeypatch, capsys, done, seconds):
    clock = Clock()
    monkeypatch.setattr(console, "time", clock)
    shown_in(console.Progress("pass 1/1", 400, done=done * 100), 100, clock, seconds)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"pass 1/1: 400 rows in {sum(seconds)} s, 100 rows/s, loss 1.0000"


def test_the_rate_of_a_single_step_is_that_step(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(console, "time", clock)
    shown_in(console.Progress("pass 1/1", 80), 100, clock, [2])
    assert capsys.readouterr().out == "pass 1/1: 80 rows in 2 s, 40 rows/s, loss 1.0000\n"


def test_workers_are_there_before_the_first_rows():
    with shards.processes(Form(workers=2)) as pool:
        assert len(pool._processes) == 2


def test_a_splits_rate_does_not_count_what_is_loaded_before(monkeypatch, tmp_path, capsys):
    clock = Clock()

    class Slow(dataset.Statistics):
        """TensorFlow takes long to load."""

        def __init__(self, schema):
            clock.now += 60
            super().__init__(schema)

        def add(self, table):
            clock.now += 2
            super().add(table)

    monkeypatch.setattr(dataset, "time", clock)
    monkeypatch.setattr(dataset, "Statistics", Slow)
    schema = Schema("s", (Feature("v", "float", "item", "content"),), (Task("click"),))
    rows = pa.table({"v": pa.array([0.5] * 100), "click": [0, 1] * 50})
    dataset.write_dataset(tmp_path / "out", schema, [("20250101", rows)], {})
    assert "20250101: 100 rows, 1 shards, 0.0 MB, 50 rows/s" in capsys.readouterr().out
