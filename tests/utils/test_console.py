"""What commands show: on a terminal, in a file, and with --quiet."""

import os
import pty
import re
import subprocess
import sys

import pytest

from dlen_cam2.utils import console

TABLE = (
    "# Title\n\n| day | task | AUC |\n|---|---|---|\n| 20240108 | click [x] | 0.7792 |\n"
    "| 20240109 | like \\| a | 0.6 |\n\nend"
)


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(console, "time", found)
    return found


@pytest.fixture
def silent():
    console.quiet(True)
    yield
    console.quiet(False)


def on_a_terminal(code, columns=100):
    """What a process shows on a terminal of so many columns, without the codes that colour it and move the cursor."""
    master, slave = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=slave, stderr=slave, stdin=slave, env=environment)
    os.close(slave)
    read = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # Linux's end of a terminal
            break
        if not part:
            break
        read += part
    os.close(master)
    assert process.wait() == 0, read
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", read.decode())


def test_a_file_gets_a_line_every_half_minute_and_one_at_the_end(clock, capsys):
    with console.Progress("pass 1/1", 1000) as work:
        for step in range(1, 11):
            clock.now += 10
            work.update(100 * step, f"loss {1 / step:.2f}")
    assert capsys.readouterr().out.splitlines() == [
        "pass 1/1: 300 of 1,000 rows (30%), 10 rows/s, loss 0.33, ETA 1 min 10 s",
        "pass 1/1: 600 of 1,000 rows (60%), 10 rows/s, loss 0.17, ETA 40 s",
        "pass 1/1: 900 of 1,000 rows (90%), 10 rows/s, loss 0.11, ETA 10 s",
        "pass 1/1: 1,000 rows in 1 min 40 s, 10 rows/s, loss 0.10",
    ]


def test_work_without_a_known_total_has_no_eta(clock, capsys):
    with console.Progress("writing", None) as work:
        clock.now += 40
        work.advance(80)
    assert capsys.readouterr().out.splitlines() == ["writing: 80 rows, 2 rows/s", "writing: 80 rows in 40 s, 2 rows/s"]


def test_slow_units_are_counted_in_seconds(clock, capsys):
    with console.Progress("cells", 4, "cells") as work:
        clock.now += 90
        work.advance(said="1 failed")
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "cells: 1 of 4 cells (25%), 1 min 30 s each, 1 failed, ETA 4 min 30 s"


def test_work_that_fails_is_not_reported_as_done(clock, capsys):
    with pytest.raises(ValueError, match="torn"), console.Progress("pass 1/1", 10) as work:
        work.update(5)
        raise ValueError("torn")
    assert capsys.readouterr().out == ""


def test_quiet_leaves_warnings_only(clock, capsys, silent):
    with console.Progress("pass 1/1", 10) as work:
        clock.now += 100
        work.update(10)
    console.say("hello")
    console.page(TABLE)
    console.next_step("dlen_cam2 export")
    console.warn("careful")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "warning: careful\n")


def test_tables_are_markdown_in_a_file(capsys):
    console.page(TABLE)
    assert capsys.readouterr().out == TABLE + "\n"


def test_tables_are_aligned_on_a_terminal():
    """Numbers stand on the right, brackets and bars in texts are shown as they are, text around tables stays."""
    shown = on_a_terminal(f"from dlen_cam2.utils import console; console.page({TABLE!r})").replace("\r", "")
    lines = [line.rstrip() for line in shown.splitlines()]
    assert lines[0] == "# Title" and lines[-1] == "end"
    assert lines[2].split() == ["day", "task", "AUC"]
    assert lines[4:6] == ["20240108   click [x]   0.7792", "20240109   like | a       0.6"]


def test_a_terminal_has_a_bar_that_gives_way_to_one_line():
    code = (
        "import time\nfrom dlen_cam2.utils import console\n"
        "with console.Progress('cells', 2, 'cells') as outer:\n"
        "    with console.Progress('pass 1/1', 100) as work:\n"
        "        for done in range(0, 101, 10):\n"
        "            time.sleep(0.12)\n"
        "            work.update(done, f'loss {done:.1f}')\n"
        "            if done == 50: console.say('a message')\n"
        "    outer.advance()\n"
        "console.next_step('dlen_cam2 export')\n"
    )
    shown = on_a_terminal(code).replace("\r", "\n")
    assert "━" in shown and re.search(r"pass 1/1 .*50%, \d+ rows/s, loss 50.0, ETA \d+ s", shown)
    lines = [line.strip() for line in shown.splitlines() if line.strip()]
    assert "a message" in lines and lines[-1] == "next: dlen_cam2 export"
    assert any(re.fullmatch(r"pass 1/1: 100 rows in 1 s, \d+ rows/s, loss 100.0", line) for line in lines)
    assert re.fullmatch(r"cells: 1 cells in 1 s, 1 s each", lines[-2])


@pytest.mark.parametrize(("seconds", "text"), [
    (0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7500, "2 h 5 min"),
])
def test_durations_are_for_people(seconds, text):
    assert console.duration(seconds) == text
