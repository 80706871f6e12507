"""The notebooks: each runs from its script, and what is committed is what its script makes."""

import nbformat
import pytest

from dlen_cam2.utils.errors import UserError
from notebooks import render

pytestmark = pytest.mark.slow


def pictures(cell: nbformat.NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


@pytest.mark.parametrize("script", render.SCRIPTS, ids=lambda script: script.stem)
def test_runs_and_is_what_is_committed(script):
    found = nbformat.read(script.with_suffix(".ipynb"), 4)
    made = render.run(script)  # raises if a cell does
    assert [c.source for c in found.cells] == [c.source for c in made.cells], "run `make notebooks`"
    assert [c.cell_type for c in found.cells] == [c.cell_type for c in made.cells]
    assert [pictures(c) for c in found.cells] == [pictures(c) for c in made.cells], "run `make notebooks`"
    assert all(c.execution_count for c in found.cells if c.cell_type == "code")


def test_every_notebook_has_a_script():
    assert {p.stem for p in render.DIRECTORY.glob("*.ipynb")} == {p.stem for p in render.SCRIPTS}


def test_a_cell_that_raises_is_an_error(tmp_path):
    script = tmp_path / "broken.py"
    script.write_text("# %% [markdown]\n# # Title\n\n# %%\nprint(1)\n\n# %%\nraise ValueError('no such video')\n")
    with pytest.raises(UserError, match="(?s)broken.py.*no such video"):
        render.run(script)


def test_outputs_hold_nothing_of_this_machine(tmp_path):
    script = tmp_path / "paths.py"
    script.write_text(
        "# %% [markdown]\n# # Title\n\n# %%\nimport os, sys\n"
        "print('INFO:tensorflow:written')\nprint(os.path.realpath('model'))\nprint('device', file=sys.stderr)\n"
    )
    (output,) = render.run(script).cells[2].outputs
    assert output.text == "model\n"
