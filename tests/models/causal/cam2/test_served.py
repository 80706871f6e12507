"""Models with CAM2's branches: trained, stored, served with and without the scores of causes."""

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2 import serving
from dlen_cam2.config import TrainConfig
from dlen_cam2.models import ReadOut
from dlen_cam2.models.causal.cam2.cam2 import STATE
from dlen_cam2.serving.signatures import Server
from dlen_cam2.training import model_directory
from dlen_cam2.training.optimizers import composite
from dlen_cam2.training.step import Ranker
from dlen_cam2.utils.errors import UserError
from tests.support.builders import raw_batch, tiny_schema
from tests.support.cam2 import THRESHOLD, batch, built, config
from tests.support.ranking import assert_ranks_like_rows


@pytest.mark.slow
@pytest.mark.parametrize("trunk, head, fields", [
    ("ple", "dlen", {}),
    ("mmoe", "logistic", {"heads": "conditional", "relevance": "interests", "interest_feature": "author"}),
    ("ple", "dlen", {"heads": "gated", "conformity": "norm", "relevance": "interests", "interest_feature": "video_id"}),
])
def test_trains_is_saved_and_served(trunk, head, fields, tmp_path):
    settings = config(trunk=trunk, head=head, **fields)
    network = built(settings)
    read_out = ReadOut(settings.model, tiny_schema())
    ranker = Ranker(network, read_out, read_out.losses({STATE: THRESHOLD}))
    ranker.compile(optimizer=composite(network, TrainConfig(learning_rate=0.01)))
    history = ranker.fit(tf.data.Dataset.from_tensors(batch()).repeat(30), epochs=2, verbose=0).history["loss"]
    assert np.isfinite(history).all() and history[1] < history[0]
    trained = tf.train.Checkpoint(network=network, optimizer=ranker.optimizer)
    model_directory.save(tmp_path, settings, tiny_schema(), {STATE: THRESHOLD}, trained)
    loaded = model_directory.load(tmp_path)
    assert loaded.fitted == {STATE: THRESHOLD}
    expected = network(batch()[0])
    for name, output in loaded.network(batch()[0]).items():
        np.testing.assert_array_equal(output, expected[name], err_msg=name)

    raw = {name: tf.constant(column) for name, column in raw_batch(16).items()}
    exposed = tf.saved_model.load(str(serving.export(loaded, tmp_path / "exposed", causes=True)))
    without, with_causes = Server(loaded).score_raw(**raw), exposed.signatures["raw"](**raw)
    assert set(with_causes) - set(without) == {"conformity", "relevance"}
    for name, score in read_out.causes(expected).items():
        np.testing.assert_allclose(with_causes[name], score, rtol=1e-5)
    for name, score in without.items():
        np.testing.assert_allclose(score, with_causes[name], rtol=1e-6)
    # Sums in another order; after 60 steps on one batch scores are as small as 1e-8.
    assert_ranks_like_rows(exposed.signatures, rtol=1e-4)


@pytest.mark.slow
def test_the_served_model_drops_the_causal_heads(tmp_path):
    """Their weights are not in the exported variables, and are with `causes`."""
    settings = config(heads="gated")
    network = built(settings)
    model_directory.save(tmp_path, settings, tiny_schema(), {STATE: THRESHOLD}, tf.train.Checkpoint(network=network))
    loaded = model_directory.load(tmp_path)

    def names(directory):
        path = str(directory / "variables" / "variables")
        return {n for n, _ in tf.train.list_variables(path)}

    def parameters(directory):
        path = str(directory / "variables" / "variables")
        return sum(int(np.prod(s)) for n, s in tf.train.list_variables(path) if "VARIABLE_VALUE" in n)

    plain = serving.export(loaded, tmp_path / "plain")
    exposed = serving.export(loaded, tmp_path / "exposed", causes=True)
    # The read-out of û + î (4 + 1) and the gate over both embeddings (7 + 1).
    assert parameters(exposed) - parameters(plain) == 5 + 8
    assert len(names(exposed)) - len(names(plain)) == 4


def test_only_branches_have_scores_of_causes(tmp_path):
    settings = config("production")
    network = built(settings)
    model_directory.save(tmp_path, settings, tiny_schema(), {}, tf.train.Checkpoint(network=network))
    loaded = model_directory.load(tmp_path)
    assert loaded.fitted == {} and loaded.read_out.causes(network(batch()[0])) == {}
    with pytest.raises(UserError, match="Received: config.model.causal=None"):
        serving.export(loaded, tmp_path / "served", causes=True)
