"""CAM2: layers by hand, the label split, what gradients and features reach, losses, and the threshold."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from dlen_cam2.models.losses import sample_weights, targets

from dlen_cam2 import serving
from dlen_cam2.config import CAUSAL_HEADS, HEADS, TRUNKS, VARIANTS, TrainConfig, check
from dlen_cam2.data.preprocessing import Indexer
from dlen_cam2.layers import Residual
from dlen_cam2.models import build
from dlen_cam2.models.causal.cam2 import branches, threshold
from dlen_cam2.models.causal.cam2.cause_mixture import CauseMixture
from dlen_cam2.models.causal.cam2.conformity import Conformity
from dlen_cam2.models.causal.cam2.losses import CausalLoss
from dlen_cam2.models.causal.cam2.relevance import Relevance
from dlen_cam2.models.causal.cam2.threshold import LabelThreshold, decompose, engagement
from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.training import model_directory
from dlen_cam2.training.optimizers import composite
from dlen_cam2.training.step import Ranker
from dlen_cam2.utils.errors import UserError
from pipelines.writer.dataset import write_dataset
from tests.support.builders import (
    branches,
    numpy_sigmoid,
    numpy_softmax,
    raw_batch,
    tiny_batch,
    tiny_config,
    tiny_schema,
)

import pyarrow as pa  # isort: skip

BRANCHED = [v for v in VARIANTS if v != "production"]
SPLIT = LabelThreshold("any_positive", "ctr", 0.5, rows=100, rows_above=40, engaged=50, engaged_above=25)
# Of `tiny_schema`: what each branch may read.
STATISTICAL, CONTENT = ("active_days", "ctr"), ("user_id", "history", "video_id", "author")
RNG = np.random.default_rng(3)


def config(variant="proposed", trunk="mmoe", head="logistic", **fields):
    sizes = {"units": 6, "blocks": 1, "embedding": 4, "interests": 3, "statistic": "ctr", "thresh": 0.5}
    return tiny_config(trunk=trunk, head=head, causal=branches(variant=variant, **(sizes | fields)))


def built(settings):
    tf.keras.utils.set_random_seed(5)
    return build(settings.model, tiny_schema(settings.model.head), SPLIT)


def causal_loss(settings):
    chosen = settings.model.cam2
    interests = branches.interest_feature(tiny_schema(), chosen) if chosen.relevance == "interests" else None
    return CausalLoss(chosen, tiny_schema(), SPLIT, interests)


def batch(rows=16, seed=0):
    features, labels = tiny_batch(rows, seed)
    return features, labels | {"ctr": tf.constant(raw_batch(rows, seed)["ctr"])}


def losses(settings, network, rows=16):
    """`(tasks' loss, causal loss)` of a batch, and a tape that recorded both."""
    features, labels = batch(rows)
    with tf.GradientTape(persistent=True) as tape:
        outputs = network(features, training=True)
        y, mask = targets(labels, tiny_schema())
        tasks = tf.reduce_sum(
            tf.nn.sigmoid_cross_entropy_with_logits(y, outputs["logits"]) * sample_weights(mask, tiny_schema())
        )
        causal = causal_loss(settings)(features, labels, outputs)
    return tasks, causal, tape


def is_branch(weight):
    return weight.name.startswith(("conformity", "relevance", "cause_mixture"))


def largest(gradient):
    return 0.0 if gradient is None else float(np.abs(tf.convert_to_tensor(gradient)).max())


# === What the losses reach ===

def perturb(network):
    """Weights that start at 0 (of what joins the towers, of the gate) stop other gradients: give them a value."""
    rng = np.random.default_rng(0)
    for weight in network.weights:
        weight.assign_add(tf.constant(0.05 * rng.normal(size=weight.shape), weight.dtype))


@pytest.mark.parametrize("heads", CAUSAL_HEADS)
@pytest.mark.parametrize("literal", [
    {}, {"conformity": "norm", "relevance": "interests", "interest_feature": "video_id"},
], ids=["default", "literal"])
@pytest.mark.parametrize("variant", BRANCHED)
def test_where_gradients_go(variant, literal, heads):
    settings = config(variant, heads=heads, **literal)
    network = built(settings)
    perturb(network)
    tasks, causal, tape = losses(settings, network)
    names = [w.name for w in network.weights]
    by_task = dict(zip(names, map(largest, tape.gradient(tasks, network.weights)), strict=True))
    by_cause = dict(zip(names, map(largest, tape.gradient(causal, network.weights)), strict=True))
    branch = {w.name for w in network.weights if is_branch(w)}
    main = set(names) - branch
    assert len(branch) > 10 and len(main) > 5
    assert all(by_task[n] > 0 for n in main)
    assert all(by_cause[n] == 0 for n in main)
    assert all(by_cause[n] > 0 for n in branch), [n for n in branch if not by_cause[n]]
    heads_alone = {n for n in branch if n.startswith("cause_mixture") or n.startswith("conformity/read_out")}
    if variant == "joint_loss":
        assert all(by_task[n] > 0 for n in branch - heads_alone)
    else:
        assert all(by_task[n] == 0 for n in branch)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("trunk", TRUNKS)
def test_the_stop_gradient_holds_in_every_trunk_and_head(trunk, head):
    for variant in ("task_arch", "proposed"):
        settings = config(variant, trunk=trunk, head=head)
        network = built(settings)
        perturb(network)
        tasks, causal, tape = losses(settings, network)
        for loss, reached in ((tasks, False), (causal, True)):
            for weight, gradient in zip(network.weights, tape.gradient(loss, network.weights), strict=True):
                assert (largest(gradient) > 0) == (is_branch(weight) == reached), (variant, weight.name)


def test_gradients_reach_branches_when_the_stop_gradient_is_taken_away(monkeypatch):
    """The test above can fail."""
    monkeypatch.setattr(branches.tf, "stop_gradient", tf.identity)
    settings = config()
    network = built(settings)
    perturb(network)
    tasks, _, tape = losses(settings, network)
    gradients = tape.gradient(tasks, [w for w in network.weights if is_branch(w)])
    assert max(map(largest, gradients)) > 0


# === What the scores see ===

def scores(network, **changes):
    raw = {n: tf.constant(v) for n, v in (raw_batch(16) | changes).items()}
    return {n: s.numpy() for n, s in branches.cause_scores(network(Indexer(tiny_schema())(raw))).items()}


@pytest.mark.parametrize("variant", BRANCHED)
def test_each_cause_sees_its_own_features(variant):
    network = built(config(variant))
    before, other = scores(network), raw_batch(16, seed=7)
    for name in other:
        after = scores(network, **{name: other[name]})
        moved = {n for n in before if np.any(before[n] != after[n])}
        if variant == "all_features":
            assert moved == {"conformity", "relevance"}, name
        else:
            wanted = {"conformity"} if name in STATISTICAL else {"relevance"} if name in CONTENT else set()
            assert moved == wanted, name


def test_without_keeps_a_feature_from_the_branches_only():
    network = built(config(without=("user_id", "author")))
    other, before = raw_batch(16, seed=7), scores(network)
    after = scores(network, user_id=other["user_id"], author=other["author"])
    assert all(np.array_equal(before[n], after[n]) for n in before)
    raw = {n: tf.constant(v) for n, v in raw_batch(16).items()}
    x, y = (network(Indexer(tiny_schema())(r))["logits"] for r in (raw, raw | {"author": tf.constant(other["author"])}))
    assert np.any(x != y)


def test_the_trunk_reads_the_groups_it_is_given():
    settings = config("production")
    settings.model.trunk_groups = ("item_statistical", "context")
    network = built(settings)
    assert network.get_layer("embeddings").output_shape == (None, 1 + 2)
    settings.model.trunk_groups = ("item_stats",)
    with pytest.raises(UserError, match=r"trunk_groups must name groups.*Received: \['item_stats'\]. Known: \['user_"):
        built(settings)


def test_partition_and_its_errors():
    parts = branches.partition(tiny_schema(), config().model.cam2)
    names = {b: {p: [f.name for f in s.features] for p, s in sides.items()} for b, sides in parts.items()}
    assert names == {
        "conformity": {"user": ["active_days"], "item": ["ctr"]},
        "relevance": {"user": ["user_id", "history"], "item": ["video_id", "author"]},
    }
    everything = branches.partition(tiny_schema(), config("all_features", without=("author",)).model.cam2)
    for sides in everything.values():
        assert [f.name for f in sides["item"].features] == ["video_id", "author", "ctr"]
        assert [f.name for f in sides["user"].features] == ["user_id", "history", "active_days", "phone"]
    with pytest.raises(UserError, match="conformity branch needs at least one statistical feature of the item. Rec"):
        branches.partition(tiny_schema().select(without=["ctr"]), config().model.cam2)
    with pytest.raises(UserError, match="relevance branch needs at least one content feature of the user"):
        branches.partition(tiny_schema(), config(without=("user_id", "history")).model.cam2)
    # A feature that the model does not have cannot be read by a branch either; `trainer.start` knows all names.
    assert branches.partition(tiny_schema(), config(without=("phone", "gone")).model.cam2).keys() == parts.keys()
    odd = dataclasses.replace(tiny_schema().features[2], cause="context")
    with pytest.raises(UserError, match="'active_days' of the user must have one of the causes.*Received: 'context'"):
        branches.partition(dataclasses.replace(tiny_schema(), features=(*tiny_schema().features[3:], odd), keys={}),
                       config().model.cam2)


# === Variants ===

def test_variants_change_the_graph_as_described():
    networks = {variant: built(config(variant)) for variant in VARIANTS}
    width = 4 + 3  # û + î, û ⊙ î
    towers = {v: n.get_layer("towers").input_shape[-1] for v, n in networks.items()}
    heads = {v: n.get_layer("logits").input_shape[-1] for v, n in networks.items()}
    assert towers == {v: 6 + (width if v in ("joint_loss", "all_features", "proposed") else 0) for v in VARIANTS}
    assert heads == {v: 4 + (width if v == "task_arch" else 0) for v in VARIANTS}
    assert set(networks["production"].output) == {"logits"}
    assert {v: set(n.output) for v, n in networks.items() if v != "production"} == {
        v: {"logits", "conformity", "relevance", "interests"} for v in BRANCHED}


@pytest.mark.slow
@pytest.mark.parametrize("tower_units", [(4,), ()])
@pytest.mark.parametrize("head", HEADS)
def test_every_variant_starts_as_production(head, tower_units):
    """One seed, one network: what joins it starts without effect, so a comparison is not one of initial weights."""
    def outputs(variant):
        settings = config(variant, head=head)
        settings.model.tower_units = tower_units
        return built(settings)(batch()[0])["logits"]
    production = outputs("production")
    for variant in BRANCHED:
        np.testing.assert_allclose(outputs(variant), production, rtol=1e-6, atol=1e-6)
    settings = config()
    first = built(settings)
    tf.keras.utils.set_random_seed(6)
    other = build(settings.model, tiny_schema(), SPLIT)
    for a, b in zip(first.weights, other.weights, strict=True):  # and another seed has other branches, too
        assert a.shape[-1] == 1 or not np.any(a) or "bias" in a.name or np.any(a != b), a.name


@pytest.mark.slow
@pytest.mark.parametrize("fields", [
    {"heads": "conditional"}, {"heads": "gated", "relevance": "interests", "interest_feature": "author"},
], ids=str)
def test_parts_of_a_batch_give_the_gradient_of_the_whole(fields):
    """Also where the means are over the rows of one side, of which the parts have different shares."""
    settings = config(trunk="mmoe", head="logistic", **fields)
    moves = []
    for parts in (1, 3):
        tf.keras.utils.set_random_seed(5)
        network = built(settings)
        ranker = Ranker(network, tiny_schema(), causal_loss(settings), train=TrainConfig(accumulate=parts))
        ranker.compile(optimizer=tf.keras.optimizers.SGD(1.0))
        before = network.get_weights()
        ranker.train_on_batch(*batch())
        moves.append(np.concatenate([(a - b).ravel() for a, b in zip(before, network.get_weights(), strict=True)]))
    np.testing.assert_allclose(moves[1], moves[0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("trunk, head, fields", [
    ("ple", "dlen", {}), ("mmoe", "logistic", {"heads": "conditional"}), ("ple", "dlen", {"heads": "gated"}),
    ("mmoe", "logistic", {"conformity": "norm"}),
    ("mmoe", "logistic", {"relevance": "interests", "interest_feature": "author"}),
    ("ple", "dlen", {"heads": "gated", "conformity": "norm", "relevance": "interests", "interest_feature": "video_id"}),
])
def test_trains_is_saved_and_served(trunk, head, fields, tmp_path):
    settings = config(trunk=trunk, head=head, **fields)
    network = built(settings)
    ranker = Ranker(network, tiny_schema(), causal_loss(settings))
    ranker.compile(optimizer=composite(network, TrainConfig(learning_rate=0.01)))
    history = ranker.fit(tf.data.Dataset.from_tensors(batch()).repeat(30), epochs=2, verbose=0).history["loss"]
    assert np.isfinite(history).all() and history[1] < history[0]
    trained = tf.train.Checkpoint(network=network, optimizer=ranker.optimizer)
    model_directory.save(tmp_path, settings, tiny_schema(), SPLIT, trained)
    loaded = model_directory.load(tmp_path)
    assert loaded.split == SPLIT
    expected = network(batch()[0])
    for name, output in loaded.network(batch()[0]).items():
        np.testing.assert_array_equal(output, expected[name], err_msg=name)

    raw = {name: tf.constant(column) for name, column in raw_batch(16).items()}
    plain = tf.saved_model.load(str(serving.export(loaded, tmp_path / "logistic")))
    exposed = tf.saved_model.load(str(serving.export(loaded, tmp_path / "exposed", causes=True)))
    without, with_causes = (server.signatures["raw"](**raw) for server in (plain, exposed))
    assert set(with_causes) - set(without) == {"conformity", "relevance"}
    for name, score in branches.cause_scores(expected).items():
        np.testing.assert_allclose(with_causes[name], score, rtol=1e-5)
    for name, score in without.items():
        np.testing.assert_allclose(score, with_causes[name], rtol=1e-6)


@pytest.mark.slow
def test_the_served_model_drops_the_causal_heads(tmp_path):
    """Their weights are not in the exported variables, and are with `causes`."""
    settings = config(heads="gated")
    network = built(settings)
    model_directory.save(tmp_path, settings, tiny_schema(), SPLIT, tf.train.Checkpoint(network=network))
    loaded = model_directory.load(tmp_path)

    def names(directory):
        path = str(directory / "variables" / "variables")
        return {n for n, _ in tf.train.list_variables(path)}

    def parameters(directory):
        path = str(directory / "variables" / "variables")
        return sum(int(np.prod(s)) for n, s in tf.train.list_variables(path) if "VARIABLE_VALUE" in n)

    plain = serving.export(loaded, tmp_path / "logistic")
    exposed = serving.export(loaded, tmp_path / "exposed", causes=True)
    # The read-out of û + î (4 + 1) and the gate over both embeddings (7 + 1).
    assert parameters(exposed) - parameters(plain) == 5 + 8
    assert len(names(exposed)) - len(names(plain)) == 4


def test_only_branches_have_scores_of_causes(tmp_path):
    settings = config("production")
    network = built(settings)
    model_directory.save(tmp_path, settings, tiny_schema(), None, tf.train.Checkpoint(network=network))
    loaded = model_directory.load(tmp_path)
    assert loaded.split is None and branches.cause_scores(network(batch()[0])) == {}
    with pytest.raises(UserError, match="Received: config.model.causal.variant='production'"):
        serving.export(loaded, tmp_path / "served", causes=True)


@pytest.mark.parametrize("text, message", [
    ("{}", "must be an object with the keys"), ("[]", "must be an object with the keys"),
    ('{"thresh": 1}', "must be an object with the keys"),
    (json.dumps(dataclasses.asdict(SPLIT) | {"thresh": "high"}), "split.json: thresh has the wrong type. Received: 'h"),
])
def test_a_damaged_split_is_named(text, message, tmp_path):
    settings = config()
    model_directory.save(tmp_path, settings, tiny_schema(), SPLIT, tf.train.Checkpoint(network=built(settings)))
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(UserError, match=message):
        model_directory.load(tmp_path)


# === Layers by hand ===

def test_residual_by_hand():
    layer = Residual(2, 1, 1)
    layer(tf.zeros((1, 2)))
    by_name = {w.name.split("/")[-2] + "/" + w.name.split("/")[-1]: w for w in layer.weights}
    by_name["into/kernel:0"].assign([[1.0, 0.0], [0.0, -1.0]])
    by_name["inner_1/kernel:0"].assign([[2.0, 0.0], [0.0, 1.0]])
    by_name["outer_1/kernel:0"].assign([[1.0, 0.0], [1.0, 1.0]])
    by_name["out/kernel:0"].assign([[1.0], [10.0]])
    # h0 = (3, -4); relu (3, 0); inner (6, 0); outer (6, 0); h1 = (9, -4); relu (9, 0); out 9
    assert float(layer(tf.constant([[3.0, 4.0]]))[0, 0]) == 9.0
    # h0 = (3, 4); inner (6, 4); outer (6 + 4, 4); h1 = (13, 8); out 13 + 80
    assert float(layer(tf.constant([[3.0, -4.0]]))[0, 0]) == 93.0


def test_conformity_by_hand():
    user, item = tf.constant([[1.0, 2.0]]), tf.constant([[2.0, 2.0]])
    assert float(Conformity("norm")([user, item])[0, 0]) == pytest.approx(5.0)  # ‖(3, 4)‖
    layer = Conformity("logistic", rate=0.25)
    layer([user, item])
    layer.read_out.kernel.assign([[0.5], [-1.0]])
    assert float(layer([user, item])[0, 0]) == pytest.approx(np.log(1 / 3) + 1.5 - 4.0)
    with pytest.raises(ValueError, match="kind must be one of.*Received: kind='cubic'"):
        Conformity("cubic")


def test_norm_has_a_finite_gradient_at_zero():
    x = tf.Variable(tf.zeros((1, 3)))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(Conformity("norm")([x, x]))
    assert np.all(np.isfinite(tape.gradient(loss, x)))


def test_relevance_by_hand_and_at_extremes():
    a, b = RNG.normal(size=(50, 4)) * 3, RNG.normal(size=(50, 4)) * 3
    found = Relevance()([tf.constant(a, tf.float32), tf.constant(b, tf.float32)])
    product = numpy_sigmoid(a) * numpy_softmax(b)
    np.testing.assert_allclose(found["interests"], product, rtol=1e-5)
    np.testing.assert_allclose(tf.sigmoid(found["relevance"])[:, 0], product.sum(axis=1), rtol=1e-5)
    extreme = Relevance()([tf.constant([[-80.0, -90.0], [80.0, 90.0]]), tf.constant([[100.0, 0.0], [0.0, -50.0]])])
    np.testing.assert_allclose(extreme["relevance"][:, 0], [-80.0, 80.0], rtol=1e-5)


def test_relevance_starts_at_its_rate():
    found = Relevance(rate=0.02)([tf.zeros((3, 5)), tf.constant(RNG.normal(size=(3, 5)), tf.float32)])
    np.testing.assert_allclose(tf.sigmoid(found["relevance"]), np.full((3, 1), 0.02), rtol=1e-5)
    np.testing.assert_allclose(tf.reduce_sum(found["interests"], axis=1), [0.02] * 3, rtol=1e-5)


def test_predictions_start_at_the_rates_of_their_labels():
    assert SPLIT.rates(joint=True) == (0.25, 0.25)
    assert SPLIT.rates(joint=False) == (25 / 40, 25 / 60)
    with pytest.raises(UserError, match="config.model.causal.interests must be at least 2. Received: 1"):
        check(config(interests=1))


def test_mixture_starts_at_the_shares_and_learns_only_its_weights():
    c, r, z = tf.constant([[0.8], [0.1]]), tf.constant([[0.2], [0.4]]), tf.constant([[1.0, 2.0], [0.0, 1.0]])
    for gated in (False, True):
        layer = CauseMixture(gated, share=0.3)
        np.testing.assert_allclose(layer([c, r, z]), 0.3 * c + 0.7 * r, rtol=1e-5)
        with tf.GradientTape() as tape:
            tape.watch([c, r, z])
            loss = tf.reduce_sum(layer([c, r, z]))
        gradients = tape.gradient(loss, [c, r, z, *layer.weights])
        assert gradients[:3] == [None] * 3 and all(largest(g) > 0 for g in gradients[3:])


# === The label split ===

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


@pytest.mark.parametrize("heads", ["joint", "conditional"])
@pytest.mark.parametrize("kind", ["logistic", "norm"])
@pytest.mark.parametrize("relevance", ["probability", "interests"])
def test_causal_losses_against_numpy(heads, kind, relevance):
    settings = config(
        heads=heads, conformity=kind, relevance=relevance, interest_feature="author", engagement="finish",
        conformity_weight=0.5, relevance_weight=2.0,
    ).model.cam2
    rows, rng = 60, np.random.default_rng(1)
    y, mask, x = rng.integers(0, 2, rows), rng.integers(0, 2, rows), rng.random(rows).astype(np.float32)
    raw = raw_batch(rows)
    labels = {"is_finish": y, "played": mask, "click": y, "hate": y}
    labels = {n: tf.constant(v, tf.float32) for n, v in labels.items()} | {"ctr": tf.constant(x)}
    c, r, products, p = rng.normal(size=rows), rng.normal(size=rows), rng.random((rows, 4)), rng.random(rows)
    column = {name: tf.constant(v[:, None], tf.float32) for name, v in
              {"conformity": c, "conformity_norm": c, "relevance": r, "engagement": p}.items()}
    outputs = column | {"interests": tf.constant(products, tf.float32)}
    split = dataclasses.replace(SPLIT, engagement="finish")
    interests = branches.interest_feature(tiny_schema(), settings) if relevance == "interests" else None
    features = Indexer(tiny_schema())({n: tf.constant(v) for n, v in raw.items()})
    found = CausalLoss(settings, tiny_schema(), split, interests)(features, labels, outputs)

    above = x >= 0.5
    def cross_entropy(label, probability):
        return -np.where(label == 1, np.log(probability), np.log(1 - probability))
    label_c, label_r = y * above, y * ~above
    loss_c = (label_c - c) ** 2 if kind == "norm" else cross_entropy(label_c, numpy_sigmoid(c))
    known = np.ones(rows)
    if relevance == "interests":
        place = {"ann": 1, "bob": 2, "cy": 3}
        has = np.eye(4)[[place.get(a, 0) for a in raw["author"]]] * [0, 1, 1, 1]
        known = has.sum(axis=1)
        assert 0 < known.sum() < rows  # authors that are no known interest among them
        loss_r = ((label_r[:, None] * has - products) ** 2).sum(axis=1)
    else:
        loss_r = cross_entropy(label_r, numpy_sigmoid(r))
    def mean(values, keep):
        return (values * keep).sum() / keep.sum()
    joint = heads == "joint"
    wanted = 0.5 * mean(loss_c, mask if joint else mask * above)
    wanted += 2 * mean(loss_r, known * (mask if joint else mask * ~above))
    wanted += 0 if joint else mean(cross_entropy(y, p), mask)
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_an_item_of_two_interests_shares_the_label_between_them():
    schema = Schema("tags", (
        Feature("u", "float", "user", "content"), Feature("us", "float", "user", "statistical"),
        Feature("tags", "int", "item", "content", size=3, width=2, max_length=3),
        Feature("x", "float", "item", "statistical"),
    ), (Task("click"),))
    settings = branches(variant="proposed", relevance="interests", interest_feature="tags", statistic="x",
                          engagement="click", conformity_weight=0.0)
    loss = CausalLoss(settings, schema, dataclasses.replace(SPLIT, engagement="click", statistic="x"),
                      branches.interest_feature(schema, settings))
    features = {"item_content": {"tags": tf.constant([[1, 3, -1], [-1, -1, -1]], tf.int64)}}
    labels = {"click": tf.constant([1.0, 1.0]), "x": tf.constant([0.0, 0.0])}
    outputs = {"conformity": tf.zeros((2, 1)), "interests": tf.constant([[0.1, 0.2, 0.3, 0.4], [9.0, 9, 9, 9]])}
    # The first item has 1 and 3, half each; the second has none that is known and does not count.
    assert float(loss(features, labels, outputs)) == pytest.approx(0.01 + 0.09 + 0.09 + 0.01)


def fitted_mixture(c, r, y, z, gated):
    layer = CauseMixture(gated, share=0.5)
    inputs = [tf.constant(v, tf.float32) for v in (c[:, None], r[:, None], z)]
    label = tf.constant(y, tf.float32)
    optimizer = tf.keras.optimizers.Adam(0.05)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            p = tf.clip_by_value(layer(inputs)[:, 0], 1e-6, 1 - 1e-6)
            loss = -tf.reduce_mean(label * tf.math.log(p) + (1 - label) * tf.math.log1p(-p))
        optimizer.minimize(loss, layer.trainable_weights, tape)

    layer(inputs)
    for _ in range(400):
        step()
    return layer, inputs


@pytest.mark.parametrize("depends", [False, True])
def test_mixing_weights_are_recovered(depends):
    """Joint heads give (1, 1); conditional heads the shares of X, if X does not depend on the input."""
    rng = np.random.default_rng(0)
    n = 60_000
    z = rng.normal(size=n)
    share = numpy_sigmoid(1.6 * z - 0.8) if depends else np.full(n, 0.3)
    above = rng.random(n) < share
    given_above, given_below = numpy_sigmoid(0.5 + 0.5 * z), numpy_sigmoid(-1.0 - 0.8 * z)
    y = rng.random(n) < np.where(above, given_above, given_below)

    joint, _ = fitted_mixture(share * given_above, (1 - share) * given_below, y, z[:, None], gated=False)
    np.testing.assert_allclose(tf.math.softplus(joint.bias), [1, 1], atol=0.03)
    scalars, _ = fitted_mixture(given_above, given_below, y, z[:, None], gated=False)
    weights = tf.math.softplus(scalars.bias).numpy()
    if depends:  # scalars are not the shares then, and the gate is
        assert abs(weights - [share.mean(), 1 - share.mean()]).max() > 0.05
        gated, inputs = fitted_mixture(given_above, given_below, y, z[:, None], gated=True)
        gate = numpy_sigmoid(tf.matmul(inputs[2], gated.kernel) + gated.bias)[:, 0]
        assert np.abs(gate - share).mean() < 0.04
    else:
        np.testing.assert_allclose(weights, [0.3, 0.7], atol=0.03)


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
    settings = branches(**({"statistic": "x", "engagement": "click"} | fields))
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
def test_a_split_that_cannot_be(tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        fit(tmp_path, [[0, 1, 2, 3]], [[1, 1, 0, 0]], **fields)


def test_a_mixture_above_one_comes_down():
    """The clip keeps the loss finite and must not take the gradient away."""
    settings = config(heads="conditional").model.cam2
    loss = CausalLoss(settings, tiny_schema(), SPLIT)
    _, labels = batch()
    labels |= {name: tf.zeros(16) for name in ("click", "is_finish")}
    p = tf.Variable(tf.fill((16, 1), 1.7))
    with tf.GradientTape() as tape:
        value = loss({}, labels, {"conformity": tf.zeros((16, 1)), "relevance": tf.zeros((16, 1)), "engagement": p})
    assert np.isfinite(value) and np.all(tape.gradient(value, p) > 0)


def test_a_batch_with_one_side_empty_has_a_finite_loss():
    settings = config(heads="gated").model.cam2
    features, labels = batch()
    labels |= {"ctr": tf.zeros(16)}
    x = tf.zeros((16, 1))
    loss = CausalLoss(settings, tiny_schema(), SPLIT)(features, labels, {
        "conformity": x, "relevance": x, "engagement": x + 0.5})
    assert np.isfinite(loss)


def test_interests_that_no_item_has(tmp_path):
    schema = Schema("log", (
        Feature("x", "float", "item", "statistical"),
        Feature("tags", "string", "item", "content", vocabulary=("a", "b"), width=2, max_length=2),
    ), (Task("click"),))
    table = pa.table({"x": np.arange(4, dtype=np.float32), "click": [1, 0, 1, 0], "tags": [[], ["c"], [], [""]]})
    write_dataset(tmp_path / "data", schema, [("20240101", table)], {})
    settings = branches(statistic="x", engagement="click", relevance="interests", interest_feature="tags")
    with pytest.raises(UserError, match="needs items with known interests. Received: no known value of 'tags'"):
        threshold.fit(settings, schema, schema.features, tmp_path / "data", ["20240101"])


@pytest.mark.parametrize("feature", ["", "nope", "ctr", "user_id"])
def test_interests_need_an_item_feature_that_names_them(feature):
    with pytest.raises(UserError, match=r"interest_feature must name a categorical item feature.*Known: \['video_id'"):
        built(config(relevance="interests", interest_feature=feature))


def test_split_round_trips_as_json(tmp_path):
    SPLIT.save(tmp_path / "split.json")
    assert LabelThreshold.load(tmp_path / "split.json") == SPLIT
    assert json.loads((tmp_path / "split.json").read_text())["thresh"] == 0.5
