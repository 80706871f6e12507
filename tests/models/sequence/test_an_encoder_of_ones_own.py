"""An encoder that reads the candidate: its weights are trained, grown and balanced, and it works in `rank`."""

import dataclasses

import pytest
import tensorflow as tf

from dlen_cam2.models.parts import Encoder
from dlen_cam2.parts import encoder
from tests.support import contract


class Attention(tf.keras.layers.Layer):
    """Σ_l softmax_l(<W c, v_l>) v_l over the events that are present; their mean without a candidate."""

    def __init__(self, width, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.width = width

    def build(self, input_shape):
        self.kernel = self.add_weight(name="kernel", shape=(self.width, self.width), experimental_autocast=False)
        super().build(input_shape)

    def call(self, events, present, candidate=None):
        if candidate is None:
            candidate = tf.zeros_like(events[:, 0])
        query = tf.matmul(candidate, tf.cast(self.kernel, candidate.dtype))
        scores = tf.einsum("blw,bw->bl", events, query) + tf.math.log(present + 1e-6)
        return tf.einsum("bl,blw->bw", tf.nn.softmax(scores) * present, events)

    def axes(self, read, tasks):
        return [(self.kernel, (None, None))]

    def shared_weights(self):
        return [(self.kernel, tf.ones(1).numpy())]


@encoder("attention_of_a_test")
@dataclasses.dataclass
class OfATest(Encoder):
    """Attention to the candidate, to show that an encoder of one's own finds its place."""

    reads_candidate = True

    def layer(self, feature, name, dtype):
        return Attention(feature.width, name=name, dtype=dtype)


@pytest.mark.slow
def test_a_life(tmp_path):
    log = contract.log(tmp_path)
    job = contract.a_life(contract.config(OfATest(), without=contract.NEW), log, tmp_path / "m")
    kernels = [w for w in job.network.trainable_weights if "encoder_" in w.name]
    assert [w.shape for w in kernels] == [(4, 4)]


def test_it_is_a_configuration(tmp_path):
    contract.is_a_configuration(OfATest(), tmp_path)
