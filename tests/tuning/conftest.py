"""What every search has: a log, and a stub in place of training."""

import pytest

from dlen_cam2.tuning import tuner
from pipelines import simulate
from tests.support.searches import Stub


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    directory = tmp_path_factory.mktemp("log") / "data"
    simulate.write(simulate.World(rows=300, seed=1, days=3), str(directory))
    return directory


@pytest.fixture(autouse=True)
def stub(monkeypatch):
    """A search of this process trains with `Stub`."""
    Stub.calls, Stub.trouble = [], staticmethod(lambda number: "")
    monkeypatch.setattr(tuner, "TrialProcess", Stub)
    monkeypatch.setattr(tuner, "_PAUSE", 0.001)
