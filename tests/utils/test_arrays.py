"""Named arrays in one file: texts among numbers, whole or absent, and nothing that has to be unpickled."""

import zipfile

import numpy as np
import pytest

from dlen_cam2.evaluation import Predictions, evaluate
from dlen_cam2.experiments import cells
from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.utils import arrays

TEXTS = np.array(["b", "", "ü 🙂", "a\0", "b", "x" * 5000], object)


@pytest.mark.parametrize("texts", [TEXTS, np.array([t.encode() for t in TEXTS], object), TEXTS.astype("U")])
@pytest.mark.parametrize("compress", [False, True])
def test_what_is_saved_is_loaded(tmp_path, texts, compress):
    given = {"keys/user": texts, "none": np.zeros(0, object), "p": np.arange(6.0).reshape(2, 3), "n": np.array(7)}
    arrays.save(tmp_path / "new" / "a.npz", given, compress)
    found = arrays.load(tmp_path / "new" / "a.npz")
    assert found.keys() == given.keys()
    assert found["keys/user"].tolist() == [str(t).encode() if isinstance(t, str) else t for t in texts]
    assert found["none"].shape == (0,)
    np.testing.assert_array_equal(found["p"], given["p"])
    assert found["n"] == 7
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.npz"]


def test_no_array_is_pickled(tmp_path):
    arrays.save(tmp_path / "a.npz", {"user": TEXTS})
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                np.lib.format.read_magic(file)
                assert not np.lib.format.read_array_header_1_0(file)[2].hasobject


def test_other_objects_are_refused_and_leave_nothing(tmp_path):
    with pytest.raises(TypeError, match="array 'user' must hold numbers or texts. Received: object"):
        arrays.save(tmp_path / "a.npz", {"user": np.array(["a", None], object)})
    assert not list(tmp_path.iterdir())


SCHEMA = Schema("log", (Feature("who", "string", "user", "content", size=8, hashed=True, width=2),), (Task("click"),),
                keys={"user": "who"})


def predictions(users):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (len(users), 1)).astype(np.float32)
    p = rng.random((len(users), 1)).astype(np.float32)
    return Predictions(labels, np.ones_like(labels), p, None, {"click": p[:, 0]}, {}, {}, {"user": users})


def test_predictions_of_text_users_are_saved_and_measured_like_those_of_numbers(tmp_path):
    numbers = np.random.default_rng(1).integers(10, 30, 200)
    texts = np.array([f"user {n}".encode() for n in numbers], object)
    predictions(texts).save(tmp_path / "p.npz")
    found = Predictions.load(tmp_path / "p.npz")
    assert found.keys["user"].tolist() == texts.tolist()
    assert evaluate(found, SCHEMA) == evaluate(predictions(numbers), SCHEMA)


def test_a_cell_keeps_text_users(tmp_path):
    made = cells.cell(tmp_path, "mmoe", {}, lambda: {"keys/user": TEXTS})
    kept = cells.cell(tmp_path, "mmoe", {}, lambda: pytest.fail("computed again"))
    assert kept["keys/user"].tolist() == [t.encode() for t in made["keys/user"]]


@pytest.mark.parametrize("array", [np.zeros(2, [("a", object)]), np.array([["a"]], object), np.array("a"),
                                   np.array(["2020-01-01"], "M8[D]")])
def test_what_would_be_pickled_or_changed_is_refused(tmp_path, array):
    with pytest.raises(TypeError, match="array 'x' must hold numbers, or texts in one dimension"):
        arrays.save(tmp_path / "a.npz", {"x": array})


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY\x01\x00", b"nothing of ours" * 9])
def test_a_damaged_file_is_a_value_error_and_its_cell_is_computed_again(tmp_path, content):
    cells.cell(tmp_path, "mmoe", {}, lambda: {"p": np.ones(3)})
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    with pytest.raises(ValueError):
        arrays.load(path)
    assert cells.cell(tmp_path, "mmoe", {}, lambda: {"p": np.zeros(3)})["p"].tolist() == [0, 0, 0]
