"""Turns an engine's errors into one line about its input."""

import contextlib
import re
import textwrap
from collections.abc import Iterator

import duckdb

from dlen_cam2.utils.errors import UserError


def brief(error: Exception) -> str:
    """The error in one line, without DuckDB's advice, which names options that cannot be set here."""
    text = re.split(r"\n\s*(?:Possible |LINE \d+:|file = )|Try setting ", str(error))[0]
    if found := re.match(r"(?s).*CSV Error on Line: (\d+)\s+Original Line: (.*)\n(.*)", text):
        file = re.search(r"\n\s*file = (.*)", str(error))
        where = f"line {found[1]}" + (f" of {file[1]}" if file else "")
        text = f"{where}, {found[2][:100]!r}: {found[3]}"
    return textwrap.shorten(text, 400, placeholder=" …")


@contextlib.contextmanager
def explained(errors: type[Exception] | tuple[type[Exception], ...], what: str = "") -> Iterator[None]:
    """Context manager that turns the engine's errors about its input into a `UserError`; others are defects of ours."""
    try:
        yield
    except errors as error:
        about_values = isinstance(error, (duckdb.ConversionException, duckdb.OutOfRangeException))
        about_values |= "CAST" in str(error)
        # The disk is full, a file or quota has reached its limit, or the memory's.
        about_room = isinstance(error, (duckdb.OutOfMemoryException, duckdb.IOException, OSError))
        about_room |= "No space left" in str(error)
        if not (what or about_values or about_room):
            raise
        what = what or ("a value cannot be used" if about_values else "memory or disk space ran out")
        raise UserError(f"{what}. Received: {brief(error)}") from error
