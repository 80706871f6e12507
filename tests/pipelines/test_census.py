"""Census-Income -> a data set; generated files, and the real test file where it is at hand."""

import csv
import gzip
import io
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from dlen_cam2.schema import pbtxt
from dlen_cam2.utils.errors import UserError
from pipelines import census
from tests.support.builders import command

ROOT = pathlib.Path(__file__).parents[2]
REAL = ROOT.parent / "shared/data/census_income"
TEST, DATA = "census-income.test", "census-income.data"
DEGREES = ("Associates", "Bachelors", "Masters", "Prof school", "Doctorate")


def person(line):
    """A person's values by column; all that the test does not look at are the same."""
    row = dict.fromkeys(census.COLUMNS, "Not in universe") | dict.fromkeys(census._NUMBERS, "0")
    row |= {"age": str(20 + line), "wage_per_hour": "500", "instance_weight": "1700.09", "industry_code": "33"}
    row |= {"state_of_previous_residence": "?", "citizenship": "Foreign born- Not a citizen of U S "}
    row["education"] = census._VALUES["education"][line % 17]
    row["marital_stat"] = census._VALUES["marital_stat"][line % 7]
    row["income"] = census._VALUES["income"][line % 5 == 0]
    return row


def generate():
    return {DATA: [person(i) for i in range(40)], TEST: [person(i) for i in range(100, 121)]}


def write(directory, files):
    directory.mkdir(exist_ok=True)
    for name, rows in files.items():
        text = "".join(", ".join(row[c] for c in census.COLUMNS) + "\n" for row in rows)
        (directory / name).write_text(text, encoding="utf-8")
    return directory


def read(output, split):
    return list(tfds.builder_from_directory(str(output)).as_dataset(split=split).as_numpy_iterator())


@pytest.fixture(scope="module", params=list(census.PAIRS))
def made(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("census")
    output = directory / "out"
    statistics = census.convert(write(directory / "in", generate()), str(output), request.param)
    return request.param, output, statistics


def test_splits_and_values(made):
    pair, output, statistics = made
    files = generate()
    wanted = {"train": files[DATA], "validation": files[TEST][::2], "test": files[TEST][1::2]}
    assert {split: s["rows"] for split, s in statistics["days"].items()} == {"train": 40, "validation": 11, "test": 10}
    assert statistics["source"] == {"pipeline": "census", "pair": pair, "rows_read": {"data": 40, "test": 21}}
    assert statistics["vocabularies_of"] == ["train"]
    for split, people in wanted.items():
        for row, given in zip(read(output, split), people, strict=True):
            if pair == "income":
                assert row["income_50k"] == (given["income"] == "50000+.")
                assert row["education"].decode() == given["education"] and "college" not in row
            else:
                assert row["college"] == given["education"].startswith(DEGREES)
                assert not {"education", "income_50k"} & set(row)
            assert row["never_married"] == (given["marital_stat"] == "Never married")
            assert (row["age"], row["wage_per_hour"]) == (float(given["age"]), 500)
            assert row["state_of_previous_residence"] == b"" and row["sex"] == b"Not in universe"
            assert row["citizenship"] == b"Foreign born- Not a citizen of U S"


def test_labels_and_the_weight_are_no_features_and_there_are_no_keys(made):
    pair, output, _ = made
    schema = pbtxt.load(output)
    names = {f.name for f in schema.features}
    hidden = {"marital_stat", "income", "instance_weight"} | ({"education"} if pair == "education" else set())
    assert names == set(census.COLUMNS) - hidden
    assert schema.task_names == census.PAIRS[pair] and dict(schema.keys) == {}
    assert {f.name: f.vocabulary for f in schema.features if f.has_vocabulary}["industry_code"] == ("33",)


@pytest.mark.parametrize(("name", "splits"), [(DATA, ["train"]), (TEST, ["validation", "test"])])
def test_one_file_will_do_and_it_may_be_compressed(tmp_path, capsys, name, splits):
    source = write(tmp_path / "in", {name: generate()[name]})
    (source / f"{name}.gz").write_bytes(gzip.compress((source / name).read_bytes()))
    (source / name).unlink()
    statistics = census.convert(source, str(tmp_path / "out"))
    assert list(statistics["days"]) == splits and statistics["vocabularies_of"] == splits[:1]
    absent = "census-income.test, so there is no split validation or test"
    if name != DATA:
        absent = "census-income.data, so there is no split train"
    assert absent in capsys.readouterr().out


def cell(column, value, line=1):
    def edit(directory, files):
        files[TEST][line][column] = value
        write(directory, {TEST: files[TEST]})
    return edit


def raw(change):
    return lambda directory, _: (directory / TEST).write_bytes(change((directory / TEST).read_bytes()))


def cut_gzip(directory, _):
    whole = gzip.compress((directory / TEST).read_bytes())
    (directory / TEST).unlink()
    (directory / f"{TEST}.gz").write_bytes(whole[: len(whole) // 2])


FORMAT = rf"{TEST} must be a UTF-8 text file of 42 values a line, separated by commas. Received: "
BAD = {
    "no file": (
        lambda d, _: [p.unlink() for p in d.iterdir()],
        r"in must hold census-income.data\[.gz\] or census-income.test\[.gz\]. Received: neither"),
    "both forms": (
        lambda d, _: (d / f"{TEST}.gz").write_bytes(b""), rf"must hold {TEST} or {TEST}.gz. Received: both"),
    "cut off": (raw(lambda b: b[:-80]), FORMAT + ".*Expected 42 columns, got"),
    "a value too many": (raw(lambda b: b.replace(b"1700", b"17, 00", 1)), FORMAT + ".*Expected 42 columns, got 43"),
    "empty line": (raw(lambda b: b.replace(b"\n", b"\n\n", 1)), "line 2: age must be an integer.*Received: ''"),
    "empty file": (raw(lambda b: b""), FORMAT + ".*[Ee]mpty"),
    "tabs": (raw(lambda b: b.replace(b", ", b"\t")), FORMAT + ".*got 1"),
    "not UTF-8": (raw(lambda b: b.replace(b"1700.09", b"17\xe900.09", 1)), FORMAT + ".*UTF"),
    "cut off gzip": (cut_gzip, rf"{TEST}.gz must be a UTF-8 text file"),
    "a directory": (lambda d, _: ((d / TEST).unlink(), (d / TEST).mkdir()), FORMAT),
    "income": (cell("income", "50000"), rf"{TEST}, line 2: income must be one of .*Received: '50000'"),
    "education": (cell("education", "College", 4), rf"{TEST}, line 5: education must be one of .*Received: 'College'"),
    "marital status": (cell("marital_stat", ""), r"line 2: marital_stat must be one of .*Received: ''"),
    "text for a number": (cell("age", "old"), "line 2: age must be an integer of at least 0. Received: 'old'"),
    "decimal": (cell("capital_gains", "1.5"), "line 2: capital_gains must be an integer .*Received: '1.5'"),
    "negative": (cell("weeks_worked_in_year", "-1"), "line 2: weeks_worked_in_year must be .*Received: '-1'"),
    "no value": (cell("sex", ""), "line 2: sex must be a value. Received: ''"),
    "foreign output": (
        lambda d, f: write(d.parent / "out", {"mine.csv": f[TEST]}), r"out is not empty.*Received.*mine\.csv"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message_and_leaves_nothing(tmp_path, case):
    edit, message = BAD[case]
    files = generate()
    source = write(tmp_path / "in", files)
    edit(source, files)
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    with pytest.raises(UserError, match=f"(?s){message}") as error:
        census.convert(source, str(tmp_path / "out"))
    assert len(str(error.value)) < 1500 and "Received" in str(error.value)
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before


def test_an_unknown_pair(tmp_path):
    with pytest.raises(UserError, match=r"pair must be one of \('income', 'education'\). Received: 'age'"):
        census.convert(tmp_path, str(tmp_path / "out"), "age")


@pytest.mark.slow
@pytest.mark.parametrize("bad", [False, True])
def test_command_line(tmp_path, bad):
    source = write(tmp_path / "in", generate())
    if bad:
        raw(lambda b: b[:-80])(source, None)
    done = command("pipelines.census", f"--input={source}", f"--output={tmp_path / 'out'}", "--pair=education")
    assert done.returncode == bad, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr and len(errors) == bad
    if bad:
        assert [p.name for p in tmp_path.iterdir()] == ["in"]
    else:
        assert "61 rows in 3 splits" in done.stdout
        assert pbtxt.load(tmp_path / "out").task_names == ("college", "never_married")


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / f"{TEST}.gz").is_file(), reason=f"Census-Income's test file is not at {REAL}")
def test_real_file(monkeypatch, tmp_path):
    rows = {}

    def collect(output, schema, splits, source, **_):
        rows.update({split: table.read_all().to_pylist() for split, table in splits})
        return source

    monkeypatch.setattr(census, "write_dataset", collect)
    assert census.convert(REAL, str(tmp_path / "out"))["rows_read"] == {"test": 99_762}
    with gzip.open(REAL / f"{TEST}.gz", "rt", encoding="utf-8") as file:
        given = list(csv.reader(io.StringIO(file.read()), skipinitialspace=True, quoting=csv.QUOTE_NONE))
    assert {split: len(found) for split, found in rows.items()} == {"validation": 49_881, "test": 49_881}
    number = {name: i for i, name in enumerate(census.COLUMNS)}
    for split, lines in {"validation": given[::2], "test": given[1::2]}.items():
        for row, line in list(zip(rows[split], lines, strict=True))[::997]:
            for name in set(number) & set(row):
                value = line[number[name]].strip()
                assert row[name] == (float(value) if name in census._NUMBERS else value.replace("?", ""))
    whole = rows["validation"] + rows["test"]
    labels = {name: np.array([row[name] for row in whole]) for name in ("income_50k", "college", "never_married")}
    # census-income.names: 6.20% of the test file's people have more than 50,000.
    assert labels["income_50k"].sum() == 6_186 and labels["never_married"].sum() == 43_143
    # See the module's docstring: what speaks for this reading of "at least college".
    correlations = [np.corrcoef(labels[name], labels["never_married"])[0, 1] for name in ("income_50k", "college")]
    assert correlations == pytest.approx([-0.1787, -0.2376], abs=1e-4)
