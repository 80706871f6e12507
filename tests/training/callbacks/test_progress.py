"""What a long command says while it works."""

import re

import pyarrow as pa
import pytest

from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.training.callbacks import progress
from dlen_cam2.training.callbacks.progress import Progress
from pipelines.writer import dataset, shards
from pipelines.writer.shards import Form


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.mark.parametrize(("done", "seconds", "rate"), [
    (0, [30, 1, 1, 1], 100),  # the first step takes half a minute, which is no speed
    (2, [30, 1], 100),  # a pass that was interrupted
])
def test_the_rate_leaves_the_first_step_out(monkeypatch, capsys, done, seconds, rate):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    shown = Progress(400, 100, "pass 1/1", done, every=0.5)
    shown.on_train_begin()
    for batch, spent in enumerate(seconds):
        clock.now += spent
        shown.on_train_batch_end(batch, {"loss": 1.0})
    shown.on_train_end({"loss": 1.0})
    rates = re.findall(r"([\d,]+) rows/s", capsys.readouterr().out)
    assert rates[-1] == str(rate)


def test_the_rate_of_a_single_step_is_that_step(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    shown = Progress(80, 100, "pass 1/1")
    shown.on_train_begin()
    clock.now += 2
    shown.on_train_batch_end(0, {"loss": 1.0})
    shown.on_train_end({"loss": 1.0})
    assert "(100%), 40 rows/s" in capsys.readouterr().out


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
