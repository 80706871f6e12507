"""Two tasks of known correlation."""

import numpy as np
import pytest

from dlen_cam2.utils.errors import UserError
from pipelines import correlated


def test_the_labels_correlation_rises_with_that_of_the_weights():
    found = [np.corrcoef(correlated.draw(p, 20_000, 16, seed=3)[1].T)[0, 1] for p in (0.0, 0.2, 0.5, 0.8, 1.0)]
    assert found == sorted(found) and abs(found[0]) < 0.05 and found[-1] > 0.99


def test_the_first_task_does_not_depend_on_the_correlation():
    (x, first), (same, other) = (correlated.draw(p, 100, 8, seed=1) for p in (0.0, 1.0))
    assert np.array_equal(x, same) and np.array_equal(first[:, 0], other[:, 0])
    assert not np.allclose(first[:, 1], other[:, 1])


@pytest.mark.parametrize("arguments, message", [
    ((1.5, 100, 8, 0), r"--correlation must be in \[-1, 1\]. Received: 1.5"),
    ((0.5, 100, 1, 0), "--columns must be at least 2"),
])
def test_what_cannot_be_drawn(arguments, message):
    with pytest.raises(UserError, match=message):
        correlated.draw(*arguments)
