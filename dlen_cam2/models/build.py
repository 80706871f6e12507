"""`build`: a configuration and a schema to a Keras model."""

import tensorflow as tf

from dlen_cam2.cli import UserError
from dlen_cam2.config import ModelConfig
from dlen_cam2.layers import Embeddings, Experts
from dlen_cam2.models import heads, trunks
from dlen_cam2.schema import Schema


def build(config: ModelConfig, schema: Schema) -> tf.keras.Model:
    """A functional model: `{group: {feature: tensor}}` -> dictionary of (B, T) float32 tensors.

    Args:
        config: trunk, head and sizes.
        schema: the features and tasks, after `select` and `fit`: the tasks' positive rates are where their
            probabilities start, and DLEN's caps are multiples of them.

    Returns:
        A model whose output "logits" holds one column for each task, in schema order. DLEN adds "preferred",
        "not_preferred" (B, T) and "latent" (B, 1), see `CappedHead`.

    Raises:
        UserError: there are no features or tasks, or DLEN has no positive rate to put a cap on.
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
    x = Embeddings(schema, l2=config.embedding_l2, name="embeddings")(inputs)
    if config.dropout:
        x = tf.keras.layers.Dropout(config.dropout, name="dropout")(x)
    tasks = len(schema.tasks)
    if config.trunk == "shared_bottom":
        trunk = trunks.shared_bottom(x, tasks, config.expert_units)
    elif config.trunk == "mmoe":
        trunk = trunks.mmoe(x, tasks, config.experts, config.expert_units)
    elif config.trunk == "cgc":
        trunk = trunks.cgc(x, tasks, config.task_experts, config.experts, config.expert_units)
    else:
        trunk = trunks.ple(x, tasks, config.task_experts, config.experts, config.expert_units, config.levels)
    towers = Experts(tasks, config.tower_units, name="towers")(trunk)
    rates = [task.positive_rate for task in schema.tasks]
    if config.head == "dlen":
        outputs = heads.dlen(towers, x, caps(config, schema), config.latent_units, rates)
    else:
        outputs = heads.plain(towers, rates)
    network = tf.keras.Model(inputs, outputs, name=f"{config.trunk}_{config.head}")
    # tf_keras takes the nested inputs for flat ones where every group has one feature, and then fails on them.
    network.input_spec = None
    return network


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
