"""Score adapters: what they are called with, in every signature, and what they may not do."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.parts import score_adapter
from dlen_cam2.serving.score_adapters.adapter import ScoreAdapter
from dlen_cam2.serving.signatures import Server
from tests.support.builders import raw_batch, trained_model


@score_adapter("halves_of_a_test")
@dataclasses.dataclass
class Halves(ScoreAdapter):
    """Half of every score of odd items, by a number that is stored with the model."""

    def __post_init__(self):
        self._module = tf.Module()
        self._module.factor = tf.Variable(0.5, trainable=False)

    def __call__(self, scores, columns):
        odd = tf.cast(columns["video_id"] % 2, tf.float32)
        return {name: s * (1 - odd * (1 - self._module.factor)) for name, s in scores.items()}

    def tracked(self):
        return self._module


class Forgetful(Halves):
    def __call__(self, scores, columns):
        return {"click": scores["click"]}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return trained_model(tmp_path_factory.mktemp("adapted") / "m")[0]


def test_scores_are_adapted_before_they_are_fused(model):
    rows = {name: tf.constant(column) for name, column in raw_batch(8).items() if name in _features(model)}
    plain, adapted = Server(model), Server(model, adapters=[Halves()])
    before, after = plain.score_raw(**rows), adapted.score_raw(**rows)
    odd = rows["video_id"].numpy() % 2 == 1
    np.testing.assert_allclose(after["click"], before["click"] * np.where(odd, 0.5, 1.0), rtol=1e-6)
    assert not np.allclose(after["fused"][odd], before["fused"][odd])
    np.testing.assert_allclose(after["fused"][~odd], before["fused"][~odd], rtol=1e-6)
    assert any(v is adapted.tracked[0].factor for v in adapted.variables)


def test_names_must_stay(model):
    rows = {name: tf.constant(column) for name, column in raw_batch(2).items() if name in _features(model)}
    with pytest.raises(AssertionError, match="must keep the names of scores"):
        Server(model, adapters=[Forgetful()]).score_raw(**rows)


def _features(model):
    return {feature.name for feature in model.schema.features}
