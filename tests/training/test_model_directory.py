"""Model directories: what lies in them, and which are refused."""

import json

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2 import __version__
from dlen_cam2.models import build
from dlen_cam2.models.causal.cam2.cam2 import STATE
from dlen_cam2.models.causal.cam2.threshold import LabelThreshold
from dlen_cam2.training import model_directory
from dlen_cam2.utils.errors import UserError
from tests.support.builders import branches, command, tiny_batch, tiny_config, tiny_schema, trained_model

THRESHOLD = LabelThreshold("any_positive", "ctr", 0.5, rows=100, rows_above=40, engaged=50, engaged_above=25)


def test_what_a_part_fitted_goes_with_the_model(tmp_path):
    config = tiny_config(causal=branches(statistic="ctr", units=4, blocks=1, embedding=3))
    network = build(config.model, tiny_schema(), {STATE: THRESHOLD})
    model_directory.save(
        tmp_path, config, tiny_schema(), {STATE: THRESHOLD}, tf.train.Checkpoint(network=network), ["20240101"])
    assert json.loads((tmp_path / "format.json").read_text()) == {"format": 3, "dlen_cam2": __version__}
    assert [p.name for p in (tmp_path / "fitted").iterdir()] == ["label_threshold.json"]
    loaded = model_directory.load(tmp_path)
    assert (loaded.config, loaded.schema, loaded.fitted) == (config, tiny_schema(), {STATE: THRESHOLD})
    assert loaded.days == ["20240101"] and loaded.read_out.config is loaded.config.model
    features, _ = tiny_batch()
    for name, values in network(features).items():
        np.testing.assert_array_equal(loaded.network(features)[name], values)
    (tmp_path / "fitted" / "label_threshold.json").unlink()
    with pytest.raises(UserError, match=r"fitted/label_threshold.json does not exist"):
        model_directory.load(tmp_path)


def test_a_model_without_fitted_states(tmp_path):
    loaded, outputs = trained_model(tmp_path / "m")
    assert loaded.fitted == {} and loaded.config == tiny_config() and not list((tmp_path / "m" / "fitted").iterdir())
    np.testing.assert_array_equal(loaded.network(tiny_batch(8)[0])["logits"].shape, outputs["logits"].shape)


@pytest.mark.parametrize("written, received", [
    ({"format": 2, "dlen_cam2": "0.9.3"}, "{'format': 2, 'dlen_cam2': '0.9.3'}"),
    ({"format": 4, "dlen_cam2": "7.0"}, "{'format': 4, 'dlen_cam2': '7.0'}"),
    (None, "{'format': 1}"),
])
def test_another_format_is_refused_before_anything_is_read(tmp_path, written, received):
    """The configuration of format 2 is another, and would be a message about a key that nobody has written."""
    trained_model(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text('{"model": {"trunk": "mmoe", "cam2": {}}}')
    if written is None:
        (tmp_path / "m" / "format.json").unlink()
    else:
        (tmp_path / "m" / "format.json").write_text(json.dumps(written))
    message = (
        f"{tmp_path}/m was written by a version of dlen_cam2 with another file format, so the model must be trained "
        f"again. Received: {received}. Expected: format 3 (dlen_cam2 {__version__})."
    )
    with pytest.raises(UserError) as error:
        model_directory.load(tmp_path / "m")
    assert str(error.value) == message
    done = command("dlen_cam2.cli.evaluate", f"--model_dir={tmp_path / 'm'}", f"--data_dir={tmp_path}", "--days=1")
    assert done.returncode == 1 and f"error: {message}" in done.stderr and "Traceback" not in done.stderr


def test_a_directory_that_holds_no_model(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} holds no trained model. Received: .* without config.json"):
        model_directory.load(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "3", "null"])
def test_a_damaged_format_is_one_message(tmp_path, content):
    trained_model(tmp_path / "m")
    (tmp_path / "m" / "format.json").write_text(content)
    with pytest.raises(UserError, match="format.json must be a JSON file|was written by a version"):
        model_directory.load(tmp_path / "m")


def test_weights_that_do_not_fit_are_one_message(tmp_path):
    trained_model(tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    content = json.loads(path.read_text())
    content["model"]["trunk"]["experts"] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="m/weights: the weights cannot be read. Received: "):
        model_directory.load(tmp_path / "m")
