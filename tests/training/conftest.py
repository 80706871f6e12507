"""Data sets that several files read."""

import pytest

from pipelines import simulate


@pytest.fixture(scope="session")
def log(tmp_path_factory):
    """A small simulated data set of five days."""
    directory = tmp_path_factory.mktemp("runs") / "data"
    simulate.write(simulate.World(rows=4000, seed=1, days=5), str(directory))
    return directory
