"""Data sets that several files read."""

import pytest

from pipelines import movielens
from tests.support import checked_sets, movielens_files


@pytest.fixture
def clean(tmp_path):
    """A data set without any fault."""
    return checked_sets.write(tmp_path / "set", checked_sets.tables())


@pytest.fixture(scope="session")
def movielens_1m(tmp_path_factory):
    """(ratings, data set, statistics, rows) of generated files in the layout of MovieLens-1M."""
    ratings = movielens_files.random_ratings()
    directory = tmp_path_factory.mktemp("movielens")
    source = movielens_files.write_1m(directory / "in", ratings)
    statistics = movielens.convert(str(directory / "out"), source)
    return ratings, directory / "out", statistics, movielens_files.read(directory / "out")
