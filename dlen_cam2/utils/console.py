"""Console output of a command: messages, tables, the progress of long work, and what to do next.

Everything except warnings goes to standard output. On a terminal, tables are aligned and long work has a progress bar;
elsewhere (a file, a pipe, a notebook), tables are markdown and long work prints a line from time to time. After
`quiet(True)`, which the flag --quiet calls, only warnings and errors are shown.
"""

import re
import sys
import threading
import time
from types import TracebackType

from rich import box
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table
from rich.text import Text

from dlen_cam2.utils.markdown import PARSER, is_numbers, tables

EVERY = 30.0  # seconds between two lines of progress where there is no terminal
_BAR = 0.1  # seconds between two updates of a bar
_SHORTENED = Column(max_width=28, no_wrap=True, overflow="ellipsis")
_COLUMNS = (
    TextColumn("{task.description}", markup=False, table_column=_SHORTENED), BarColumn(bar_width=12),
    TextColumn("{task.fields[said]}", markup=False),
)
_is_quiet = False
_lock = threading.Lock()
_bars: Bars | None = None  # of this process; all work that is going on has a line in it


def quiet(wanted: bool) -> None:
    """Show only warnings and errors from now on, or everything again."""
    global _is_quiet
    _is_quiet = wanted


def is_terminal() -> bool:
    """Whether standard output is a terminal that can move its cursor, with a person watching."""
    console = Console()
    return console.is_terminal and not console.is_dumb_terminal and not console.is_jupyter


def say(text: str) -> None:
    """Show a message."""
    if not _is_quiet:
        print(text, flush=True)


def warn(text: str) -> None:
    """Show a warning on standard error, even after `quiet`."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def next_step(text: str) -> None:
    """Show the last line of a command, which says what to do with its result."""
    say(f"next: {text}")


def page(text: str) -> None:
    """Show markdown; on a terminal the columns of its tables are aligned."""
    if _is_quiet or not is_terminal():
        say(text)
        return
    console, lines, shown = Console(highlight=False, soft_wrap=True), text.splitlines(), 0
    for opening, rows in tables(PARSER.parse(text)):
        assert opening.map is not None
        first, last = opening.map
        if first > shown:
            console.print(Text("\n".join(lines[shown:first])))
        console.print(_aligned([[cell for _, cell in row] for row in rows]), soft_wrap=False)
        shown = last
    if shown < len(lines):
        console.print(Text("\n".join(lines[shown:])))


def _aligned(cells: list[list[str]]) -> Table:
    """The rows, with text aligned left and numbers aligned right."""
    head, *rows = cells
    narrow = sum(max(map(len, column)) + 3 for column in zip(*cells, strict=True)) > Console().width + 3
    if narrow:
        rows = [[re.sub(r" \[[^]]*\]$", "", cell) for cell in row] for row in rows]  # intervals are in the reports
    table = Table(box=None if narrow else box.SIMPLE_HEAD, padding=(0, 1, 0, 0) if narrow else (0, 1), pad_edge=False,
                  show_edge=False)
    for name, column in zip(head, zip(*rows, strict=True) if rows else [()] * len(head), strict=True):
        table.add_column(Text(name), justify="right" if is_numbers(column) else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def duration(seconds: float) -> str:
    """A duration as text: "45 s", "3 min 20 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Progress:
    """Shows the progress of long work: a bar on a terminal, elsewhere a line every 30 seconds, and one line at the end.

    Use it as a context manager; leaving it prints how much was done, how fast and in what time.

    Args:
        what: the work, such as "pass 1/3".
        total: the amount of work; None: unknown, so the bar does not fill up and there is no ETA.
        unit: the unit of `total`, a plural.
        done: the amount that an earlier process did.

    Attributes:
        rate: units per second since `start_clock`.
    """

    def __init__(self, what: str, total: int | None, unit: str = "rows", done: int = 0):
        self.what = what
        self.total = total
        self.unit = unit
        self.done = done
        self._said = ""
        self._bar: TaskID | None = None
        self._shown = time.monotonic()
        self.start_clock()
        self._began = self._clock

    def start_clock(self) -> None:
        """Measure the rate from now on; the time before was preparation."""
        self._clock, self._from = time.monotonic(), self.done

    @property
    def rate(self) -> float:
        seconds = max(time.monotonic() - self._clock, 1e-9)
        return (self.done - self._from) / seconds

    def __enter__(self) -> "Progress":
        self._bar = None if _is_quiet or not is_terminal() else _open(self.what, self.total)
        return self

    def update(self, done: int, said: str = "") -> None:
        """Report that `done` units are done so far; `said` is shown after the rate, such as a loss."""
        self.done, self._said = done, said
        now = time.monotonic()
        if self._bar is not None:
            if now - self._shown >= _BAR:
                self._shown = now
                _move(self._bar, done, self._line(short=True))
        elif now - self._shown >= EVERY:
            self._shown = now
            say(f"{self.what}: {self._line()}")

    def advance(self, by: int = 1, said: str = "") -> None:
        """Report that `by` more units are done."""
        self.update(self.done + by, said)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            _close(self._bar)
        if kind is None:
            rate = f", {self._rate()}" if self.done > self._from else ""
            more = f", {self._said}" if self._said else ""
            say(f"{self.what}: {self.done:,} {self.unit} in {duration(time.monotonic() - self._began)}{rate}{more}")

    def _line(self, short: bool = False) -> str:
        """The state of the work as text; `short` is the form after a bar."""
        if self.total:
            share = f"{self.done / self.total:.0%}"
            parts = [share if short else f"{self.done:,} of {self.total:,} {self.unit} ({share})"]
        else:
            parts = [f"{self.done:,} {self.unit}"]
        if self.done > self._from:
            parts.append(self._rate())
        if self._said:
            parts.append(self._said)
        if self.total is not None and self.done > self._from:
            parts.append(f"ETA {duration(max(self.total - self.done, 0) / self.rate)}")
        return ", ".join(parts)

    def _rate(self) -> str:
        rate = self.rate
        if rate >= 1:
            return f"{rate:,.0f} {self.unit}/s"
        return f"{duration(1 / rate)} each"


def _open(what: str, total: int | None) -> TaskID:
    """Add a line to this process's bars; the first line starts them."""
    global _bars
    with _lock:
        if _bars is None:
            _bars = Bars(*_COLUMNS, transient=True)
            _bars.start()
        return _bars.add_task(what, total=total, said="")


def _move(bar: TaskID, done: int, said: str) -> None:
    if _bars is not None:
        _bars.update(bar, completed=done, said=said)


def _close(bar: TaskID) -> None:
    """Remove the line; the last line also ends the bars."""
    global _bars
    with _lock:
        if _bars is None:
            return
        _bars.remove_task(bar)
        if not _bars.tasks:
            _bars.stop()
            _bars = None

