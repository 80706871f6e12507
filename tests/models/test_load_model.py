"""Networks are loaded by Keras as they were saved, without `custom_objects`."""

import itertools
import pickle

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2 import parts
from dlen_cam2.models import Network, build
from tests.support import processes
from tests.support.builders import tiny_batch, tiny_config, tiny_schema
from tests.support.cam2 import VARIANTS, built, config


def saved(tmp_path, networks, form=".keras"):
    """`[(path, what the network makes of the batch)]`; without a form a directory, that is, a SavedModel."""
    found = []
    for number, network in enumerate(networks):
        outputs = {name: output.numpy() for name, output in network(tiny_batch()[0]).items()}
        found.append((str(tmp_path / f"{number}{form}"), outputs))
        network.save(found[-1][0])
    return found


def assert_loads_elsewhere(tmp_path, found):
    """In a process that imports nothing but `dlen_cam2.models`, on nested inputs, to equal outputs."""
    inputs = tf.nest.map_structure(np.asarray, tiny_batch()[0])
    (tmp_path / "found.pickle").write_bytes(pickle.dumps((inputs, found)))
    code = (
        "import pickle, sys\n"
        "assert 'dlen_cam2.models' not in sys.modules\n"
        "import dlen_cam2.models, numpy as np, tensorflow as tf\n"
        "inputs, found = pickle.load(open(sys.argv[1], 'rb'))\n"
        "for path, wanted in found:\n"
        "    network = tf.keras.models.load_model(path)\n"
        "    assert isinstance(network, dlen_cam2.models.Network)\n"
        "    outputs = network(tf.nest.map_structure(tf.constant, inputs))\n"
        "    assert set(outputs) == set(wanted)\n"
        "    for name in wanted:\n"
        "        np.testing.assert_array_equal(outputs[name], wanted[name], path + ' ' + name)\n"
    )
    done = processes.run(["-c", code, tmp_path / "found.pickle"])
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_every_network_loads_without_custom_objects(tmp_path):
    """Each trunk with each head, and with each variant of CAM2 with each way to read it out; each head without CAM2."""
    literal = {"conformity": "norm", "relevance": "interests", "interest_feature": "video_id", "heads": "conditional"}
    read_outs = itertools.cycle(itertools.product(VARIANTS, ({}, literal, {"heads": "gated"})))
    composed = list(itertools.product(parts.classes("trunk"), parts.classes("head")))
    assert len(composed) >= len(VARIANTS) * 3
    chosen = [config(variant, trunk, head, **fields)
              for (trunk, head), (variant, fields) in zip(composed, read_outs, strict=False)]
    chosen += [config("production", "ple", head) for head in parts.classes("head")]
    networks = []
    for settings in chosen:
        settings.model.dropout = 0.1
        networks.append(built(settings))
    assert_loads_elsewhere(tmp_path, saved(tmp_path, networks))


@pytest.mark.slow
def test_a_network_loads_from_a_saved_model(tmp_path):
    network = built(config(trunk="shared_bottom", head="dlen", heads="gated"))
    assert_loads_elsewhere(tmp_path, saved(tmp_path, [network], ""))


@pytest.mark.slow
def test_a_network_of_bfloat16_is_loaded_as_one(tmp_path):
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        network = built(config(trunk="ple", head="dlen", heads="gated"))
        found = saved(tmp_path, [network])
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    assert_loads_elsewhere(tmp_path, found)


@pytest.mark.parametrize("form", [".keras", ""], ids=["keras", "saved_model"])
def test_a_loaded_network_of_groups_of_one_feature_each(form, tmp_path):
    schema = tiny_schema().select(features=["ctr", "phone"])
    network = build(tiny_config().model, schema)
    batch = {g: {n: v for n, v in f.items() if n in ("ctr", "phone")} for g, f in tiny_batch()[0].items()}
    batch = {g: f for g, f in batch.items() if f}
    network.save(tmp_path / f"network{form}")
    loaded = tf.keras.models.load_model(tmp_path / f"network{form}")
    assert isinstance(loaded, Network)
    np.testing.assert_array_equal(loaded(batch)["logits"], network(batch)["logits"])
