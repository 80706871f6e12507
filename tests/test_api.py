"""The Python API: a data set, fit, measure, ask, export, go on; what it refuses."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

import dlen_cam2 as dc
from dlen_cam2 import evaluation
from dlen_cam2.training import model_directory
from dlen_cam2.utils.errors import UserError
from tests.support import contract


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dc.open(contract.log(tmp_path_factory.mktemp("api")))


@pytest.fixture(scope="module")
def model(data):
    made = dc.Model(
        trunk=dc.MMOE(experts=2, units=(8,)), head="dlen", tower_units=(4,), batch_size=40, without=contract.NEW
    )
    made.config.model.head.latent_units = (4,)
    return made.fit(data, contract.DAYS[0])


def test_a_data_set(data):
    assert data.days == list(contract.DAYS) and data.parse("20220425..20220426") == list(contract.DAYS)
    assert "240 rows of 2 splits" in repr(data) and "tasks click, buy, hate, watch" in repr(data)
    rows = data.rows(contract.DAYS[1], 3)
    assert rows["uid"].shape == (3,) and rows["seen"].shape == (3, 3)
    with pytest.raises(UserError, match="no day|nothing|Known"):
        data.rows("20200101")


@pytest.mark.slow
def test_it_measures_what_the_command_measures(data, model):
    found = model.evaluate(data, contract.DAYS[1], bootstrap=0)
    trained = model.trained
    score = evaluation.scorer(trained.network, trained.read_out)
    shown = evaluation.predict(score, trained.schema, data.directory, contract.DAYS[1])
    assert found == {contract.DAYS[1]: evaluation.evaluate(shown, trained.schema, bootstrap=0)}
    assert "| click |" in str(found) and "| watch |" in str(found) and "trained on 20220425" in repr(model)
    with pytest.raises(UserError, match="must be measured on days that it was not trained on"):
        model.evaluate(data, contract.DAYS[0])


def test_a_table_of_rows_scores_as_what_is_served(data, model):
    rows = data.rows(contract.DAYS[1], 5)
    found = model.predict(rows)
    trained = model.trained
    shown = evaluation.predict(
        evaluation.scorer(trained.network, trained.read_out), trained.schema, data.directory, contract.DAYS[1])
    for name, values in shown.serving.items():
        np.testing.assert_allclose(found[name], values[:5], rtol=1e-6, err_msg=name)
    plain = {name: column.tolist() for name, column in rows.items()}
    plain["seen"] = [[v for v in row if v >= 0] for row in plain["seen"]]
    plain["city"] = [city.decode() for city in plain["city"]]
    for table in (plain, pa.table(plain), plain | {"other": [1]}):
        np.testing.assert_array_equal(model.predict(table)["fused"], found["fused"])
    assert {name: column.shape for name, column in model.predict({n: c[:0] for n, c in rows.items()}).items()} == {
        name: (0,) for name in found
    }


@pytest.mark.parametrize(("change", "message"), [
    ({"uid": None}, r"rows must have a column for each feature. Received: none for \['uid'\]"),
    ({"uid": ["a"] * 5}, "column 'uid' must hold ints. Received: \\['a', 'a', 'a'"),
    ({"active": [True] * 5}, "column 'active' must hold floats"),
    ({"city": [1] * 5}, "column 'city' must hold strings"),
    ({"seen": [3] * 5}, "column 'seen' must hold ints, a list in each row"),
    ({"uid": [1.5] * 5}, "column 'uid' must hold ints"),
    ({"uid": 1}, r"column 'uid' must have a value for each row; write a single row as \[value\]. Received: 1"),
    ({"active": [None] * 5}, "column 'active' must hold floats"),
    ({"uid": [1] * 4}, "columns must have the same length. Received: .*'uid': 4"),
    ({"active": [float("nan")] * 5}, "active.*must be numbers. Received: NaN"),
])
def test_rows_that_cannot_be_scored(data, model, change, message):
    rows = {name: column for name, column in (data.rows(contract.DAYS[1], 5) | change).items() if column is not None}
    with pytest.raises(UserError, match=message):
        model.predict(rows)


def test_what_is_missing_is_unknown_and_rows_are_columns(data, model):
    with pytest.raises(UserError, match="rows must be columns, .* Received: list"):
        model.predict([{"uid": 1}])
    rows = {name: column.tolist() for name, column in data.rows(contract.DAYS[1], 2).items()}
    none = model.predict(rows | {"uid": [None] * 2, "city": [None] * 2, "seen": [None, [None]]})
    unknown = model.predict(rows | {"uid": [-1] * 2, "city": [""] * 2, "seen": [[], [-1]]})
    np.testing.assert_array_equal(none["fused"], unknown["fused"])


@pytest.mark.slow
def test_saved_loaded_exported_and_a_day_more(data, model, tmp_path):
    rows = data.rows(contract.DAYS[1], 5)
    model.save(tmp_path / "m")
    again = dc.load(tmp_path / "m")
    np.testing.assert_array_equal(again.predict(rows)["fused"], model.predict(rows)["fused"])
    assert model_directory.load(tmp_path / "m").days == [contract.DAYS[0]]
    assert (again.export(tmp_path / "served") / "saved_model.pb").is_file()
    with pytest.raises(UserError, match="with dlen_cam2 train --continue_from"):
        again.fit(data, contract.DAYS[1])
    with pytest.raises(UserError, match="only a model that was fitted here can be saved"):
        again.save(tmp_path / "other")
    before = model.predict(rows)["fused"]
    model.fit(data, contract.DAYS[1])
    assert model.trained.days == list(contract.DAYS) and not np.array_equal(model.predict(rows)["fused"], before)
    with pytest.raises(UserError, match="each day may be trained on only once"):
        model.fit(data, contract.DAYS[1])


def test_what_a_model_refuses():
    with pytest.raises(UserError, match=r"a model has no field \['trunc'\]. Known: .*'trunk'"):
        dc.Model(trunc="mmoe")
    with pytest.raises(UserError, match=r"no field \['levels'\].* There is config.model.trunk.levels of ple\.$"):
        dc.Model(trunk="ple", levels=3)
    with pytest.raises(UserError, match=r"must be a Config, such as Config\(model=ModelConfig\(…\)\). Received: Model"):
        dc.Model(dc.ModelConfig())
    with pytest.raises(UserError, match="config.model.trunk must be a trunk, one of"):
        dc.Model(trunk="moe")
    with pytest.raises(UserError, match="must be fitted first"):
        _ = dc.Model().network
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = dc.nothing


def test_importing_the_package_imports_no_tensorflow():
    code = "import sys, dlen_cam2; assert 'tensorflow' not in sys.modules and 'Model' in dir(dlen_cam2)"
    subprocess.run([sys.executable, "-c", code], check=True)
