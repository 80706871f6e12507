"""`build`: a configuration and a schema to a Keras model."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from dlen_cam2.config import ModelConfig
from dlen_cam2.layers import Dropout, Embeddings, Experts
from dlen_cam2.models import heads, trunks
from dlen_cam2.models.causal.cam2.branches import branches, join
from dlen_cam2.models.causal.cam2.threshold import Split
from dlen_cam2.schema import Feature, Schema
from dlen_cam2.utils.errors import UserError


@tf.autograph.experimental.do_not_convert  # nothing of it needs conversion, which takes longer than tracing
def build(
    config: ModelConfig, schema: Schema, split: Split | None = None, table_rate: float = 0.02
) -> tf.keras.Model:
    """A functional model: `{group: {feature: tensor}}` -> dictionary of (B, T) float32 tensors.

    Args:
        config: trunk, head and sizes.
        schema: the features and tasks, after `select` and `fit`: the tasks' positive rates are where their
            probabilities start, and DLEN's caps are multiples of them.
        split: CAM2's, as fitted on the training days: where the causal predictions start.
        table_rate: learning rate of tables that a TPU trains (`config.tables`).

    Returns:
        A model whose output "logits" holds one column for each task, in schema order. DLEN adds "preferred",
        "not_preferred" (B, T) and "latent" (B, 1), see `CappedHead`; ESMM "joint" (B, T); CAM2 adds the
        outputs of `cam2.branches`.

    Raises:
        UserError: there are no features or tasks, a group that the trunk should read is not there, DLEN has no
            positive rate to put a cap on, ESMM no task that follows another, or a part of CAM2's branches
            has no features.
    """
    if not schema.features or not schema.tasks:
        raise UserError(
            f"a model needs at least one feature and one task. Received: {len(schema.features)} features, "
            f"{len(schema.tasks)} tasks."
        )
    inputs = {
        group: {
            f.name: tf.keras.Input(
                (f.max_length,) if f.is_list else (), name=f.name, dtype=tf.float32 if f.is_numeric else tf.int64
            )
            for f in features
        }
        for group, features in schema.groups.items()
    }
    read = _read_by_trunk(schema, config.trunk_groups)
    x = Embeddings(
        schema.select(features=[f.name for f in read]), l2=config.embedding_l2, backend=config.tables,
        learning_rate=table_rate, name="embeddings",
    )({f.group: inputs[f.group] for f in read})
    if config.dropout:
        x = Dropout(config.dropout, name="dropout")(x)
    tasks = len(schema.tasks)
    if config.trunk == "shared_bottom":
        trunk = trunks.shared_bottom(x, tasks, config.expert_units)
    elif config.trunk == "mmoe":
        trunk = trunks.mmoe(x, tasks, config.experts, config.expert_units)
    elif config.trunk == "cgc":
        trunk = trunks.cgc(x, tasks, config.task_experts, config.experts, config.expert_units)
    else:
        trunk = trunks.ple(x, tasks, config.task_experts, config.experts, config.expert_units, config.levels)
    causal: dict[str, tf.Tensor] = {}
    joined, at_towers = 0, config.cam2.variant != "task_arch" and bool(config.tower_units)
    if config.cam2.variant != "production":
        embeddings, causal = branches(inputs, schema, config.cam2, split)
        joined = sum(e.shape[-1] for e in embeddings)
        if at_towers:
            trunk = join(trunk, embeddings, config.cam2)
    towers = Experts(tasks, config.tower_units, joined if at_towers else 0, per_task=True, name="towers")(trunk)
    if joined and not at_towers:
        towers = join(towers, embeddings, config.cam2)
    at_heads = 0 if at_towers else joined
    rates = [task.positive_rate for task in schema.tasks]
    if config.head == "esmm":
        outputs = heads.esmm(towers, _sequence(schema), rates, at_heads)
    elif config.head == "dlen":
        outputs = heads.dlen(towers, x, caps(config, schema), config.latent_units, rates, at_heads)
    else:
        outputs = heads.plain(towers, rates, at_heads)
    name = f"{config.trunk}_{config.head}" + (f"_cam2_{config.cam2.variant}" if causal else "")
    return functional(inputs, {**outputs, **causal}, name)


def functional(inputs: Any, outputs: dict[str, tf.Tensor], name: str) -> tf.keras.Model:
    """A functional model of nested inputs; it holds just the layers on the way to `outputs`."""
    network = tf.keras.Model(inputs, outputs, name=name)
    # tf_keras takes the nested inputs for flat ones where every group has one feature, and then fails on them.
    network.input_spec = None
    return network


def _sequence(schema: Schema) -> tuple[int | None, ...]:
    """`schema.parents`, of which ESMM needs at least one."""
    if all(parent is None for parent in schema.parents):
        raise UserError(
            "config.model.head='esmm' needs a task whose mask is the label of another task of the model. Received the "
            f"masks {dict((t.name, t.mask) for t in schema.tasks)}."
        )
    return schema.parents


def _read_by_trunk(schema: Schema, groups: Sequence[str]) -> list[Feature]:
    """The features of the named groups; of all, if none is named."""
    unknown = sorted(set(groups) - set(schema.groups))
    if unknown:
        raise UserError(
            f"config.model.trunk_groups must name groups of the model's features. Received: {unknown}. "
            f"Known: {list(schema.groups)}."
        )
    return [f for f in schema.features if not groups or f.group in groups]


def caps(config: ModelConfig, schema: Schema) -> list[float]:
    """DLEN's α for each task: `alpha_constant`, or `alpha * positive rate`.

    DESIGN: eq 7 bounds P(k|¬UP) by the task's marginal rate, and the text finds 0.1 to 0.5 times "the
    corresponding task" best, so the factor multiplies that rate. A negative task ("hate") is no sign of
    preference, the bound does not hold for it, and its α is 1 (uncapped).
    """
    alphas = []
    for task in schema.tasks:
        if not (task.positive_rate or task.negative or config.alpha_constant):
            raise UserError(
                f"task {task.name!r} has no positives in the training days, so DLEN's cap alpha * positive rate "
                "would be 0. Leave the task out (config.model.tasks) or set config.model.alpha_constant."
            )
        alphas.append(1.0 if task.negative else config.alpha_constant or config.alpha * task.positive_rate)
    return alphas
