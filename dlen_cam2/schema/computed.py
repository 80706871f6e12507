"""`Computed`: how a feature that is no column of the log is computed from what was known before a row."""

import dataclasses
import math
import re
from typing import Any

from dlen_cam2.utils.errors import UserError

EXPOSURES = "exposures"
KINDS = ("count", "sum", "rate", "mean", "last", "age", "distinct", "same", "sequence")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_WINDOW = re.compile(r"(?P<all>all)|last (?P<last>\d{1,4})|(?P<session>session )?(?P<number>\d{1,6})(?P<unit>[smhd])")
LONGEST_DAYS = 400
DAY_MS = 86_400_000
# The kinds whose events are numbered: they look at the last ones, never at all of them.
_NUMBERED = ("last", "same", "sequence")


@dataclasses.dataclass(frozen=True)
class Computed:
    """A feature of a row at time t: a summary of the events that are known before t and share the row's key.

    An event is an exposure of the log, or one whose column `of` is 1. It is known at its row's time, and not before
    each feedback column that it reads is known (`Schema.known`). With n events, and Σ over them:

        count       n
        sum         Σ value
        mean        Σ value / n
        rate        (Σ of + strength · prior) / (Σ among + strength)
        last        the value of the last event
        age         seconds since the last event
        distinct    the number of different values
        same        1 if the row's own value is among those of the events, else 0
        sequence    the values, newest first

    Attributes:
        kind: one of `KINDS`.
        by: the columns of the key: the events of rows with the same values count.
        of: "exposures", or a column of 0 and 1 whose ones are the events.
        value: the column that is added up, averaged, listed or compared. For a rate of numbers, such as the time
            played of the time offered, `value` is added up over `of`; of a row no more than `among` counts.
        among: for a rate, a column of 0 and 1 or, with `value`, of numbers. Default: the exposures whose `of` is known.
        over: "all"; "10m", "6h", "7d" (a time before t); "last 20" (events); or "session 30m": since the last pause of
            30 minutes between exposures with the same key, and within a day.
        strength: for a rate, how many more exposures (with `value`: units of `among`) at the prior rate it has.
        prior: for a rate, the name of another computed rate, or a number. Default: the rate of all rows that were known
            before the hour of t, (Σ of + 1) / (Σ among + 1 / start).
        start: for a rate without `prior`, that rate where nothing is known yet.
        missing: the value of mean, last and age where there is no event. Default: 0, and ten days for an age.

    Raises:
        UserError: an attribute breaks one of these rules.
    """

    kind: str
    by: tuple[str, ...]
    of: str = EXPOSURES
    value: str = ""
    among: str = ""
    over: str = "all"
    strength: float = 20.0
    prior: str = ""
    start: float = 0.5
    missing: float | None = None

    def __post_init__(self) -> None:
        def rule(holds: bool, text: str, received: Any) -> None:
            if not holds:
                raise UserError(f"{text}. Received: {received!r}.")

        object.__setattr__(self, "by", tuple(self.by))
        rule(self.kind in KINDS, f"computed must be one of {KINDS}", self.kind)
        rule(bool(self.by) and all(self.by) and len(set(self.by)) == len(self.by),
             "by must name the columns of the key, each once", ",".join(self.by))
        found = _WINDOW.fullmatch(self.over)
        rule(found is not None, "over must be all, a time such as 10m, 6h or 7d, last N, or session 30m", self.over)
        rule(self.last != 0 and self.milliseconds != 0 and self.milliseconds <= LONGEST_DAYS * DAY_MS,
             f"over must be at least 1 event or second, and at most {LONGEST_DAYS} days", self.over)
        rule(not self.is_session or self.kind == "count" and self.of == EXPOSURES and self.milliseconds <= DAY_MS // 2,
             "only a count of exposures may be over a session, whose pause is at most 12h", self.over)
        if self.kind in _NUMBERED:
            rule(self.kind != "same" or self.over == "all" or self.last > 0, "same must have over:last N, not a time",
                 self.over)
            rule(self.kind == "same" or self.over == "all",
                 f"{self.kind} must have no over: it is of the last events", self.over)
        else:
            rule(self.kind in ("mean", "sum", "distinct") or self.last < 0,
                 f"{self.kind} must not be over the last events; mean and sum of a column may", self.over)
        wants_value = self.kind not in ("count", "age")
        if self.kind != "rate":
            rule(bool(self.value) == wants_value,
                 f"{self.kind} must {'have' if wants_value else 'not have'} a value", self.value)
            rule(not self.among, "only a rate may have among", self.among)
            rule(not self.prior, "only a rate may have a prior", self.prior)
        else:
            rule(self.of != EXPOSURES or bool(self.value), "a rate must be of a column", self.of)
            rule(not self.value or bool(self.among), "a rate of numbers must be among numbers", self.among)
        for name in ("strength", "start"):
            object.__setattr__(self, name, float(getattr(self, name)))
        rule(math.isfinite(self.strength) and self.strength > 0, "strength must be above 0", self.strength)
        rule(0 < self.start < 1, "start must be between 0 and 1", self.start)
        if self.missing is not None:
            object.__setattr__(self, "missing", float(self.missing))
            rule(math.isfinite(self.missing), "missing must be finite", self.missing)
            rule(self.kind in ("mean", "last", "age"), f"{self.kind} must not have missing", self.missing)
        if (number := self.prior_number) is not None:
            rule(0 < number < 1, "a prior that is a number must be between 0 and 1", self.prior)

    @property
    def last(self) -> int:
        """How many events `over` looks at; -1 if it is not about the last ones."""
        found = _WINDOW.fullmatch(self.over)
        return int(found["last"]) if found and found["last"] else -1

    @property
    def window(self) -> int:
        """The milliseconds before a row in which its events lie, -1 for no limit; a session looks back a day and more.

        A row in the middle of a session must see whether the row of a day ago began one.
        """
        return DAY_MS + self.milliseconds if self.is_session else self.milliseconds

    @property
    def milliseconds(self) -> int:
        """The length of the window, or of a session's pause; -1 without one."""
        found = _WINDOW.fullmatch(self.over)
        return int(found["number"]) * SECONDS[found["unit"]] * 1000 if found and found["number"] else -1

    @property
    def is_session(self) -> bool:
        return self.over.startswith("session ")

    @property
    def is_numbered(self) -> bool:
        """Whether it looks at the last events, which are numbered, rather than at sums."""
        return self.kind in _NUMBERED or self.last > 0

    @property
    def prior_number(self) -> float | None:
        """The prior if it is a number."""
        try:
            return float(self.prior)
        except ValueError:
            return None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the log that it reads."""
        events = () if self.of == EXPOSURES else (self.of,)
        return tuple(name for name in dict.fromkeys((*self.by, *events, self.value, self.among)) if name)


@dataclasses.dataclass(frozen=True)
class Known:
    """When a feedback column is known: at the time in another column, or a delay after the exposure.

    Attributes:
        at: the column of the time; it may be missing where the feedback did not come.
        after: a column of seconds.
        seconds: a constant delay, where neither column is given.
        within: attribution: a label of 1 counts as 0 where it is known later than this after the exposure, in seconds;
            rows that are younger than this at the end of the log have no label yet. 0: no limit.

    Raises:
        UserError: more than one of them is given, a number is negative, or there is a limit without `at`.
    """

    at: str = ""
    after: str = ""
    seconds: float = 0.0
    within: float = 0.0

    def __post_init__(self) -> None:
        for name in ("seconds", "within"):
            object.__setattr__(self, name, float(getattr(self, name)))
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise UserError(f"known_after and within must be at least 0 seconds. Received: {getattr(self, name)}.")
        if bool(self.at) + bool(self.after) + bool(self.seconds) > 1:
            raise UserError(f"feedback must be known either at a time, or after a column or number of seconds. "
                            f"Received: {self}.")
        if self.within and not self.at:
            raise UserError(f"within must stand beside known_at, the time that it limits. Received: within:"
                            f"{self.within:.0f}, and no known_at.")
