"""Numbers ids that are texts, since the SQL of counters and histories works on integers."""

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa

from pipelines.engines import Engine, literal, quoted

HISTORIES = ("watched", "long_viewed", "liked")
MISSING = -1


@dataclasses.dataclass(frozen=True)
class TextIds:
    """The id columns of `exposures` that hold texts; a data set numbers the texts of each column in a dictionary.

    Texts are numbered by the day on which they first appear, and within a day in the order of their bytes. The numbers
    of a day therefore do not depend on later days, and a run that adds days gives the same numbers as a full run. After
    each day, the dictionary is kept beside the day's counters. The empty text, which means missing, is -1.

    Attributes:
        columns: those of "user_id", "video_id", "author_id" and "tab" that hold texts.
        names: {column of the schema: its name in the tables}, for columns whose own name is given to the number.
    """

    columns: tuple[str, ...] = ()
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def encode(self, engine: Engine, since: str = "", saved: pathlib.Path | None = None) -> None:
        """Replace the texts in `exposures` by their numbers; with `since`, rows of earlier days are dropped.

        Args:
            engine: an engine with the table `exposures`.
            since: the first day that is computed.
            saved: the snapshot of an earlier day, whose dictionaries are extended; None: they start empty.
        """
        if not self.columns:
            return
        first = literal(since)
        for column in self.columns:
            table = _table(column)
            if saved is None:
                engine.execute(f"CREATE TABLE {table} (value VARCHAR, code BIGINT, day VARCHAR)")
            else:
                engine.load_parquet(table, saved / f"{table}.parquet")
            engine.execute(
                f"INSERT INTO {table} SELECT value, (SELECT count(*) FROM {table}) - 1 + row_number() OVER "
                f"(ORDER BY day, value), day FROM (SELECT {quoted(column)} AS value, min(split_part(split, '_', 1)) AS "
                f"day FROM exposures WHERE split >= {first} AND {quoted(column)} <> '' GROUP BY 1) AS found "
                f"WHERE NOT EXISTS (SELECT 1 FROM {table} AS known WHERE known.value = found.value)"
            )
        numbers = ", ".join(f"coalesce({_table(c)}.code, {MISSING}) AS {quoted(c)}" for c in self.columns)
        joins = " ".join(f"LEFT JOIN {_table(c)} ON {_table(c)}.value = e.{quoted(c)}" for c in self.columns)
        engine.execute(f"CREATE TABLE coded AS SELECT e.* REPLACE ({numbers}) FROM exposures AS e {joins} "
                       f"WHERE split >= {first}")
        engine.drop("exposures")
        engine.execute("ALTER TABLE coded RENAME TO exposures")

    def save(self, engine: Engine, day: str, directory: pathlib.Path) -> None:
        """Write the dictionaries as they were after `day`."""
        for column in self.columns:
            engine.execute(f"CREATE TABLE until AS SELECT * FROM {_table(column)} WHERE day <= {literal(day)} "
                           "ORDER BY code")
            engine.save("until", directory / f"{_table(column)}.parquet")
            engine.drop("until")

    def select(self, columns: Mapping[str, str]) -> str:
        """SQL that selects the schema's columns under their own names."""
        return ", ".join(
            f"{quoted(self.names[c])} AS {quoted(c)}" if c in self.names else quoted(c) for c in columns)

    def items(self, engine: Engine, columns: Iterable[str]) -> pa.Array | None:
        """The texts of the items by number, for `decode`; None if none of `columns` is a history of them."""
        if "video_id" not in self.columns or not set(HISTORIES) & set(columns):
            return None
        found = engine.stream(f"SELECT value FROM {_table('video_id')} ORDER BY code")
        return pa.concat_arrays([batch.column(0).cast(pa.large_string()) for batch in found])

    @staticmethod
    def decode(rows: pa.RecordBatchReader, texts: pa.Array | None) -> pa.RecordBatchReader:
        """The rows with the histories of items as texts again; `texts` is the result of `items`."""
        if texts is None:
            return rows
        places = [i for i, name in enumerate(rows.schema.names) if name in HISTORIES]
        schema = rows.schema
        for place in places:
            schema = schema.set(place, pa.field(schema.field(place).name, pa.large_list(pa.large_string())))

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in rows:
                columns = [_texts(column, texts) if i in places else column for i, column in enumerate(batch.columns)]
                yield pa.RecordBatch.from_arrays(columns, schema=schema)

        return pa.RecordBatchReader.from_batches(schema, batches())


def _table(column: str) -> str:
    return f"ids_{column}"


def _texts(column: pa.Array, texts: pa.Array) -> pa.Array:
    """Lists of numbers as lists of the numbered texts; a null list becomes empty."""
    ends = np.cumsum(column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
    offsets = pa.array(np.concatenate([[0], ends]), pa.int64())
    return pa.LargeListArray.from_arrays(offsets, texts.take(column.flatten()))
