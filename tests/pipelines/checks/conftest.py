"""What the tests of single checks spare."""

import pytest

from dlen_cam2 import data


@pytest.fixture
def unread(monkeypatch):
    """Spares the pass that reads every split as training does, most of a check's time and a matter of other tests."""
    monkeypatch.setattr(data, "read", lambda *_: ())
