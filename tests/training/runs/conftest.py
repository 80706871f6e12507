"""A run that nothing stops."""

import pytest

from tests.support.stopped_runs import train


@pytest.fixture(scope="session")
def whole(log, tmp_path_factory):
    """The model of a run that nothing stops."""
    directory = tmp_path_factory.mktemp("whole") / "m"
    train(log, directory)
    return directory
