"""What an installation holds: all files of both packages, and nothing else."""

import os
import pathlib
import runpy

import pytest
import setuptools

from tests.support.builders import ROOT

PACKAGES = ("dlen_cam2", "pipelines")


@pytest.fixture(scope="module")
def packed():
    """The files that setuptools copies into a wheel, as paths in the repository. It lists them and builds nothing."""
    given = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(setuptools, "setup", given.update)
        runpy.run_path("setup.py")
        command = setuptools.Distribution(given | {"script_name": "setup.py"}).get_command_obj("build_py")
        command.ensure_finalized()
        modules = [path for _, _, path in command.find_all_modules()]
        data = [os.path.join(source, name) for _, source, _, names in command.data_files for name in names]
    return {pathlib.PurePath(path).as_posix() for path in modules + data}


def test_every_file_of_the_packages_is_installed(packed):
    """SQL that is read by its path, experiments, and modules in directories that lack an `__init__.py`."""
    files = {
        path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }
    assert {"pipelines/kuairand.sql", "dlen_cam2/configs/own/mmoe.py"} <= files
    assert packed == files
