"""Turn any log (Parquet, CSV or JSON lines) into a data set, with a schema that describes its columns.

    python -m pipelines.from_logs --logs='s/*.csv' --time=ts --user=uid --item=vid --schema=my.pbtxt --suggest_schema
    python -m pipelines.from_logs --logs='s/*.csv' --time=ts --user=uid --item=vid --schema=my.pbtxt --out=data/my

The first command reads a sample and proposes a schema, which you read and correct. The second writes the data set. The
columns of the log must have the schema's names. A missing id is written as -1, a missing string as "", and a missing
list as empty; labels, numbers and keys must not be missing. In text, a list is JSON, such as `["a", "b"]`, or values
separated by spaces. For a log without times, pass --split_by in place of --time.

The tags of the schema describe the columns:

    side:user|item|context and cause:statistical|content|context: a feature
    task:NAME: a label of 0 and 1; with negative if it shows dislike, and weight:W
    mask:COLUMN: the task counts only where COLUMN is 1, and its label may be missing where it is 0. COLUMN may be the
        label of another task, which this one follows (purchases among clicks), or a column tagged sample_space.
    task:NAME with kind:regression: a label that is a number, such as watch seconds
    target:N: a number to keep beside the labels
    transform:log1p|logit, min_count:N, oov_buckets:N, hash_buckets:N, embedding_width:N, table:NAME: for a feature

    known_at:COLUMN: feedback is known at the time in this column; with within:24h, a label counts as 0 if it comes
        later
    known_after:COLUMN|2h: feedback is known so many seconds (or 2h) after its exposure. Default: right after it
    computed:KIND, by:COLUMNS, …: a feature that is no column of the log; see docs/concepts/computed_features.md
"""

import os
import pathlib

from absl import flags

from dlen_cam2.schema import Schema, pbtxt
from dlen_cam2.utils import commands, console
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import read_bytes, write_text
from pipelines import options
from pipelines.logs.conversion import POLICIES, YOUNG_ROWS, convert, files, sql
from pipelines.logs.log_files import open_log
from pipelines.logs.split_by import WAYS, SplitBy
from pipelines.logs.typed_columns import UNITS, Roles, check_time
from pipelines.options import Options
from pipelines.suggestion.propose_computed import costs
from pipelines.suggestion.suggest import suggest

FLAGS = flags.FLAGS


def propose(
    logs: str, roles: Roles, beside: str | os.PathLike = "schema.pbtxt", how: Options = Options(),  # noqa: B008
) -> tuple[Schema, dict[str, str]]:
    """Propose a schema for the files that match the pattern `logs`, and say why for each column; see `suggest`.

    The engine works in a directory beside `beside`, and leaves nothing there.

    Raises:
        UserError: no file matches, a file cannot be read, or `suggest` raises it.
    """
    with how.connect(beside) as engine:
        log = open_log(engine, files(logs))
        check_time(engine, log, roles)
        return suggest(engine, log, roles.time, roles.user, roles.item, roles.random, roles.split_column)


def define_flags() -> None:
    flags.DEFINE_string("logs", None, "Files of the log: a pattern, or several separated by commas.", required=True)
    flags.DEFINE_string("schema", None, "File of the schema; with --suggest_schema, a new file to write it to.")
    flags.DEFINE_bool("suggest_schema", False, "Propose a schema from a sample of the log, and write no data set.")
    flags.DEFINE_string("time", "", "Column of the time of exposure; required unless --split_by is given.")
    flags.DEFINE_string("user", None, "Column of the user's id.", required=True)
    flags.DEFINE_string("item", None, "Column of the item's id.", required=True)
    flags.DEFINE_string("random", "", "Column that is 1 for uniformly random exposures. Default: none.")
    flags.DEFINE_enum("time_unit", "ms", list(UNITS), "Unit of a time that is an integer.")
    flags.DEFINE_integer("utc_offset", 0, "Hours by which days begin earlier than in UTC, 8 for Beijing.", -14, 14)
    flags.DEFINE_enum("split_by", None, WAYS, "Split of a log without times. user, item: all rows of one are in train "
                      "or in test; label: each combination of labels is divided; split: --split_column names it.")
    flags.DEFINE_string("split_column", "split", "Column that is train, validation or test, with --split_by=split.")
    flags.DEFINE_float("test_share", 0.2, "Share of users, items or rows that --split_by puts into test.")
    flags.DEFINE_enum("on_bad_row", "fail", POLICIES, "Rows that break a rule: fail stops, skip leaves them out and "
                      "counts them.")
    flags.DEFINE_enum("young_rows", "drop", YOUNG_ROWS, "Rows that are younger at the end of the log than a label's "
                      "attribution window (within:): drop leaves them out, mark writes splits DAY_young.")
    flags.DEFINE_bool("print_sql", False, "Print the SQL that computes the schema's features, and write no data set.")
    options.define_flags(output=False)
    flags.DEFINE_alias("out", "output")


def main() -> None:
    import time

    split_by = SplitBy(FLAGS.split_by, FLAGS.split_column, FLAGS.test_share) if FLAGS.split_by else None
    roles = Roles(FLAGS.time, FLAGS.user, FLAGS.item, FLAGS.random, FLAGS.time_unit, FLAGS.utc_offset,
                  int(time.time() * 1000) + 60_000, split_by)
    if FLAGS.suggest_schema:
        _suggest(roles)
        return
    if not FLAGS.schema or not (FLAGS.output or FLAGS.print_sql):
        raise UserError(f"--schema and --out must be given. Received: {FLAGS.schema!r}, {FLAGS.output!r}.")
    content = read_bytes(FLAGS.schema)
    try:
        schema = pbtxt.loads(content.decode())
    except (UserError, UnicodeDecodeError) as error:
        raise UserError(f"{FLAGS.schema}: {error}") from error
    if FLAGS.print_sql:
        print(sql(schema, roles, FLAGS.logs))
        return
    statistics = convert(
        FLAGS.logs, schema, roles, FLAGS.output, FLAGS.on_bad_row, options.from_flags(), FLAGS.young_rows)
    options.finish(statistics)


def _suggest(roles: Roles) -> None:
    if FLAGS.schema and pathlib.Path(FLAGS.schema).exists():
        raise UserError(f"--schema must be a new file with --suggest_schema. Received: {FLAGS.schema!r}, which exists.")
    schema, why = propose(FLAGS.logs, roles, FLAGS.schema or "schema.pbtxt", Options(memory=FLAGS.memory))
    console.say("\n".join(f"{name}: {reason}" for name, reason in why.items()))
    if computed := [f for f in schema.features if f.computed]:
        console.say(costs(computed))
    if FLAGS.schema:
        write_text(FLAGS.schema, pbtxt.dumps(schema))
        console.next_step(f"read and correct {FLAGS.schema}, then run the command without --suggest_schema")
    else:
        print(pbtxt.dumps(schema))


if __name__ == "__main__":
    commands.run(main, define_flags)
