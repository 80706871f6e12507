"""The log that grows."""

import pytest

from tests.support import growth


@pytest.fixture(scope="session")
def log(tmp_path_factory):
    return growth.written(tmp_path_factory.mktemp("growth"))
