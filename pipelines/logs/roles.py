"""The roles of a log's columns: which of them give the time, the user and the item."""

import dataclasses

from dlen_cam2.utils.errors import UserError
from pipelines.logs.split_by import WAYS, SplitBy

UNITS = {"s": 1000, "ms": 1, "us": 0.001}


@dataclasses.dataclass(frozen=True)
class Roles:
    """The roles of the log's columns: which of them give the time, the user and the item, and in which form.

    Attributes:
        time, user, item: the names of these columns; time is "" for a log without times.
        random: a column that is 1 where the exposure was uniformly random; "": no exposure was.
        unit: the unit of an integer time: "s", "ms" or "us". Timestamps and dates need none.
        utc_offset: hours by which days begin earlier than in UTC.
        now_ms: times after this one are invalid.
        split_by: how a log without times is divided; None for a log with times.

    Raises:
        UserError: both `time` and `split_by` are given, or neither.
    """

    time: str
    user: str
    item: str
    random: str = ""
    unit: str = "ms"
    utc_offset: int = 0
    now_ms: int = 4_102_444_800_000
    split_by: SplitBy | None = None

    def __post_init__(self) -> None:
        if bool(self.time) == (self.split_by is not None):
            received = f"--time={self.time}" if self.time else "neither"
            raise UserError(
                "either --time must name the column of the time of exposure, or, for a log without times, "
                f"--split_by={'|'.join(WAYS)} must be given. Received: {received}"
                + (f" and --split_by={self.split_by.way}." if self.split_by else ".")
            )

    @property
    def split_column(self) -> str:
        """The column that says train or test; "" if there is none."""
        return self.split_by.column if self.split_by and self.split_by.way == "split" else ""

    @property
    def keys(self) -> dict[str, str]:
        """The key columns by role."""
        return {"user": self.user, "item": self.item, **({"time": self.time} if self.time else {})}
