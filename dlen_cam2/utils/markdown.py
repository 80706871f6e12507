"""Markdown tables, written and read."""

import re
from collections.abc import Iterable, Iterator, Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

PARSER = MarkdownIt("commonmark", {"html": False}).enable("table")  # HTML in a text is text


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def tables(tokens: Sequence[Token]) -> Iterator[tuple[Token, list[list[tuple[Token, str]]]]]:
    """Each table among the parser's tokens: the token that opens it, and its rows of (token of the cell, its text)."""
    rows: list[list[tuple[Token, str]]] = []
    for place, token in enumerate(tokens):
        if token.type == "table_open":
            opening, rows = token, []
        elif token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            rows[-1].append((token, tokens[place + 1].content))
        elif token.type == "table_close":
            yield opening, rows


def is_numbers(cells: Sequence[str]) -> bool:
    """Whether a column holds numbers: cells that begin like one, or that are empty or "undefined"."""
    begin = [bool(re.match(r"[+-]?[.\d]", cell)) for cell in cells]
    return any(begin) and all(b or cell in ("", "undefined") for b, cell in zip(begin, cells, strict=True))
