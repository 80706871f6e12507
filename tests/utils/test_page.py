"""Pages as one HTML file: what is inside, what is escaped, and what a browser makes of it."""

import re

import numpy as np
import pytest

from dlen_cam2.utils import page
from dlen_cam2.utils.errors import UserError
from tests.support.browser import BROWSER, browse, screenshot

TEXT = """# Two models

## Levels

| model | AUC | rows |
|---|---|---|
| b | 0.70 [0.69, 0.71] | 1,200 |
| a | undefined | 90 |
| c | 0.65 [0.60, 0.70] | 20,000 |

## Drawn

![both](both.png)

## Words

| check | found |
|---|---|
| PASS | fine |
"""


def png(width, height):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.subplots().plot([1, 2])
    return figure


@pytest.fixture
def directory(tmp_path, drawn):
    png(9, 3).savefig(tmp_path / "both.png", dpi=50)
    page.write(tmp_path / "report.md", TEXT)
    return tmp_path


def test_the_page_is_one_file(directory):
    """Nothing is loaded: the picture is inside, and no attribute names an address or another file."""
    shown = (directory / "report.html").read_text()
    assert (directory / "report.md").read_text() == TEXT
    assert 'src="data:image/png;base64,' in shown and "both.png" not in shown
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,|#section-\d+")', shown) == [] and "http" not in shown


def test_sections_are_linked_and_cells_have_their_kinds(directory):
    shown = (directory / "report.html").read_text()
    assert "<title>Two models</title>" in shown and '<h2 id="section-1">Drawn</h2>' in shown
    assert '<nav><a href="#section-0">Levels</a><a href="#section-1">Drawn</a>' in shown
    assert '<th class="number">AUC</th>' in shown and "<th>model</th>" in shown
    assert '<td class="PASS">PASS</td>' in shown
    assert '<td class="number">0.70 <small>[0.69, 0.71]</small></td>' in shown
    assert '<p class="wide"><img' in shown  # three times as wide as it is high


def test_texts_of_the_data_are_shown_as_they_are():
    hostile = "<img src=x onerror=alert(1)> a|b *x* [l](javascript:alert(1)) `c` # h\n| d"
    shown = page.render(f"# T\n\n| a | b |\n|---|---|\n| {page.escaped(hostile)} | <script>1</script> |\n")
    cells = re.findall(r"<td[^>]*>(.*?)</td>", shown, re.DOTALL)
    assert cells == ["&lt;img src=x onerror=alert(1)&gt; a|b *x* [l](javascript:alert(1)) `c` # h | d",
                     "&lt;script&gt;1&lt;/script&gt;"]


@pytest.mark.parametrize(("name", "content", "message"), [
    ("../secret.png", None, "must be files in its directory"), ("absent.png", None, "must be files in its directory"),
    ("text.png", b"no picture", "must be PNG files"),
])
def test_only_pictures_beside_the_page_are_taken(tmp_path, name, content, message):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    if content:
        (tmp_path / "in" / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        page.render(f"![a]({name})", tmp_path / "in")


def test_long_code_is_folded():
    shown = page.render("# T\n\n```\n" + "line\n" * 40 + "```\n\n```\nshort\n```\n")
    assert shown.count("<details>") == 1 and "<summary>40 lines</summary>" in shown


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_a_browser_sorts_tables_and_fits_a_phone(directory):
    """A click on a head sorts by numbers, a second one the other way; a phone's page is as wide as its screen."""
    text = (directory / "report.html").read_text()
    clicks = """<script>
    const table=document.querySelectorAll("table")[0],heads=table.querySelectorAll("th"),said=[];
    const order=()=>said.push([...table.tBodies[0].rows].map(r=>r.cells[0].textContent).join(""));
    heads[1].click();order();heads[1].click();order();heads[2].click();order();heads[0].click();order();
    said.push(document.documentElement.scrollWidth<=window.innerWidth);
    document.title=said.join(" ")</script></body>"""
    (directory / "clicked.html").write_text(text.replace("</body>", clicks))
    shown = browse(directory / "clicked.html", "--dump-dom", "--window-size=500,900")
    assert "<title>acb bca abc abc true</title>" in shown

    seen = screenshot(directory / "report.html", 500, 900)
    assert seen.shape[:2] == (900, 500) and np.std(seen) > 0.05  # something is drawn
