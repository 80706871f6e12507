"""CAM2's branches: what the losses reach, what the scores see, and what each variant changes."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2 import parts
from dlen_cam2.data.preprocessing import Indexer
from dlen_cam2.labels.kind import targets
from dlen_cam2.models import ReadOut
from dlen_cam2.models.causal.cam2 import branches
from dlen_cam2.training.step import sample_weights
from dlen_cam2.utils.errors import UserError
from tests.support.builders import raw_batch, tiny_schema
from tests.support.cam2 import HEADS, VARIANTS, batch, built, causal_loss, config, largest

# Of `tiny_schema`: what each branch may read.
STATISTICAL, CONTENT = ("active_days", "ctr"), ("user_id", "history", "video_id", "author")


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


# === What the losses reach ===

def perturb(network):
    """Weights that start at 0 (of what joins the towers, of the gate) stop other gradients: give them a value."""
    rng = np.random.default_rng(0)
    for weight in network.weights:
        weight.assign_add(tf.constant(0.05 * rng.normal(size=weight.shape), weight.dtype))


# As the paper has it, and not.
LITERAL = {"conformity": "norm", "relevance": "interests", "interest_feature": "video_id"}


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "heads", "fields"), [
    (variant, heads, (LITERAL, {})[(v + h) % 2]) for v, variant in enumerate(VARIANTS) for h, heads in enumerate(HEADS)
])
def test_where_gradients_go(variant, heads, fields):
    """Every two of the three together."""
    settings = config(variant, heads=heads, **fields)
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


@pytest.mark.slow
@pytest.mark.parametrize(("trunk", "head"), [
    *((trunk, "logistic") for trunk in parts.classes("trunk")),
    *(("mmoe", head) for head in parts.classes("head") if head != "logistic"),
])
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
    causes = ReadOut(config().model, tiny_schema()).causes(network(Indexer(tiny_schema())(raw)))
    return {n: s.numpy() for n, s in causes.items()}


@pytest.mark.parametrize("variant", VARIANTS)
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
    found = branches.partition(tiny_schema(), config().model.causal)
    names = {b: {p: [f.name for f in s.features] for p, s in sides.items()} for b, sides in found.items()}
    assert names == {
        "conformity": {"user": ["active_days"], "item": ["ctr"]},
        "relevance": {"user": ["user_id", "history"], "item": ["video_id", "author"]},
    }
    everything = branches.partition(tiny_schema(), config("all_features", without=("author",)).model.causal)
    for sides in everything.values():
        assert [f.name for f in sides["item"].features] == ["video_id", "author", "ctr"]
        assert [f.name for f in sides["user"].features] == ["user_id", "history", "active_days", "phone"]
    with pytest.raises(UserError, match="conformity branch needs at least one statistical feature of the item. Rec"):
        branches.partition(tiny_schema().select(without=["ctr"]), config().model.causal)
    with pytest.raises(UserError, match="relevance branch needs at least one content feature of the user"):
        branches.partition(tiny_schema(), config(without=("user_id", "history")).model.causal)
    # A feature that the model does not have cannot be read by a branch either; `trainer.start` knows all names.
    assert branches.partition(tiny_schema(), config(without=("phone", "gone")).model.causal).keys() == found.keys()
    odd = dataclasses.replace(tiny_schema().features[2], cause="context")
    with pytest.raises(UserError, match="'active_days' of the user must have one of the causes.*Received: 'context'"):
        branches.partition(dataclasses.replace(tiny_schema(), features=(*tiny_schema().features[3:], odd), keys={}),
                       config().model.causal)


# === Variants ===

def test_variants_change_the_graph_as_described():
    networks = {variant: built(config(variant)) for variant in ("production", *VARIANTS)}
    width = 4 + 3  # û + î, û ⊙ î
    towers = {v: n.get_layer("towers").input_shape[-1] for v, n in networks.items()}
    heads = {v: n.get_layer("logits").input_shape[-1] for v, n in networks.items()}
    assert towers == {v: 6 + (width if v in ("joint_loss", "all_features", "proposed") else 0) for v in networks}
    assert heads == {v: 4 + (width if v == "task_arch" else 0) for v in networks}
    assert set(networks["production"].output) == {"logits"}
    assert {v: set(n.output) for v, n in networks.items() if v != "production"} == {
        v: {"logits", "conformity", "relevance", "interests"} for v in VARIANTS}


@pytest.mark.slow
@pytest.mark.parametrize("tower_units", [(4,), ()])
@pytest.mark.parametrize("head", parts.classes("head"))
def test_every_variant_starts_as_production(head, tower_units):
    """One seed, one network: what joins it starts without effect, so a comparison is not one of initial weights."""
    def outputs(variant):
        settings = config(variant, head=head)
        settings.model.tower_units = tower_units
        return built(settings)(batch()[0])["logits"]
    production = outputs("production")
    for variant in VARIANTS:
        np.testing.assert_allclose(outputs(variant), production, rtol=1e-6, atol=1e-6)
    settings = config()
    first = built(settings)
    other = built(settings, seed=6)
    for a, b in zip(first.weights, other.weights, strict=True):  # and another seed has other branches, too
        assert a.shape[-1] == 1 or not np.any(a) or "bias" in a.name or np.any(a != b), a.name


@pytest.mark.parametrize("feature", ["", "nope", "ctr", "user_id"])
def test_interests_need_an_item_feature_that_names_them(feature):
    with pytest.raises(UserError, match=r"interest_feature must name a categorical item feature.*Known: \['video_id'"):
        built(config(relevance="interests", interest_feature=feature))
