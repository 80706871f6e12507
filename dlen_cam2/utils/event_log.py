"""`log.jsonl`: the events of a run, one JSON object per line, for programs to read."""

import json
import os
import pathlib
import time
from typing import Any


class EventLog:
    """Appends events to a file; a line has "time" (UTC, ISO 8601), "event" and the fields of that event.

    Events: start, resumed, progress, checkpoint, validation, measured, step (what a daily step changed), best restored,
    interrupted, done.

    Args:
        path: the file; None: events are discarded (in processes other than the chief).
    """

    def __init__(self, path: pathlib.Path | None):
        self.path = path

    def event(self, name: str, **fields: Any) -> None:
        """Append one line."""
        if self.path is None:
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = json.dumps({"time": now, "event": name, "process": os.getpid(), **fields}, allow_nan=False, default=str)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
