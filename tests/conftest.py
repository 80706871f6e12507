"""What all tests have: a garbage collector that looks at what tests make, and memory that one file leaves to the next."""

import gc

import pytest
import tensorflow as tf


def pytest_collection_finish() -> None:
    """Leave what was imported out of every collection: else a fifth of the time of tracing goes into looking at it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


@pytest.fixture(autouse=True, scope="module")
def _memory():
    """Drop the graphs that Keras holds, when a file is through."""
    yield
    tf.keras.backend.clear_session()
    gc.collect()
