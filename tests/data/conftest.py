"""Data sets that several files read."""

import shutil

import pytest

from dlen_cam2.data.manifest import COMPRESSIONS, LAYOUTS
from pipelines.writer.shards import Form
from tests.support.shards import write


@pytest.fixture(scope="module")
def written_once(tmp_path_factory):
    """A data set of each form, to be read only."""
    home = tmp_path_factory.mktemp("forms")
    forms = [Form(layout, compression) for layout in LAYOUTS for compression in COMPRESSIONS]
    return {(f.layout, f.compression): write(home / f"{f.layout}{f.compression}", f) for f in forms}


@pytest.fixture
def stored(written_once, tmp_path):
    """A data set of one's own."""
    return shutil.copytree(written_once["example", ""], tmp_path / "set")
