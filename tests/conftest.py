"""What all tests have: a collector that looks at what they make, memory that goes back, pictures that are not drawn."""

import base64
import ctypes
import gc
import inspect
import pathlib
from unittest import mock

import pytest
import tensorflow as tf
from matplotlib.figure import Figure

from dlen_cam2 import parts
from tests.support import processes

_PAGES = pathlib.Path("/proc/self/statm")
_GROWN = 100 * 2**20 // 4096  # pages
_after = {"collection": 0}
_TESTS = str(pathlib.Path(__file__).parent)
_drawn = {"now": False}
_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
_parts_of: dict[str, list[tuple[str, str, type[parts.Part]]]] = {}


def pytest_collection_finish() -> None:
    """Leave what was imported out of every collection: else a fifth of the time of tracing goes into looking at it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Logs that are read by Spark, and real ones, are slow."""
    for item in items:
        if item.path.name in ("test_engines.py", "test_kuairand_slice.py"):
            item.add_marker(pytest.mark.slow)


def pytest_sessionfinish() -> None:
    processes.end()


@pytest.fixture(autouse=True)
def _memory():
    """Models are cycles: free those of the tests before, as soon as they hold 100 MiB more than the last time."""
    yield
    if _PAGES.exists() and _resident() > _after["collection"] + _GROWN:
        tf.keras.backend.clear_session()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        _after["collection"] = _resident()


@pytest.fixture(autouse=True, scope="session")
def _pictures():
    """A picture takes as long as a small training: only tests that ask for `drawn` have theirs drawn."""
    draw = Figure.savefig

    def save(figure, path, **options):
        if _drawn["now"]:
            draw(figure, path, **options)
        elif hasattr(path, "write"):
            path.write(_PIXEL)
        else:
            pathlib.Path(path).write_bytes(_PIXEL)

    with mock.patch.object(Figure, "savefig", save):
        yield


@pytest.fixture
def drawn():
    """Pictures are drawn."""
    _drawn["now"] = True
    yield
    _drawn["now"] = False


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """Parts that a test file registers are there in that file only, although every process collects all files."""
    report = yield
    for kind, known in parts._CLASSES.items():
        for name in [name for name, part in known.items() if inspect.getfile(part).startswith(_TESTS)]:
            _parts_of.setdefault(inspect.getfile(known[name]), []).append((kind, name, known.pop(name)))
    return report


@pytest.fixture(autouse=True, scope="module")
def _parts_of_this_file(request):
    own = _parts_of.get(str(request.path), [])
    for kind, name, part in own:
        parts._CLASSES[kind][name] = part
    yield
    for kind, name, _ in own:
        parts._CLASSES[kind].pop(name, None)


def _resident() -> int:
    return int(_PAGES.read_text().split()[1])
