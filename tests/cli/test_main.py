"""The one door to all commands: what it lists, what it runs, what it refuses."""

import pathlib
import re
import sys

import pytest

from dlen_cam2 import __main__, __version__, cli
from tests.support.builders import run

ALL = sorted(p.stem for p in pathlib.Path(cli.__path__[0]).glob("[!_]*.py"))


def said(capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["dlen_cam2", *arguments])
    __main__.main()
    return capsys.readouterr().out


@pytest.mark.parametrize("arguments", [(), ("--help",), ("help",)])
def test_help_lists_every_command_with_a_line(capsys, monkeypatch, arguments):
    text = said(capsys, monkeypatch, *arguments)
    lines = dict(re.findall(r"^  (\w+) +(\S.*)$", text, re.MULTILINE))
    assert sorted(lines) == ALL and len(ALL) == 14
    assert all(line.endswith(".") and len(line) < 90 for line in lines.values())


def test_version(capsys, monkeypatch):
    assert said(capsys, monkeypatch, "--version") == f"dlen_cam2 {__version__}\n"


def test_an_unknown_command_is_refused(capsys, monkeypatch):
    with pytest.raises(SystemExit) as ended:
        said(capsys, monkeypatch, "trian", "--x=1")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: dlen_cam2 has no command 'trian'. Did you mean train? Known: ")
    with pytest.raises(SystemExit):
        said(capsys, monkeypatch, "../train")


@pytest.mark.slow
def test_a_command_has_its_flags_and_says_how_it_is_called():
    helped = run("dlen_cam2", "predict", "--helpshort")
    assert "Score the first rows of a day" in helped.stdout and "--data_dir" in helped.stdout
    wrong = run("dlen_cam2", "predict", "--rows=many")
    assert wrong.returncode == 2 and "Pass --helpshort to dlen_cam2 predict to see its flags." in wrong.stderr
