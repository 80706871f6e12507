"""`build`: creates a Keras model from a configuration and a schema."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from dlen_cam2.config import ModelConfig
from dlen_cam2.layers import Dropout, Embeddings, Experts
from dlen_cam2.models.context import Context
from dlen_cam2.models.parts import Branches
from dlen_cam2.schema import Feature, Schema
from dlen_cam2.utils.errors import UserError


@tf.autograph.experimental.do_not_convert  # nothing of it needs conversion, which takes longer than tracing
def build(
    config: ModelConfig, schema: Schema, fitted: Mapping[str, Any] | None = None, table_rate: float = 0.02
) -> tf.keras.Model:
    """Build a functional model that maps `{group: {feature: tensor}}` to a dictionary of float32 tensors for `ReadOut`.

        embeddings -> encoder -> x -> trunk -> (causal join) -> towers -> transfer -> head

    Args:
        config: the parts of the network and its sizes.
        schema: the features and tasks, after `select` and `fit`. The tasks' positive rates are the initial values of
            their probabilities, and DLEN's caps are multiples of them.
        fitted: the states that parts fitted on the training days, such as CAM2's label threshold; None: there are none.
        table_rate: learning rate of the tables that a TPU trains (`config.tables`).

    Raises:
        UserError: there are no features or tasks, a group named in `trunk_groups` does not exist, or a part cannot be
            built from the schema (for DLEN's caps, a task has no positive rate; for ESMM, no task follows another; for
            CAM2, a branch has no features).
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
        learning_rate=table_rate, encoder=config.encoder, name="embeddings",
    )({f.group: inputs[f.group] for f in read})
    if config.dropout:
        x = Dropout(config.dropout, name="dropout")(x)
    context = Context(schema, inputs, fitted or {})
    representation = config.trunk(x, context)
    branches, joined, before_towers = Branches({}, {}), 0, False
    if config.causal is not None:
        branches = config.causal.branches(context)
        joined = sum(e.shape[-1] for e in branches.embeddings.values())
        before_towers = bool(config.tower_units) and not config.causal.at_towers
        if before_towers:
            representation = config.causal.join(representation, branches.embeddings)
    towers = Experts(
        context.tasks, config.tower_units, joined if before_towers else 0, per_task=True, name="towers"
    )(representation)
    if config.causal is not None and not before_towers:
        towers = config.causal.join(towers, branches.embeddings)
        context = dataclasses.replace(context, joined=joined)
    if config.transfer is not None:
        towers = config.transfer(towers, context)
    outputs = config.head(towers, x, context)
    name = "_".join(part.name for part in (config.trunk, config.head, config.causal) if part is not None)
    return functional(inputs, {**outputs, **branches.outputs}, name)


@tf.keras.utils.register_keras_serializable(package="dlen_cam2")
class Network(tf.keras.Model):
    """A functional model with nested inputs, which `tf.keras.models.load_model` can load.

    The files that `network.save(path)` writes (`.keras`, or a SavedModel directory) can be loaded without
    `custom_objects` after importing `dlen_cam2.models` and the modules of any parts defined elsewhere.
    """

    @property
    def input_spec(self) -> None:
        """None: where every group has one feature, tf_keras mistakes the inputs for flat ones and fails on them."""
        return None


def functional(inputs: Any, outputs: dict[str, tf.Tensor], name: str) -> tf.keras.Model:
    """A functional model with nested inputs; it holds only the layers on the way to `outputs`."""
    return Network(inputs, outputs, name=name)


def _read_by_trunk(schema: Schema, groups: Sequence[str]) -> list[Feature]:
    """The features of the named groups, or of all groups if none is named."""
    unknown = sorted(set(groups) - set(schema.groups))
    if unknown:
        raise UserError(
            f"config.model.trunk_groups must name groups of the model's features. Received: {unknown}. "
            f"Known: {list(schema.groups)}."
        )
    return [f for f in schema.features if not groups or f.group in groups]
