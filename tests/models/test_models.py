"""Every trunk and every head: builds, trains, is saved and served; sizes and identities of whole models."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from dlen_cam2 import parts, serving
from dlen_cam2.config import Config, TrainConfig
from dlen_cam2.data.preprocessing import Indexer
from dlen_cam2.models import CGC, MMOE, PLE, ReadOut, SharedBottom, build
from dlen_cam2.models.context import Context
from dlen_cam2.schema import Schema, Task
from dlen_cam2.training import model_directory
from dlen_cam2.training.optimizers import composite
from dlen_cam2.training.step import Ranker
from dlen_cam2.utils.errors import UserError
from tests.support import processes
from tests.support.builders import built, flat, ranker, raw_batch, tiny_batch, tiny_config, tiny_schema, trained_model
from tests.support.ranking import assert_ranks_like_rows

TASKS = ("click", "hate", "finish")


def examples():
    """`raw_batch` as serialised `tf.train.Example`s, as a client sends them."""
    columns, rows = raw_batch(8), []
    for i in range(8):
        example = tf.train.Example()
        for name, column in columns.items():
            value, feature = column[i], example.features.feature[name]
            if name == "history":
                feature.int64_list.value.extend(v for v in value if v >= 0)
            elif isinstance(value, str):
                feature.bytes_list.value.append(value.encode())
            elif column.dtype == np.float32:
                feature.float_list.value.append(value)
            else:
                feature.int64_list.value.append(value)
        rows.append(example.SerializeToString())
    return tf.constant(rows)


# Every pair is built, and every part lives in some model, in tests/test_contract.py.
PAIRS = [*(("ple", head) for head in parts.classes("head")),
         *((trunk, "dlen") for trunk in parts.classes("trunk") if trunk != "ple")]


@pytest.mark.slow
@pytest.mark.parametrize(("trunk", "head"), PAIRS)
def test_every_trunk_and_every_head(trunk, head, tmp_path):
    network = built(trunk=trunk, head=head)
    features, labels = tiny_batch(8)
    more = {"logistic": set(), "dlen": {"preferred", "not_preferred", "latent"}, "esmm": {"joint"}}
    names = {"logits"} | more[head]
    outputs = network(features)
    assert set(outputs) == names
    assert all(o.dtype == tf.float32 and o.shape == (8, 1 if n == "latent" else 3) for n, o in outputs.items())

    before = network.get_weights()
    model = ranker(network, tiny_schema(head), tiny_config(head=head).model)
    loss = model.train_on_batch(features, labels, return_dict=True)["loss"]
    assert np.isfinite(loss) and loss > 0
    moved = {w.name: np.any(b != w.numpy()) for b, w in zip(before, network.weights, strict=True)}
    assert all(moved.values()), moved
    assert all(np.all(np.isfinite(w)) for w in network.get_weights())

    config, expected = tiny_config(trunk=trunk, head=head), network(features)
    model_directory.save(tmp_path, config, tiny_schema(head), {}, tf.train.Checkpoint(network=network))
    loaded = model_directory.load(tmp_path)
    for name, output in loaded.network(features).items():
        np.testing.assert_array_equal(output, expected[name])
    if trunk != "ple":
        return  # what is served is made of the same outputs, and a trunk's parts are served in tests/test_contract.py

    server = tf.saved_model.load(str(serving.export(loaded, tmp_path / "served")))
    scores = loaded.read_out.scores(expected)
    more = {"logistic": set(), "dlen": {"click_up", "finish_up", "p_up"}, "esmm": {"finish_joint"}}
    assert set(scores) == set(TASKS) | more[head]
    raw = {name: tf.constant(column) for name, column in raw_batch(8).items()}
    for served in (server.signatures["raw"](**raw), server.signatures["serving_default"](examples=examples())):
        assert set(served) == {*scores, "fused"}
        for name in scores:
            # The same float32 operations, fused in another order.
            np.testing.assert_allclose(served[name], scores[name], rtol=1e-5, err_msg=name)
    assert_ranks_like_rows(server.signatures)


@pytest.mark.slow
def test_export_scores_in_a_process_that_did_not_write_it(tmp_path):
    loaded, expected = trained_model(tmp_path / "model", trunk="ple", head="dlen")
    path = serving.export(loaded, tmp_path / "served")
    assert path == tmp_path / "served" / "1"
    stored = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    functions = [f.signature.name for f in stored.meta_graphs[0].graph_def.library.function]
    assert functions and not [name for name in functions if "layer_call" in name]  # nothing that no signature calls
    code = (
        "import sys, numpy as np, tensorflow as tf\n"
        "assert 'dlen_cam2.models' not in sys.modules\n"
        "served = tf.saved_model.load(sys.argv[1]).signatures['serving_default']\n"
        "rows = [bytes.fromhex(line) for line in open(sys.argv[2])]\n"
        "np.savez(sys.argv[3], **served(examples=tf.constant(rows)))\n"
    )
    (tmp_path / "rows").write_text("\n".join(e.hex() for e in examples().numpy()))
    done = processes.run(["-c", code, path, tmp_path / "rows", tmp_path / "scores.npz"])
    assert done.returncode == 0, done.stderr[-2000:]
    for name, score in loaded.read_out.scores(expected).items():
        np.testing.assert_allclose(np.load(tmp_path / "scores.npz")[name], score, rtol=1e-5)


@pytest.mark.slow
def test_training_in_graph_mode_lowers_the_loss():
    network = built(trunk="ple", head="dlen", dropout=0.1, embedding_l2=1e-3)
    model = Ranker(network, ReadOut(tiny_config(head="dlen").model, tiny_schema()))
    model.compile(optimizer=composite(network, TrainConfig(learning_rate=0.02)))
    history = model.fit(tf.data.Dataset.from_tensors(tiny_batch(16)).repeat(30), epochs=2, verbose=0).history
    assert history["loss"][1] < 0.8 * history["loss"][0]


def test_embedding_tables_go_to_adagrad_and_the_rest_to_adam():
    network = built()
    # A first Adam step moves each weight by its learning rate at most; a table row moves by Adagrad's.
    before = {w.ref(): w.numpy() for w in network.weights}
    ranker(network, learning_rate=1e-4, embedding_learning_rate=0.5).train_on_batch(*tiny_batch())
    for weight in network.weights:
        step = np.abs(weight.numpy() - before[weight.ref()]).max()
        assert (step > 0.05) if "tables" in weight.name else (step < 1.01e-4), weight.name


@pytest.mark.parametrize("features", [["ctr"], ["ctr", "phone"], ["user_id", "video_id", "phone"]])
def test_groups_of_one_feature_each(features):
    schema = tiny_schema().select(features=features)
    tf.keras.utils.set_random_seed(5)
    network = build(tiny_config().model, schema)
    batch = {g: {n: v for n, v in f.items() if n in features} for g, f in tiny_batch()[0].items()}
    batch = {g: f for g, f in batch.items() if f}
    assert all(len(f) == 1 for f in batch.values()) and len(batch) == len(features)
    assert network(batch)["logits"].shape == (8, 3)
    assert np.isfinite(ranker(network, schema).train_on_batch(batch, tiny_batch()[1])).all()


# === Identities and sizes ===

def context(tasks):
    """Of so many tasks, and nothing else."""
    return Context(Schema("tasks", (), tuple(Task(f"task_{k}") for k in range(tasks))), {})


def test_mmoe_with_one_expert_is_the_shared_bottom():
    x = tf.keras.Input(5)
    bottom = tf.keras.Model(x, SharedBottom(units=(8, 6))(x, context(3)))
    one = tf.keras.Model(x, MMOE(units=(8, 6), experts=1)(x, context(3)))
    one.get_layer("experts").set_weights(bottom.get_layer("shared_bottom").get_weights())
    rows = tf.random.normal((7, 5), seed=1)
    np.testing.assert_allclose(one(rows), bottom(rows), rtol=1e-6)


def test_one_task_ple():
    schema = tiny_schema().select(tasks=["finish"])
    settings = tiny_config(trunk="ple", head="dlen").model
    network = build(settings, schema)
    loss = ranker(network, schema, settings).train_on_batch(*tiny_batch(), return_dict=True)["loss"]
    assert np.isfinite(loss) and network(tiny_batch()[0])["logits"].shape == (8, 1)


@pytest.mark.parametrize("trunk", ["cgc", "ple"])
@pytest.mark.parametrize("task_experts, experts", [(1, 4), (4, 1)])
def test_any_ratio_of_shared_to_specific_experts(trunk, task_experts, experts):
    network = built(trunk=trunk, task_experts=task_experts, experts=experts)
    assert np.isfinite(ranker(network).train_on_batch(*tiny_batch(), return_dict=True)["loss"])


def mlp_size(d, units):
    return sum((i + 1) * o for i, o in zip((d, *units), units, strict=False))


def trunk_size(trunk, d, tasks):
    x = tf.keras.Input(d)
    return tf.keras.Model(x, trunk(x, context(tasks))).count_params()


@pytest.mark.parametrize("tasks, m, n", [(3, 2, 5), (2, 1, 2), (1, 1, 1)])
def test_parameter_counts(tasks, m, n):
    d, units = 40, (16, 8)
    assert trunk_size(SharedBottom(units), d, tasks) == mlp_size(d, units)
    assert trunk_size(MMOE(units, n), d, tasks) == n * mlp_size(d, units) + tasks * d * n
    every = tasks * m + n
    last = every * mlp_size(d, units) + tasks * d * (m + n)
    assert trunk_size(CGC(units, n, m), d, tasks) == last
    second = every * mlp_size(8, units) + tasks * 8 * (m + n)
    assert trunk_size(PLE(units, n, m, 2), d, tasks) == last + d * every + second


# The defaults are DLEN's settings at Tencent. The tiny schema gives x 22 columns (2 numbers, the widths 4 4 4 2 2, and
# 4 of history * video) and tables of 2 * (4 + 6) + 4 * (17 + 10) = 128 values.
EXPERT, SECOND = 22 * 256 + 256 + 256 * 128 + 128 + 128 * 64 + 64, 64 * 256 + 256 + 256 * 128 + 128 + 128 * 64 + 64
TOWERS, READ_OUT = 3 * (64 * 64 + 64), 3 * 65


@pytest.mark.parametrize("model, expected", [
    (flat(), 128 + 5 * EXPERT + 3 * 22 * 5 + TOWERS + READ_OUT),
    (flat(experts=2), 128 + 2 * EXPERT + 3 * 22 * 2 + TOWERS + READ_OUT),
    (flat(trunk="ple"), 128 + 11 * (EXPERT + SECOND) + (22 + 64) * 3 * 7 + 22 * 11 + TOWERS + READ_OUT),
    (flat(trunk="ple", experts=2, task_experts=1),
     128 + 5 * (EXPERT + SECOND) + (22 + 64) * 3 * 3 + 22 * 5 + TOWERS + READ_OUT),
    (flat(head="dlen"), 128 + 5 * EXPERT + 3 * 22 * 5 + TOWERS + 2 * READ_OUT + EXPERT + 65),
], ids=["mmoe", "mmoe_ali_ccp", "ple", "ple_ali_ccp", "mmoe_dlen"])
def test_parameters_of_the_papers_settings(model, expected):
    assert model.trunk.units == (256, 128, 64) and getattr(model.trunk, "levels", 2) == 2
    assert getattr(model.head, "latent_units", (256, 128, 64)) == (256, 128, 64)
    assert build(model, tiny_schema()).count_params() == expected


# === What is built from which columns ===

def test_select_and_without():
    schema = tiny_schema().select(tasks=["finish", "click"], without=["user_id", "history"])
    assert schema.task_names == ("click", "finish")  # the schema's order, whatever the order of the names
    assert [f.name for f in schema.features] == ["active_days", "video_id", "author", "ctr", "phone"]
    network = build(tiny_config().model, schema)
    assert network.get_layer("embeddings").output_shape == (None, 2 + 4 + 2 + 2)  # and no product any more
    raw = {f.name: tf.constant(raw_batch()[f.name]) for f in schema.features}
    assert network(Indexer(schema)(raw))["logits"].shape == (8, 2)


def test_only_numbers_or_only_lists_are_enough():
    for names, width in ((["ctr", "active_days"], 2), (["history"], 4)):
        schema = tiny_schema().select(features=names)
        network = build(tiny_config().model, schema)
        assert network.get_layer("embeddings").output_shape == (None, width)
        features = Indexer(schema)({name: tf.constant(raw_batch()[name]) for name in names})
        assert np.isfinite(ranker(network, schema).train_on_batch(features, tiny_batch()[1], return_dict=True)["loss"])


@pytest.mark.parametrize("schema, received", [
    (dataclasses.replace(tiny_schema(), features=(), keys={}), "Received: 0 features, 3 tasks"),
    (dataclasses.replace(tiny_schema(), tasks=()), "Received: 7 features, 0 tasks"),
])
def test_nothing_to_build(schema, received):
    with pytest.raises(UserError, match=received):
        build(flat(), schema)


@pytest.mark.parametrize("names", [{"tasks": ["nope"]}, {"features": ["nope"]}, {"without": ["nope"]}])
def test_unknown_names(names):
    with pytest.raises(UserError, match=r"no (task|feature) \['nope'\]. Known: "):
        tiny_schema().select(**names)


def test_weights_of_another_model_are_refused(tmp_path):
    network = built()
    model_directory.save(tmp_path, tiny_config(experts=4), tiny_schema(), {}, tf.train.Checkpoint(network=network))
    with pytest.raises(UserError, match="the weights cannot be read. Received: "):
        model_directory.load(tmp_path)
    with pytest.raises(UserError, match="holds no trained model"):
        model_directory.load(tmp_path / "elsewhere")


def test_config_is_stored_with_the_model(tmp_path):
    loaded, _ = trained_model(tmp_path, trunk="cgc", head="dlen")
    assert isinstance(loaded.config, Config) and loaded.config == tiny_config(trunk="cgc", head="dlen")
    assert loaded.schema == tiny_schema()
