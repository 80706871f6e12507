"""Turn Ali-CCP into a data set: `python -m pipelines.aliccp --input=DIR --output=DIR`.

DIR holds the official `sample_skeleton_train.csv`, `sample_skeleton_test.csv`, `common_features_train.csv` and
`common_features_test.csv` (no header). The splits are "train" and "test", in the files' order; the tasks are click, and
conversion among clicks.

The meaning of each field is REPORTED: it follows the data set's public description and was not checked on its files.

- 101: `user_id`, also the key. 121, 122, 124, 125, 126, 127, 128, 129: `profile`, `profile_group`, `gender`, `age`,
  `consumption_1`, `consumption_2`, `occupation`, `geography`.
- 109_14, 110_14, 127_14, 150_14: lists of the categories, shops, brands and intentions of the user's past behaviour;
  the value is the logarithm of a count.
- 205: `item_id`, also the key. 206, 207, 216: `category`, `shop`, `brand`. 210: `intentions`, a list.
- 301: `position`.
- 508, 509, 702, 853: 206 if it is among 109_14, 207 among 110_14, 216 among 127_14, 210 among 150_14 (a list).

The fields become features as follows:

- REPORTED: ids are disjoint between fields (109_14 and 206 number categories differently), so no two share a table.
- DESIGN: a history keeps the 20 ids with the greatest values; 210 and 853 keep their first 10. Values of 508, 509, 702
  and 853 (the greatest of several) are numeric features `*_strength`. They are the user's own interest, so they are
  content, not popularity. If a single-valued field occurs twice, its first id is used.
- DESIGN: the vocabulary of an id is learned from values with at least 10 training rows. Hashing would need a size for
  each field, and frequent ids would collide with millions of rare ones; so only the rare ones share buckets. Attributes
  with few values have no buckets, since a value that is new in the test has no meaning yet.
- DESIGN: a conversion without a click is dropped and counted.

Memory use is DuckDB's limit plus `_SLICE` rows. Samples and common features are kept on disk, beside the output, while
the command runs.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
from absl import flags

from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.utils import commands, console
from dlen_cam2.utils.errors import UserError
from pipelines import options
from pipelines.engines import Engine
from pipelines.options import Options
from pipelines.writer.dataset import write_dataset

FLAGS = flags.FLAGS

SPLITS = ("train", "test")
_FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "common": ("common_features", ("common_feature_index", "feature_num", "feature_list")),
    "skeleton": (
        "sample_skeleton", ("sample_id", "click", "conversion", "common_feature_index", "feature_num", "feature_list")),
}
# Samples that meet their common features at once. Each slice reads all common features, so few are better.
_SLICE = 131_072


def _ids(name: str, side: str, buckets: int, length: int = 1) -> Feature:
    cause = "context" if side == "context" else "content"
    return Feature(name, "int", side, cause, min_count=10, oov_buckets=buckets, width=8, max_length=length)


SCHEMA = Schema(
    name="aliccp",
    features=(
        _ids("user_id", "user", 4096),
        *(_ids(name, "user", 0) for name in (
            "profile", "profile_group", "gender", "age", "consumption_1", "consumption_2", "occupation", "geography")),
        *(_ids(f"past_{name}", "user", 1024, 20) for name in ("categories", "shops", "brands", "intentions")),
        *(_ids(f"{name}_match", "user", 1024) for name in ("category", "shop", "brand")),
        _ids("intention_match", "user", 1024, 10),
        *(Feature(f"{name}_strength", "float", "user", "content")
          for name in ("category", "shop", "brand", "intention")),
        _ids("item_id", "item", 4096),
        *(_ids(name, "item", 1024) for name in ("category", "shop", "brand")),
        _ids("intentions", "item", 1024, 10),
        _ids("position", "context", 0),
    ),
    tasks=(Task("click"), Task("conversion", mask="click")),
    keys={"user": "user_id", "item": "item_id"},
)


def convert(source: pathlib.Path, output: str, how: Options = Options()) -> dict[str, Any]:  # noqa: B008
    """Read the directory `source` and write the data set `output`; returns its statistics.

    Args:
        source: the official files.
        output: where to write; the working tables beside it need about as much space as the input.
        how: layout, compression, processes, and the memory that DuckDB may use before it writes to disk.

    Raises:
        UserError: a file is missing, is not UTF-8 text, or has a line that breaks the format.
    """
    paths = {(kind, split): source / f"{name}_{split}.csv" for kind, (name, _) in _FILES.items() for split in SPLITS}
    if missing := [path.name for path in paths.values() if not path.is_file()]:
        names = [path.name for path in paths.values()]
        raise UserError(f"{source} must hold the files {names}. Received: a directory without {missing}.")
    how.check_days(SPLITS)
    with how.connect(output) as engine:
        _load(engine, paths)
        bounds = _check(engine, paths)
        read = {split: high - low for split, (low, high) in bounds.items()}
        dropped = engine.one("SELECT count(*) FROM samples WHERE click = 0 AND conversion = 1")
        console.say(f"{sum(read.values()):,} samples were read, {dropped:,} conversions without a click were dropped")
        report = {"pipeline": "aliccp", "rows_read": read, "contradictions_dropped": dropped}
        splits = ((split, _rows(engine, *bounds[split])) for split in SPLITS)
        return write_dataset(output, SCHEMA, splits, report, form=how.form, train_days=how.train_days)


def _load(engine: Engine, paths: dict[tuple[str, str], pathlib.Path]) -> None:
    """Create the tables of aliccp.sql."""
    for kind, (_, columns) in _FILES.items():
        types = ", ".join(f"'{c}': 'VARCHAR'" for c in columns)
        values = ", ".join(f"coalesce({c}, '') AS {c}" for c in columns)
        texts = [
            f"SELECT '{split}' AS split, {values} FROM read_csv('{_escaped(paths[kind, split])}', header = false, "
            f"auto_detect = false, delim = ',', quote = '', escape = '', columns = {{{types}}})" for split in SPLITS
        ]
        engine.execute(f"CREATE VIEW {kind}_text AS " + " UNION ALL ".join(texts))
    try:
        engine.run(pathlib.Path(__file__).with_suffix(".sql"))
    except duckdb.Error as error:
        # DuckDB's message names file and line; its advice on its own options is of no use here.
        text = str(error)
        named = [str(path) for path in paths.values() if str(path) in text]
        reason = " ".join(text.split("Possible")[0].split())[:400]
        raise UserError(f"{', '.join(named) or 'the input'} must be UTF-8 text with the fields of the official files, "
                        f"separated by commas. Received: {reason}") from error


def _check(engine: Engine, paths: dict[tuple[str, str], pathlib.Path]) -> dict[str, tuple[int, int]]:
    """Raise `UserError` for the first row that breaks a rule; returns the first rowid and the one after the last."""

    def first(kind: str, text: str, rule: str = "") -> None:
        for split, line, key, broken, received in engine.query(text):
            what = "sample" if kind == "skeleton" else "common_feature_index"
            raise UserError(f"{paths[kind, split]}, {what} {key!r} (row {line + 1} of the split): {broken or rule}. "
                            f"Received: {received!r}.")

    def row(table: str, key: str) -> str:
        return (f"SELECT t.split, t.rowid - (SELECT min(rowid) FROM {table} AS f WHERE f.split = t.split), {key}, "
                "t.broken")

    for kind, table, key in (("common", "common", "t.common_feature_index"), ("skeleton", "samples", "t.sample_id")):
        first(kind, f"{row(table, key)}, t.received FROM {table} AS t WHERE t.broken IS NOT NULL "
                    "ORDER BY t.rowid LIMIT 1")
    first("common", f"{row('common', 't.common_feature_index')}, t.common_feature_index FROM common AS t JOIN ("
                    "SELECT split, common_feature_index, max(rowid) AS again FROM common "
                    "GROUP BY ALL HAVING count(*) > 1) AS twice ON t.rowid = twice.again ORDER BY t.rowid LIMIT 1",
          "each common_feature_index may have one row")
    first("skeleton", f"{row('samples', 't.sample_id')}, t.common_feature_index FROM samples AS t "
                      "ANTI JOIN common AS c USING (split, common_feature_index) ORDER BY t.rowid LIMIT 1",
          "its common_feature_index must be in the common features of the split")
    bounds = dict.fromkeys(SPLITS, (0, 0))
    found = engine.query("SELECT split, min(rowid), 1 + max(rowid), count(*) FROM samples GROUP BY split")
    for split, low, high, count in found:
        assert high - low == count, "the rows of a split lie together"
        bounds[split] = (low, high)
    return bounds


def _rows(engine: Engine, low: int, high: int) -> pa.RecordBatchReader:
    """The samples with low <= rowid < high as rows of the data set, slice by slice, in the order of the file. The
    amount that is joined and sorted at a time does not grow with the file.
    """
    schema = engine.stream("SELECT * FROM slice(0, 0)").schema

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(low, high, _SLICE):
            yield from engine.stream(f"SELECT * FROM slice({start}, {min(start + _SLICE, high)})")

    return pa.RecordBatchReader.from_batches(schema, batches())


def _escaped(path: pathlib.Path) -> str:
    return str(path).replace("'", "''")


def define_flags() -> None:
    flags.DEFINE_string("input", None, "Directory with Ali-CCP's four files.", required=True)
    options.define_flags(point_in_time=False)


def main() -> None:
    statistics = convert(pathlib.Path(FLAGS.input), FLAGS.output, options.from_flags())
    options.finish(statistics)


if __name__ == "__main__":
    commands.run(main, define_flags)
