"""The transform to log-odds, from the writer to the served model."""

import numpy as np
import pyarrow as pa
import pytest

from dlen_cam2 import data
from dlen_cam2.data.preprocessing import Indexer
from dlen_cam2.schema import Feature, Schema, Task, pbtxt
from dlen_cam2.utils.errors import UserError
from pipelines.writer import dataset

import tensorflow as tf  # isort: skip

# === Log-odds ===
RATES = np.float32([0.0, 1e-4, 0.02, 0.5, 0.9, 1.0])
RATED = Schema("rated", (Feature("rate", "float", "item", "statistical", transform="logit"),), (Task("t"),))


def log_odds(rates):
    """The definition in float64; 0 and 1 count as the rates one millionth beside them."""
    p = np.clip(np.asarray(rates, np.float64), 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


def rated(rates):
    return pa.table({"rate": np.float32(rates), "t": np.arange(len(rates)) % 2})


def test_log_odds_round_trip(tmp_path):
    statistics = dataset.write_dataset(tmp_path / "set", RATED, [("1", rated(RATES))], {})
    found, wanted = statistics["days"]["1"]["features"]["rate"], log_odds(RATES)
    assert (found["min"], found["max"]) == (0.0, 1.0)
    assert found["mean"] == pytest.approx(RATES.mean(dtype=np.float64), rel=1e-12)
    assert found["model_mean"] == pytest.approx(wanted.mean(), rel=1e-9)
    assert found["model_std"] == pytest.approx(wanted.std(), rel=1e-9)

    schema = pbtxt.load(tmp_path / "set")
    assert schema == RATED and schema.features[0].domain == (0.0, 1.0)
    fitted = schema.fit(statistics, ["1"])
    assert (fitted.features[0].mean, fitted.features[0].std) == (found["model_mean"], found["model_std"])
    assert pbtxt.loads(pbtxt.dumps(fitted)) == fitted
    (features, _), = data.read(tmp_path / "set", fitted, ["1"], 10)
    value = features["item_statistical"]["rate"]
    assert value.dtype == tf.float32
    # 1 - 1e-6 in float32 is 2^-24 off at most, 6% of the distance to 1; elsewhere float32 is exact to 1e-5.
    np.testing.assert_allclose(value[:-1], (wanted[:-1] - wanted.mean()) / wanted.std(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(value[-1], (wanted[-1] - wanted.mean()) / wanted.std(), atol=0.06 / wanted.std())


def test_serving_clamps_to_the_domain_of_a_transform():
    features = (
        Feature("rate", "float", "item", "statistical", transform="logit", mean=1.0, std=2.0),
        Feature("count", "float", "item", "statistical", transform="log1p", mean=1.0, std=2.0),
    )
    raw = {"rate": tf.constant([-3.0, 0.0, 1.0, 1.5]), "count": tf.constant([-3.0, -1.0, 0.0, 0.0])}
    found = Indexer(Schema("s", features, ()))(raw)["item_statistical"]
    rate = found["rate"].numpy()
    assert np.isfinite(rate).all() and rate[0] == rate[1] and rate[2] == rate[3]
    assert rate[1] == pytest.approx((np.log(1e-6) - 1) / 2, rel=1e-5)
    assert rate[2] == pytest.approx((-np.log(1e-6) - 1) / 2, abs=0.06 / 2)
    assert found["count"].numpy().tolist() == [-0.5] * 4


@pytest.mark.parametrize("value", [1.5, -0.25])
def test_the_writer_refuses_a_rate_outside_0_and_1(tmp_path, value):
    message = rf"feature 'rate' has the transform 'logit' and must be in \[0\.0, 1\.0\]\. Received: .*{value}"
    with pytest.raises(UserError, match=message):
        dataset.write_dataset(tmp_path / "set", RATED, [("1", rated([0.5, value]))], {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [1.5, -0.25])
def test_the_reader_refuses_a_rate_outside_0_and_1(tmp_path, value):
    free = Schema("rated", (Feature("rate", "float", "item", "statistical"),), (Task("t"),))
    dataset.write_dataset(tmp_path / "set", free, [("1", rated([0.5, value]))], {})
    message = rf"shard .*1/rated\.tfrecord.* column \[rate\] must be .*logit: 0 to 1.* Received: \[{value}\]"
    with pytest.raises(UserError, match=message), data.explained(tmp_path / "set", RATED, ["1"]):
        list(data.read(tmp_path / "set", RATED, ["1"], 8))
