"""Turn Census-Income (KDD) into a data set: `python -m pipelines.census --input=DIR --output=DIR`.

DIR holds UCI's `census-income.data`, `census-income.test`, or both; each may be compressed as `.gz`. `--pair` chooses
the pair of tasks of MMOE (Ma et al. 2018): an income above 50,000 dollars and never married (`income`), or an education
of at least college and never married (`education`).

- CERTAIN: the columns are in the order in which `census-income.names` describes their values; its list of the bureau's
  names has more. The instance weight is a sampling weight that "should *not* be used in the classifiers".
- REPORTED: MMOE trains on `.data` ("train") and divides `.test` 1:1. DESIGN: the lines of `.test` alternate between
  "validation" and "test".
- DESIGN: "at least college" is an associate's degree or more. MMOE does not define it, but REPORTED correlations of its
  pairs' labels are .1768 and .2373 (absolute); `.test` has .1787 for `income`, and for `education` .2376 with this
  reading, .1964 from a bachelor's degree on and .2810 from some college on.
- DESIGN: a column that a label is made from is not a feature of its pair: `marital_stat` and `income` never are, and
  `education` is one in the pair `income` only. Other columns still give away nearly everything ("Child under 18 never
  married"); REPORTED AUCs are .99, too.
- "Not in universe" (the question does not apply) is a value, "?" a missing one.
- There are no users, items or times: the schema has no keys.
"""

import pathlib
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from absl import flags

from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.utils import commands, console
from dlen_cam2.utils.errors import UserError
from pipelines import options
from pipelines.options import Options
from pipelines.writer.dataset import write_dataset

FLAGS = flags.FLAGS

COLUMNS = (
    "age", "class_of_worker", "industry_code", "occupation_code", "education", "wage_per_hour",
    "enrolled_in_edu_inst_last_wk", "marital_stat", "major_industry_code", "major_occupation_code", "race",
    "hispanic_origin", "sex", "member_of_a_labor_union", "reason_for_unemployment",
    "full_or_part_time_employment_stat", "capital_gains", "capital_losses", "dividends_from_stocks", "tax_filer_stat",
    "region_of_previous_residence", "state_of_previous_residence", "detailed_household_and_family_stat",
    "detailed_household_summary_in_household", "instance_weight", "migration_code_change_in_msa",
    "migration_code_change_in_reg", "migration_code_move_within_reg", "live_in_this_house_1_year_ago",
    "migration_prev_res_in_sunbelt", "num_persons_worked_for_employer", "family_members_under_18",
    "country_of_birth_father", "country_of_birth_mother", "country_of_birth_self", "citizenship",
    "own_business_or_self_employed", "fill_inc_questionnaire_for_veterans_admin", "veterans_benefits",
    "weeks_worked_in_year", "year", "income",
)
# What a label is made of has known values only: any other would silently be a 0.
_VALUES = {
    "education": (
        "Children", "Less than 1st grade", "1st 2nd 3rd or 4th grade", "5th or 6th grade", "7th and 8th grade",
        "9th grade", "10th grade", "11th grade", "12th grade no diploma", "High school graduate",
        "Some college but no degree", "Associates degree-occup /vocational", "Associates degree-academic program",
        "Bachelors degree(BA AB BS)", "Masters degree(MA MS MEng MEd MSW MBA)",
        "Prof school degree (MD DDS DVM LLB JD)", "Doctorate degree(PhD EdD)",
    ),
    "marital_stat": (
        "Never married", "Married-civilian spouse present", "Married-A F spouse present", "Married-spouse absent",
        "Separated", "Divorced", "Widowed",
    ),
    "income": ("- 50000.", "50000+."),
}
# Numeric features; amounts of money have long tails.
_NUMBERS = {
    "age": "", "wage_per_hour": "log1p", "capital_gains": "log1p", "capital_losses": "log1p",
    "dividends_from_stocks": "log1p", "num_persons_worked_for_employer": "", "weeks_worked_in_year": "",
}
PAIRS = {"income": ("income_50k", "never_married"), "education": ("college", "never_married")}
_SPLITS = {"data": ("train",), "test": ("validation", "test")}


def convert(source: pathlib.Path, output: str, pair: str = "income", how: Options = Options()) -> dict[str, Any]:  # noqa: B008
    """Read the directory `source` and write the data set `output`; returns its statistics.

    Raises:
        UserError: `pair` is unknown, there is no file, a file is truncated or not UTF-8 text, or a line does not have
            42 values or has one that its column cannot have.
    """
    if pair not in PAIRS:
        raise UserError(f"pair must be one of {tuple(PAIRS)}. Received: {pair!r}.")
    paths = {part: path for part in _SPLITS if (path := _file(source, f"census-income.{part}")) is not None}
    if not paths:
        names = [f"census-income.{part}[.gz]" for part in _SPLITS]
        raise UserError(f"{source} must hold {names[0]} or {names[1]}. Received: neither.")
    splits = [split for part in paths for split in _SPLITS[part]]
    schema = _schema(pair)
    with how.connect(output) as engine:
        engine.put("people", pa.concat_tables([_read(part, path) for part, path in paths.items()]))
        engine.run(pathlib.Path(__file__).with_suffix(".sql"))
        read = {part: engine.one(f"SELECT count(*) FROM people WHERE part = '{part}'") for part in paths}
        for part in _SPLITS:
            if part in paths:
                console.say(f"{paths[part]}: {read[part]:,} people")
            else:
                console.say(f"{source} has no census-income.{part}, so there is no split {' or '.join(_SPLITS[part])}")
        rows = ((s, engine.stream(f"SELECT * FROM census WHERE split = '{s}' ORDER BY line")) for s in splits)
        source_of = {"pipeline": "census", "pair": pair, "rows_read": read}
        # Without "train" the models learn from "validation", and so do the vocabularies: "test" stays unseen.
        return write_dataset(
            output, schema, rows, source_of, form=how.form, train_days=how.train_days or splits[0])


def _file(source: pathlib.Path, name: str) -> pathlib.Path | None:
    """The file `name` or `name`.gz; raises `UserError` if both exist, since either may be the right one."""
    found = [path for path in (source / name, source / f"{name}.gz") if path.exists()]
    if len(found) > 1:
        raise UserError(f"{source} must hold {name} or {name}.gz. Received: both.")
    return found[0] if found else None


def _read(part: str, path: pathlib.Path) -> pa.Table:
    """The values of a file as text without surrounding spaces, with the columns part and line."""
    try:
        table = pyarrow.csv.read_csv(
            path,
            # One thread, so that an error names the line.
            read_options=pyarrow.csv.ReadOptions(column_names=COLUMNS, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(COLUMNS, pa.string()), strings_can_be_null=False),
        )
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:400]
        raise UserError(f"{path} must be a UTF-8 text file of {len(COLUMNS)} values a line, separated by commas. "
                        f"Received: {reason}") from error
    table = pa.table({name: pc.utf8_trim_whitespace(table.column(name)) for name in COLUMNS})
    for name in COLUMNS:
        column = table.column(name)
        if name in _VALUES:
            holds, rule = pc.is_in(column, pa.array(_VALUES[name])), f"one of {list(_VALUES[name])}"
        elif name in _NUMBERS:
            holds, rule = pc.match_substring_regex(column, "^[0-9]{1,9}$"), "an integer of at least 0"
        else:
            holds, rule = pc.not_equal(column, ""), "a value"
        if len(table) and (line := pc.index(holds, False).as_py()) >= 0:
            raise UserError(f"{path}, line {line + 1}: {name} must be {rule}. Received: {column[line].as_py()[:80]!r}.")
    line = pa.array(range(len(table)), pa.int64())
    return table.append_column("part", pa.array([part] * len(table), pa.string())).append_column("line", line)


def _schema(pair: str) -> Schema:
    """The schema: all columns except those of the labels and the weight; a person's attributes are user content."""
    labels = {"marital_stat", "income", "instance_weight"} | ({"education"} if pair == "education" else set())
    return Schema(
        name="census",
        features=tuple(
            Feature(name, "float", "user", "content", transform=_NUMBERS[name]) if name in _NUMBERS
            else Feature(name, "string", "user", "content", width=8, min_count=10)
            for name in COLUMNS if name not in labels
        ),
        tasks=tuple(Task(name) for name in PAIRS[pair]),
        keys={},
    )


def define_flags() -> None:
    flags.DEFINE_string("input", None, "Directory with census-income.data, census-income.test, or both.", required=True)
    flags.DEFINE_enum("pair", "income", list(PAIRS), "MMOE's pair of tasks: income, or education, each with never "
                      "married.")
    options.define_flags(point_in_time=False)


def main() -> None:
    statistics = convert(pathlib.Path(FLAGS.input), FLAGS.output, FLAGS.pair, options.from_flags())
    options.finish(statistics)


if __name__ == "__main__":
    commands.run(main, define_flags)
