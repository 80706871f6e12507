"""Imports go downwards only: the check that CI runs finds what is planted, and nothing in the code as it is."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.support.builders import ROOT


def lint(root):
    return subprocess.run(
        [pathlib.Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=root, capture_output=True,
        text=True, env=os.environ | {"PYTHONPATH": str(root)},
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    root = tmp_path_factory.mktemp("copy")
    for package in ("dlen_cam2", "pipelines"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__", "*.sql"))
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


@pytest.mark.parametrize(("where", "line", "broken"), [
    (None, "", ("", "")),
    ("dlen_cam2/utils/files.py", "import dlen_cam2.training", ("dlen_cam2.utils", "dlen_cam2.training")),
    ("dlen_cam2/serving/export.py", "from dlen_cam2 import tuning", ("dlen_cam2.serving", "dlen_cam2.tuning")),
    ("dlen_cam2/evaluation/slices.py", "from pipelines import simulate", ("dlen_cam2.evaluation", "pipelines")),
    ("pipelines/check.py", "from dlen_cam2 import evaluation", ("pipelines", "dlen_cam2.evaluation")),
])
def test_the_check(copy, where, line, broken):
    if where is None:
        done = lint(copy)
        assert done.returncode == 0, done.stdout
        return
    path = copy / where
    before = path.read_text()
    path.write_text(before + f"\n{line}\n")
    done = lint(copy)
    path.write_text(before)
    said = "{} is not allowed to import {}".format(*broken)
    assert done.returncode == 1 and said in " ".join(done.stdout.split()), done.stdout
