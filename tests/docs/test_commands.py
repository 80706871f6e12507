"""Every command that the README and the documentation show is one that exists, with flags that it has."""

import importlib
import pathlib
import re
import shlex
import sys
from unittest import mock

import pytest
from absl import flags

from dlen_cam2 import config_file
from dlen_cam2.utils import commands

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Pages that a command wrote, as it was called at the time.
WRITTEN = [page for page in PAGES if page.name == "report.md"]


def shown(page: pathlib.Path) -> list[list[str]]:
    """The commands of ours in a page's shell blocks, as lists of words."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            # Variables of the environment may come first.
            if command := re.match(r"(?:[A-Z_]+=\S+ )*((?:dlen_cam2|python -m) .*)", line):
                found.append(shlex.split(command[1], comments=True))
    return found


def is_ours(words: list[str]) -> bool:
    """A command with flags: no `--help`, and no module of others (pytest, venv) or of the benchmarks."""
    return words[-1] not in ("--help", "--helpfull", "--version") and module_of(words)[0].startswith(
        ("dlen_cam2.cli.", "pipelines."))


def module_of(words: list[str]) -> tuple[str, list[str]]:
    """The module that a command runs, and its flags."""
    if words[0] == "dlen_cam2":
        return f"dlen_cam2.cli.{words[1]}", words[2:]
    return words[2], words[3:]


ALL = [(page.relative_to(ROOT).as_posix(), words) for page in PAGES if page not in WRITTEN for words in shown(page)
       if is_ours(words)]


@pytest.mark.parametrize(("page", "words"), ALL, ids=[f"{page}: {' '.join(words)[:70]}" for page, words in ALL])
def test_commands_of_the_documentation_exist(page, words):
    """Flags are defined and parsed as the command does it, and the configuration is read with its overrides."""
    name, arguments = module_of(words)
    module = importlib.import_module(name)
    known = set(flags.FLAGS)
    with mock.patch.object(sys, "argv", [name, *arguments]):
        try:
            module.define_flags()
            commands.define_common_flags()
            if "…" in arguments:  # which stands for flags that the page showed before
                sys.argv.remove("…")
                for flag in set(flags.FLAGS) - known:
                    flags.FLAGS[flag].validators.clear()  # among them that a flag must be given
            left = flags.FLAGS(sys.argv)
            assert len(left) <= 2, f"{page}: {left}"  # one argument may come without its flag's name
            if flags.FLAGS.find_module_defining_flag("config") and flags.FLAGS.config:
                experiment = pathlib.Path(flags.FLAGS.config)
                if experiment.is_file():
                    config_file.get()
        finally:
            for flag in set(flags.FLAGS) - known:
                delattr(flags.FLAGS, flag)


def test_the_documentation_shows_commands():
    """What was searched for is there: each command and each source has its place in the documentation."""
    run = {module_of(words)[0] for _, words in ALL}
    every = {f"dlen_cam2.cli.{p.stem}" for p in (ROOT / "dlen_cam2" / "cli").glob("[!_]*.py")}
    assert every <= run, f"without an example: {sorted(every - run)}"
