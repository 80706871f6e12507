"""CAM2's labels: engagement split by cause, and the threshold as fitted on the training days."""

import json

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.config import check
from dlen_cam2.models import CAM2
from dlen_cam2.models.causal.cam2 import threshold
from dlen_cam2.models.causal.cam2.cam2 import STATE
from dlen_cam2.models.causal.cam2.threshold import LabelThreshold, decompose, engagement
from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.training import model_directory
from dlen_cam2.utils.errors import UserError
from pipelines.writer.dataset import write_dataset
from tests.support.builders import tiny_schema
from tests.support.cam2 import THRESHOLD, built, config

import pyarrow as pa  # isort: skip

RNG = np.random.default_rng(3)


def test_causes_add_up_to_engagement():
    y = tf.constant(RNG.integers(0, 2, 1000), tf.float32)
    x = tf.constant(RNG.integers(0, 5, 1000), tf.float32)
    c, r = decompose(y, x, 2.0)
    np.testing.assert_array_equal(c + r, y)
    np.testing.assert_array_equal(c, y * (x.numpy() >= 2))  # at the threshold is conformity
    assert float(tf.reduce_max(c * r)) == 0 and c.numpy().sum() > 0 and r.numpy().sum() > 0


def test_engagement_of_a_task_and_of_any_positive():
    labels = {"click": [0, 0, 1, 0], "hate": [1, 0, 1, 0], "is_finish": [0, 1, 0, 1], "played": [1, 1, 0, 0]}
    labels = {n: tf.constant(v, tf.float32) for n, v in labels.items()}
    y, mask = engagement(labels, tiny_schema(), "any_positive")
    # hate is no engagement; the last row finished outside of its sample space
    np.testing.assert_array_equal(y, [0, 1, 1, 0])
    np.testing.assert_array_equal(mask, [1, 1, 1, 1])
    y, mask = engagement(labels, tiny_schema(), "finish")
    np.testing.assert_array_equal(y, [0, 1, 0, 1])
    np.testing.assert_array_equal(mask, [1, 1, 0, 0])
    with pytest.raises(UserError, match=r"engagement must be 'any_positive' or a task.*Received: 'nope'. Known: \['cl"):
        engagement(labels, tiny_schema(), "nope")


def test_predictions_start_at_the_rates_of_their_labels():
    assert THRESHOLD.rates(joint=True) == (0.25, 0.25)
    assert THRESHOLD.rates(joint=False) == (25 / 40, 25 / 60)
    with pytest.raises(UserError, match="config.model.causal.interests must be at least 2. Received: 1"):
        check(config(interests=1))


# === The threshold ===

def stored(tmp_path, x, click, played=None):
    """A data set of one day for each array in `x`."""
    schema = Schema("log", (
        Feature("x", "float", "item", "statistical"), Feature("price", "float", "item", "content"),
    ), (Task("click"), Task("finish", mask="played")), keys={"user": "uid"})
    def table(v, c):
        n = len(v)
        return pa.table({"x": np.asarray(v, np.float32), "price": np.zeros(n, np.float32), "uid": np.arange(n),
                         "click": np.asarray(c), "finish": np.asarray(c),
                         "played": np.ones(n, int) if played is None else np.asarray(played)})
    splits = [(f"2024010{i + 1}", table(v, c)) for i, (v, c) in enumerate(zip(x, click, strict=True))]
    write_dataset(tmp_path / "data", schema, splits, {})
    return schema, tmp_path / "data"


def fit(tmp_path, x, click, days=("20240101",), played=None, **fields):
    schema, directory = stored(tmp_path, x, click, played)
    settings = CAM2(**({"statistic": "x", "engagement": "click"} | fields))
    return threshold.fit(settings, schema, schema.features, directory, list(days))


def test_quantile_is_that_of_the_training_days(tmp_path):
    x = [RNG.random(1000), 10 + RNG.random(1000), 100 + RNG.random(1000)]
    y = [RNG.integers(0, 2, 1000) for _ in x]
    split = fit(tmp_path, x, y, ("20240101", "20240102"), thresh=0.7)
    both, clicks = np.concatenate(x[:2]).astype(np.float32), np.concatenate(y[:2])
    assert split.thresh == pytest.approx(np.quantile(both, 0.7), rel=1e-6)
    above = both >= split.thresh
    assert (split.rows, split.rows_above, split.engaged, split.engaged_above) == (
        2000, above.sum(), clicks.sum(), (clicks * above).sum())


def test_a_value_and_a_masked_task(tmp_path):
    split = fit(tmp_path, [[0, 1, 2, 3, 4, 5]], [[1, 1, 0, 1, 1, 1]], played=[1, 1, 1, 1, 1, 0], engagement="finish",
                thresh=3.0, thresh_unit="value")
    assert split == LabelThreshold("finish", "x", 3.0, rows=5, rows_above=2, engaged=4, engaged_above=2)


@pytest.mark.parametrize("fields, message", [
    ({"thresh": 9.0, "thresh_unit": "value"}, r"both sides of x = 9.*Received: 9 \(value\), with 0 of 4 rows and 0 of"),
    ({"thresh": -1.0, "thresh_unit": "value"}, "4 of 4 rows and 2 of 2 engagements at or above; X runs from 0 to 3"),
    ({"thresh": 2.5, "thresh_unit": "value"}, "with 1 of 4 rows and 0 of 2 engagements at or above"),
    ({"statistic": "price"}, r"statistic must name a numeric statistical feature.*Received: 'price'. Known: \['x'\]"),
    ({"statistic": "nope"}, r"Received: 'nope'"),
    ({"engagement": "nope"}, r"engagement must be"),
])
def test_a_threshold_that_cannot_be(tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        fit(tmp_path, [[0, 1, 2, 3]], [[1, 1, 0, 0]], **fields)


def test_interests_that_no_item_has(tmp_path):
    schema = Schema("log", (
        Feature("x", "float", "item", "statistical"),
        Feature("tags", "string", "item", "content", vocabulary=("a", "b"), width=2, max_length=2),
    ), (Task("click"),))
    table = pa.table({"x": np.arange(4, dtype=np.float32), "click": [1, 0, 1, 0], "tags": [[], ["c"], [], [""]]})
    write_dataset(tmp_path / "data", schema, [("20240101", table)], {})
    settings = CAM2(statistic="x", engagement="click", relevance="interests", interest_feature="tags")
    with pytest.raises(UserError, match="needs items with known interests. Received: no known value of 'tags'"):
        threshold.fit(settings, schema, schema.features, tmp_path / "data", ["20240101"])


def test_a_threshold_round_trips_as_json():
    values = json.loads(json.dumps(THRESHOLD.to_dict()))
    assert LabelThreshold.from_dict(values) == THRESHOLD and values["thresh"] == 0.5


def test_a_threshold_describes_itself():
    said = "causes: any_positive counts as conformity where ctr >= 0.5 (50.0% of the engagement)"
    assert THRESHOLD.describe() == said


@pytest.mark.parametrize("text, message", [
    ("{}", "must be an object with the keys"), ("[]", "must be an object with the keys"),
    ('{"thresh": 1}', "must be an object with the keys"),
    (json.dumps(THRESHOLD.to_dict() | {"thresh": "high"}), "thresh of a label.*wrong type. Received: 'high'"),
])
def test_a_damaged_threshold_is_named(text, message, tmp_path):
    settings = config()
    checkpoint = tf.train.Checkpoint(network=built(settings))
    model_directory.save(tmp_path, settings, tiny_schema(), {STATE: THRESHOLD}, checkpoint)
    path = tmp_path / "fitted" / "label_threshold.json"
    assert LabelThreshold.from_dict(json.loads(path.read_text())) == THRESHOLD
    path.write_text(text)
    with pytest.raises(UserError, match=f"label_threshold.json: .*{message}"):
        model_directory.load(tmp_path)
