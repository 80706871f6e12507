"""The README's first screen runs as it stands, on a feed that is smaller than the quickstart's."""

import contextlib
import io
import pathlib
import re
import shlex

import numpy as np
import pytest

from pipelines import simulate
from tests.support.browser import BROWSER, screenshot
from tests.support.builders import command

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Smaller networks and one pass: what is shown is that the commands fit together.
SMALLER = ("--config.train.epochs=1", "--config.train.bootstrap=2", "--config.model.trunk.units=(8,)",
           "--config.model.head.latent_units=(8,)")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A directory that has what `make quickstart` leaves: `quickstart/data`, with the days that the README names."""
    directory = tmp_path_factory.mktemp("checkout")
    simulate.write(simulate.World(rows=3000, seed=0), str(directory / "quickstart" / "data"))
    return directory


def section(name):
    """The shell commands, each on one line, and the Python of a section."""
    text = README.split(f"\n## {name}\n")[1].split("\n## ")[0]
    shell = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in shell.splitlines()], re.findall(
        r"```python\n(.*?)```", text, re.DOTALL)


def test_the_readme_is_short_and_its_links_lead_somewhere():
    assert len(README.splitlines()) <= 200
    links = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", README)
    assert len(links) > 30
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_make_has_the_targets():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    shell, _ = section("Quickstart")
    assert [words[0] for words in shell] == ["make"] * 3 and {words[1] for words in shell} <= {*targets}


def test_the_python_of_the_first_screen_runs_as_it_stands(checkout, monkeypatch):
    """In twenty lines at most: open, fit, evaluate, predict, export."""
    _, (code,) = section("Quickstart")
    assert len(code.splitlines()) <= 20
    monkeypatch.chdir(checkout)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "README.md", "exec"), {})
    assert "| 20240108 | click |" in out.getvalue() and "'fused': array(" in out.getvalue()
    assert (checkout / "served/ple_dlen/1/saved_model.pb").exists()


def test_the_commands_of_the_first_screen_fit_together(checkout, monkeypatch):
    """Train, look inside, export, ask: each finds what the one before it wrote, and says what comes next."""
    monkeypatch.chdir(checkout)
    (train, inspect), _ = section("Two commands")
    (export, serve), _ = section("Serving")
    for words, more in ((train, SMALLER), (inspect, ()), (export, ())):
        done = command(f"dlen_cam2.cli.{words[1]}", *words[2:], *more)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].startswith("next: "), done.stdout
    report = (checkout / "models/mmoe_dlen/report.html").read_text()
    assert all(f'">{task}</h2>' in report for task in simulate.TASKS) and report.count("data:image/png") == 1
    if BROWSER is not None:
        assert np.std(screenshot(checkout / "models/mmoe_dlen/report.html", 1200, 1800)) > 0.05
    assert (checkout / "inspection/inspect.html").exists()
    # `serve` runs until it is ended (tests/serving has it): what it is given is what `export` wrote and said is next.
    assert done.stdout.splitlines()[-1] == f"next: {shlex.join(serve)}" and (checkout / "served/ranker/1").is_dir()
