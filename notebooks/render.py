"""python -m notebooks.render [--names=dlen,cam2]: run the percent scripts of this directory and write their .ipynb.

A script (`dlen.py`) is the source. Its notebook is the script with the cell `INSTALL` behind its title, and with what
running it gave. Each runs in an empty directory of its own, so it shows all that it needs.
"""

import os
import pathlib
import tempfile
import time

import jupytext
import nbformat
from absl import flags
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from dlen_cam2.utils import commands
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import write_text

FLAGS = flags.FLAGS

DIRECTORY = pathlib.Path(__file__).resolve().parent
SCRIPTS = tuple(sorted(p for p in DIRECTORY.glob("*.py") if p.name != pathlib.Path(__file__).name))

_LOGGED = ("INFO:tensorflow:", "WARNING:tensorflow:")

INSTALL = '''\
# This cell does nothing where dlen_cam2 is installed. Elsewhere, as on Colab, write the repository's address below.
# Python must be 3.11, 3.12 or 3.13. If an import fails right after the installation, an older version of a package was
# already loaded: restart the session (on Colab: Runtime, Restart session) and run all cells again.
import importlib.util
import subprocess
import sys

REPOSITORY = ""  # @param {type:"string"}

if importlib.util.find_spec("dlen_cam2") is None:
    if not REPOSITORY:
        raise RuntimeError("REPOSITORY must be the address of the repository, as for git clone. Received: ''.")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", f"git+{REPOSITORY}"], check=True)
    importlib.invalidate_caches()

import dlen_cam2  # before TensorFlow, which then starts without its log lines'''


def notebook(script: pathlib.Path) -> nbformat.NotebookNode:
    """The notebook of a script, not run. The same script gives the same notebook, byte for byte."""
    made = jupytext.read(script, fmt="py:percent")
    made.cells.insert(1, nbformat.v4.new_code_cell(INSTALL))
    for number, cell in enumerate(made.cells):
        cell.id, cell.metadata = f"{script.stem}-{number}", nbformat.NotebookNode()
    made.metadata = nbformat.from_dict({
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    })
    made.nbformat, made.nbformat_minor = 4, 5
    return made


def run(script: pathlib.Path) -> nbformat.NotebookNode:
    """The notebook of a script with what its cells gave.

    Raises:
        UserError: a cell raised an error.
    """
    made = notebook(script)
    with tempfile.TemporaryDirectory() as directory:
        # The code beside this directory, and none of TensorFlow's lines about devices that it lacks.
        path = os.pathsep.join(filter(None, (str(DIRECTORY.parent), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}
        client = NotebookClient(made, timeout=600, record_timing=False,
                                coalesce_streams=True, resources={"metadata": {"path": directory}})
        try:
            client.execute(env=environment)
        except CellExecutionError as error:
            raise UserError(f"{script.name}: {error}") from error
        for cell in made.cells:
            if cell.cell_type == "code":
                cell.outputs = _portable(cell.outputs, os.path.realpath(directory))
    return made


def _portable(outputs: list[nbformat.NotebookNode], directory: str) -> list[nbformat.NotebookNode]:
    """Outputs without this machine in them: no lines of TensorFlow's logs (standard error holds nothing else; what a
    cell raises is an output of another kind), no path of the directory that the notebook ran in."""
    kept = [output for output in outputs if output.get("name") != "stderr"]
    for output in kept:
        if output.output_type == "stream":
            lines = output.text.replace(directory + os.sep, "").splitlines(keepends=True)
            output.text = "".join(line for line in lines if not line.startswith(_LOGGED))
    return kept


def define_flags() -> None:
    flags.DEFINE_list("names", [], "Notebooks to make. Default: all.")


def main() -> None:
    known = {script.stem: script for script in SCRIPTS}
    if unknown := sorted(set(FLAGS.names) - set(known)):
        raise UserError(f"--names must be scripts of {DIRECTORY.name}/. Received: {unknown}. Known: {list(known)}.")
    for name in FLAGS.names or known:
        start = time.monotonic()
        print(f"{name} runs", flush=True)
        write_text(known[name].with_suffix(".ipynb"), nbformat.writes(run(known[name])) + "\n")
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    commands.run(main, define_flags)
