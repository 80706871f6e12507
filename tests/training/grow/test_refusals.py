"""What a model that grows refuses."""

import dataclasses
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.models import SharedBottom
from dlen_cam2.schema import pbtxt
from dlen_cam2.training import grow
from dlen_cam2.training.distribution import Place
from dlen_cam2.utils.errors import UserError
from tests.support.growth import ADDED, DAYS, KEPT, cam2, config, copied, trained, weight

pytestmark = pytest.mark.slow


CHANGES = {
    "width": ("vid", {"width": 5}, r"table 'vid' width=5 in place of 4"),
    "dtype": ("shelf", {"dtype": "string", "size": 0, "min_count": 1}, r"'shelf' dtype='string' in place of 'int'"),
    "hashed": ("shelf", {"hashed": True}, r"table 'shelf' hashed=True in place of False"),
    "buckets": ("uid", {"size": 17}, r"table 'uid' size=17 in place of 16"),
    "oov": ("vid", {"oov_buckets": 4}, r"table 'vid' oov_buckets=4 in place of 3"),
    "list": ("shelf", {"max_length": 2}, r"feature 'shelf' is_list=True in place of False"),
    "transform": ("ctr", {"transform": ""}, r"feature 'ctr' transform='' in place of 'logit'"),
    "table": ("seen", {"table": "other"}, r"feature 'seen' table='other' in place of 'vid'"),
    "ids to vocabulary": ("shelf", {"size": 0, "min_count": 1}, r"'shelf' has_vocabulary=True in place of False"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_column_that_is_another_is_refused(log, yesterday, tmp_path, case):
    name, change, message = CHANGES[case]
    of_table = case in ("width", "oov")

    def changed(feature):
        return dataclasses.replace(feature, **change) if name in (feature.name, feature.table * of_table) else feature

    with pytest.raises(UserError, match=f"must keep its .* or get a new name. Received: .*{message}"):
        grow.resume(config(), copied(log, tmp_path / "data", changed), yesterday[1], DAYS[1:])


def test_other_refusals(log, yesterday, tmp_path):
    model = yesterday[1]
    trunk = r"different \['trunk'\]: \[\{'kind': 'mmoe', 'units': \(6,\), 'experts': 3\}\] in place of"
    with pytest.raises(UserError, match=f"except for tasks, .*Received: {trunk}"):
        grow.resume(config(experts=3), log, model, DAYS[1:])
    with pytest.raises(UserError, match=r"Received: --strategy=parameter_server"):
        grow.resume(config(), log, model, DAYS[1:], place=Place("parameter_server"))
    with pytest.raises(UserError, match="holds no trained model"):
        grow.resume(config(), log, tmp_path, DAYS[1:])
    with pytest.raises(UserError, match="must have rows. Received: none on ''"):
        grow.resume(config(), log, model, [])
    with pytest.raises(UserError, match="20300101"):
        grow.resume(config(), log, model, ["20300101"])
    shutil.copytree(log, tmp_path / "data")
    schema = pbtxt.load(log)
    tasks = tuple(dataclasses.replace(t, mask="shown") if t.name == "click" else t for t in schema.tasks)
    pbtxt.save(dataclasses.replace(schema, tasks=tasks), tmp_path / "data")
    with pytest.raises(UserError, match=r"Received: task 'click' mask='shown' in place of ''"):
        grow.resume(config(), tmp_path / "data", model, DAYS[1:])


def test_cam2_refuses_another_engagement_and_other_interests(log, tmp_path):
    values = cam2(engagement="click", relevance="interests", interest_feature="shelf")
    trained(log, tmp_path / "m", causal=values)
    with pytest.raises(UserError, match=r"splits, 'click'. Received: tasks \['like', 'hate'\]"):
        grow.resume(config(tasks=("like", "hate"), causal=values), log, tmp_path / "m", DAYS[1:])
    larger = copied(log, tmp_path / "data", lambda f: dataclasses.replace(f, size=8) if f.name == "shelf" else f)
    with pytest.raises(UserError, match="over the rows of 'shelf'. Received: 9 rows in place of 6"):
        grow.resume(config(causal=values), larger, tmp_path / "m", DAYS[1:])


class Strange(tf.keras.layers.Dense):
    """Tells nobody what its weights are."""


class Short(Strange):
    """Knows one axis of two."""

    def axes(self, read, tasks):
        return [(self.kernel, (tasks, None)), (self.bias, (None,))]


def strange_trunk(layer):
    def trunk(self, x, context):
        return tf.repeat(layer(self.units[-1], name="strange")(x)[:, None], context.tasks, axis=1)

    return trunk


@pytest.mark.parametrize(("layer", "received"), [
    (Strange, "layer 'strange', a Strange without `axes`, with the weights"),
    (Short, "'strange/kernel:0', of shape (22, 6), from Short.axes of layer 'strange'. Received: axes of lengths [2,"),
])
def test_weights_that_no_layer_declares_are_not_copied_by_their_position(log, tmp_path, monkeypatch, layer, received):
    monkeypatch.setattr(SharedBottom, "__call__", strange_trunk(layer))
    trained(log, tmp_path / "m", trunk="shared_bottom")
    with pytest.raises(UserError, match=re.escape(received)):
        grow.resume(config("shared_bottom", without=()), log, tmp_path / "m", DAYS[1:])


class Columns(Strange):
    def axes(self, read, tasks):
        return [(self.kernel, (read, None)), (self.bias, (None,))]


def test_inserted_columns_of_a_layer_that_declares_its_axes(log, tmp_path, monkeypatch):
    monkeypatch.setattr(SharedBottom, "__call__", strange_trunk(Columns))
    old = trained(log, tmp_path / "m", trunk="shared_bottom")
    new = grow.resume(config("shared_bottom", without=()), log, tmp_path / "m", DAYS[1:])
    kernels = [weight(job, "strange/kernel") for job in (old, new)]
    np.testing.assert_array_equal(kernels[1][KEPT], kernels[0])
    assert not kernels[1][ADDED].any()
