"""The log that grows."""

import pytest

from tests.support import growth


@pytest.fixture(scope="session")
def log(tmp_path_factory):
    return growth.written(tmp_path_factory.mktemp("growth"))


@pytest.fixture(scope="session")
def yesterday(log, tmp_path_factory):
    """Yesterday's model as `growth.config` has it: the job and its directory, which tests only read."""
    directory = tmp_path_factory.mktemp("yesterday") / "m"
    return growth.trained(log, directory), directory
