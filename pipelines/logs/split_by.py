"""Splits of logs without times: rows go to "train" and "test" (and "validation")."""

import dataclasses

from dlen_cam2.schema import Schema
from dlen_cam2.utils.errors import UserError
from pipelines.engines import Engine, quoted
from pipelines.logs.log_files import Log

WAYS = ("user", "item", "label", "split")
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class SplitBy:
    """How the rows of a log without times are divided.

    In every way, the division depends only on the values of the rows, not on their order in the files.

    Attributes:
        way: "user": all rows of a user are in one split, chosen by the hash of the id, so that users keep their split
            when the log grows. "item": the same for items. "label": each combination of labels gives `test_share` of
            its rows to the test. "split": a column of the log names the split.
        column: the name of that column.
        test_share: share of the users, items or rows that is held out.

    Raises:
        UserError: a value is not one of these.
    """

    way: str
    column: str = "split"
    test_share: float = 0.2

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise UserError(f"--split_by must be one of {WAYS}. Received: {self.way!r}.")
        if not 0 < self.test_share < 1:
            raise UserError(f"--test_share must be above 0 and below 1. Received: {self.test_share}.")

    def sql(self, log: Log, key: str) -> str:
        """SQL for the split of a row, before `divide`; `key` is SQL for the user's or item's id as in the data set."""
        if self.way == "split":
            return log.cast(self.column, "VARCHAR")
        if self.way == "label":
            return "'train'"
        held_out = f"left(md5(CAST({key} AS VARCHAR)), 8) < '{int(self.test_share * 2**32):08x}'"
        return f"CASE WHEN {held_out} THEN 'test' ELSE 'train' END"

    def divide(self, engine: Engine, schema: Schema) -> None:
        """Create the table `exposures` from the rows of `typed` that break no rule.

        Raises:
            UserError: there are no rows to train on or, unless a column of the log decides, none to test on.
        """
        split = "split"
        if self.way == "label":
            labels = ", ".join(map(quoted, schema.binary_columns))
            place = f"row_number() OVER (PARTITION BY split, {labels} ORDER BY {ROW_HASH})"
            most = f"round({self.test_share} * count(*) OVER (PARTITION BY split, {labels}))"
            split = f"CASE WHEN {place} <= {most} THEN replace(split, 'train', 'test') ELSE split END"
        engine.execute(f"CREATE TABLE exposures AS SELECT e.* EXCLUDE (broken) REPLACE ({split} AS split) "
                       "FROM typed AS e WHERE broken IS NULL")
        rows = dict(engine.query("SELECT split, count(*) FROM exposures GROUP BY 1 ORDER BY 1"))
        needed = {"train"} if self.way == "split" else {"train", "test"}
        if lacking := sorted(needed - {split.partition("_")[0] for split in rows}):
            raise UserError(f"--split_by={self.way} must leave rows in {' and '.join(lacking)}: use a larger log or "
                            f"another --test_share. Received: {rows}.")


# An order of the rows of the table e that no file decides, and in which neighbours have nothing in common.
ROW_HASH = "md5(CAST(e AS VARCHAR))"
