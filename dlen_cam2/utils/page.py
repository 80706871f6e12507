"""Pages for people to read: a markdown file, and the same content as one self-contained HTML file.

The markdown is the source. The HTML contains its pictures and a table of contents, has tables that are sorted by a
click on a column's head, and fits a phone. It loads nothing, and shows texts of the data as text whatever they contain.
"""

import base64
import html
import os
import pathlib
import re
import struct
from collections.abc import Mapping, Sequence

from markdown_it.token import Token

from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import write_text
from dlen_cam2.utils.markdown import PARSER, is_numbers, tables

_STYLE = """
:root{color-scheme:light dark;--line:#d0d5dc;--soft:#f4f6f8;--text:#1d2430;--dim:#5a6675;--link:#0b5fa5}
@media(prefers-color-scheme:dark){:root{--line:#3a424e;--soft:#20262e;--text:#e4e8ee;--dim:#9aa7b5;--link:#7db8ee}
img{background:#fff}}
body{font:16px/1.55 system-ui,sans-serif;color:var(--text);max-width:74rem;margin:0 auto;padding:1rem}
h1{font-size:1.6rem}h2{font-size:1.25rem;margin-top:2.2rem;border-bottom:1px solid var(--line)}h3{font-size:1.05rem}
a{color:var(--link)}nav{background:var(--soft);padding:.6rem 1rem;border-radius:.4rem}
nav a{display:inline-block;margin:.1rem 1rem .1rem 0}
.wide{overflow-x:auto;background:linear-gradient(90deg,#0000 92%,var(--soft))}
table{border-collapse:collapse;margin:.8rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .7rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
td{white-space:nowrap}td small{display:block;color:var(--dim);font-size:.75em}
td.long{white-space:normal;min-width:16rem}td.number,th.number{text-align:right}
th{background:var(--soft);cursor:pointer;user-select:none;white-space:nowrap}
th:after{content:" \\2195";color:var(--dim);font-weight:normal}th[aria-sort=ascending]:after{content:" \\25b2"}
th[aria-sort=descending]:after{content:" \\25bc"}
img{max-width:100%;height:auto}
.wide img{max-width:none;width:100%;min-width:60rem}
pre{background:var(--soft);padding:.7rem;overflow-x:auto;border-radius:.4rem}
code{font-size:.9em}.PASS{color:#16803c}.WARN{color:#a86400}.FAIL{color:#c01030;font-weight:bold}
"""
# Sorts the rows of a table by the cells of the column whose head is clicked: by their first number, or else as text.
_SCRIPT = """
document.querySelectorAll("table").forEach(table=>{
 const heads=table.querySelectorAll("th"),body=table.querySelector("tbody");
 heads.forEach((head,column)=>{
  const sort=()=>{
   const down=head.getAttribute("aria-sort")==="ascending";
   heads.forEach(h=>h.removeAttribute("aria-sort"));
   head.setAttribute("aria-sort",down?"descending":"ascending");
   const key=row=>{const text=row.cells[column].textContent.trim(),n=parseFloat(text.replace(/,/g,""));
    return head.classList.contains("number")?(isNaN(n)?-Infinity:n):text};
   [...body.rows].sort((a,b)=>{const x=key(a),y=key(b);
    return (x<y?-1:x>y?1:0)*(down?-1:1)}).forEach(row=>body.append(row))};
  head.tabIndex=0;head.addEventListener("click",sort);
  head.addEventListener("keydown",event=>{if(event.key==="Enter"){sort()}})})});
"""
_LONG = 60  # letters, beyond which a cell is wrapped
_LARGEST = 20 * 2**20  # bytes of a picture
_PANORAMA = 2.5  # width over height, beyond which a picture is scrolled rather than shrunk to a phone's width
_LONGEST_CODE = 12  # lines, beyond which a code block is folded


def write(path: str | os.PathLike, text: str) -> None:
    """Write `text` as the markdown file `path` and as an HTML page with the same name.

    The pictures in the text must already exist in the same directory.
    """
    path = pathlib.Path(path)
    write_text(path, text)
    write_text(html_of(path), render(text, path.parent))


def html_of(path: str | os.PathLike) -> pathlib.Path:
    """The HTML page beside the markdown file `path`."""
    return pathlib.Path(path).with_suffix(".html")


def render(text: str, directory: str | os.PathLike | None = None, pictures: Mapping[str, bytes] | None = None) -> str:
    """Render markdown as one self-contained HTML page.

    Args:
        text: the markdown; HTML in it is shown as text.
        directory: the directory of its pictures (PNG).
        pictures: {name: PNG}, pictures that are not files.

    Raises:
        UserError: a picture does not exist, or is not a PNG.
    """
    tokens = PARSER.parse(text)
    sections: list[str] = []
    title = "Report"
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            name = tokens[place + 1].content
            if token.tag == "h1":
                title = name
            else:
                token.attrSet("id", f"section-{len(sections)}")
                sections.append(name)
        for child in token.children or ():
            if child.type == "image":
                source = str(child.attrGet("src"))
                picture = (pictures or {}).get(source) or _read(source, directory)
                child.attrSet("src", _inline(source, picture))
                if _aspect(picture) > _PANORAMA:
                    tokens[place - 1].attrJoin("class", "wide")
    _shape_tables(tokens)
    body = PARSER.renderer.render(tokens, PARSER.options, {})
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    body = re.sub(r"<pre>.*?</pre>", _folded, body, flags=re.DOTALL)
    body = re.sub(r'(<td class="number">[^<\[]*) (\[[^<]*\])', r"\1 <small>\2</small>", body)  # intervals stand below
    links = "".join(
        f'<a href="#section-{number}">{html.escape(name)}</a>' for number, name in enumerate(sections)
    )
    head, _, rest = body.partition("</h1>") if "</h1>" in body else ("", "", body)
    navigation = f"<nav>{links}</nav>" if len(sections) > 2 else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body>"
        f"{head}{'</h1>' if head else ''}{navigation}{rest}<script>{_SCRIPT}</script></body></html>\n"
    )


def escaped(text: str) -> str:
    """Escape `text` so that markdown shows it literally, also in a table cell."""
    return re.sub(r"([\\`*_{}\[\]()#+.!|<>&~-])", r"\\\1", " ".join(text.split()))


def _read(source: str, directory: str | os.PathLike | None) -> bytes:
    path = pathlib.Path(directory or ".") / source
    if directory is None or pathlib.PurePath(source).name != source or not path.is_file():
        raise UserError(f"the pictures of a page must be files in its directory. Received: {source!r}.")
    if path.stat().st_size > _LARGEST:
        raise UserError(f"{path} must have at most {_LARGEST:,} bytes. Received: {path.stat().st_size:,}.")
    return path.read_bytes()


def _inline(source: str, picture: bytes) -> str:
    if not picture.startswith(b"\x89PNG\r\n\x1a\n"):
        raise UserError(f"the pictures of a page must be PNG files. Received: {source!r}.")
    return f"data:image/png;base64,{base64.b64encode(picture).decode('ascii')}"


def _aspect(picture: bytes) -> float:
    """The width over the height, from the header of a PNG."""
    width, height = struct.unpack(">II", picture[16:24])
    return width / max(height, 1)


def _folded(found: re.Match[str]) -> str:
    """A code block, collapsed if it is long."""
    lines = found.group().count("\n")
    if lines <= _LONGEST_CODE:
        return found.group()
    return f"<details><summary>{lines} lines</summary>{found.group()}</details>"


def _shape_tables(tokens: Sequence[Token]) -> None:
    """Set the classes of table cells: numbers are aligned right, long texts are wrapped, and statuses are coloured."""
    for _, rows in tables(tokens):
        for column in zip(*rows, strict=True):
            numbers = is_numbers([text for _, text in column[1:]])
            for cell, text in column:
                if numbers:
                    cell.attrJoin("class", "number")
                elif len(text) > _LONG:
                    cell.attrJoin("class", "long")
                elif text in ("PASS", "WARN", "FAIL"):
                    cell.attrJoin("class", text)
