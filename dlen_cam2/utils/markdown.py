"""Markdown tables."""

import re
from collections.abc import Iterable, Sequence


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])

def is_numbers(cells: Sequence[str]) -> bool:
    """Whether a column holds numbers: cells that begin like one, or that are empty or "undefined"."""
    begin = [bool(re.match(r"[+-]?[.\d]", cell)) for cell in cells]
    return any(begin) and all(b or cell in ("", "undefined") for b, cell in zip(begin, cells, strict=True))
