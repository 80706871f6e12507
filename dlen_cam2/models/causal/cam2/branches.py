"""CAM2's causal branches: feature partition, conformity, relevance, and how their embeddings join the network."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from dlen_cam2.layers import Embeddings, Residual
from dlen_cam2.models.causal.cam2.cause_mixture import CauseMixture
from dlen_cam2.models.causal.cam2.conformity import Conformity
from dlen_cam2.models.causal.cam2.relevance import Relevance
from dlen_cam2.models.causal.cam2.threshold import LabelThreshold
from dlen_cam2.models.parts import Branches
from dlen_cam2.schema import Feature, Schema
from dlen_cam2.utils.errors import UserError

if TYPE_CHECKING:
    from dlen_cam2.models.causal.cam2.cam2 import CAM2

# Which cause's features each branch reads (CERTAIN: CAM2, section 2.4).
CAUSE_OF_BRANCH = {"conformity": "statistical", "relevance": "content"}


def partition(schema: Schema, config: "CAM2") -> dict[str, dict[str, Schema]]:
    """Divide the features by their tags: `{branch: {part: schema}}`, for the "user" and "item" part of each branch.

    CERTAIN: conformity reads statistical features only, relevance attribute and content features only. DESIGN:
    features of the context (the tab, the hour, and the counters of a user within a tab or an author) belong to no part
    and stay with the trunk. Under "all_features" both branches read everything, even the features that `without` names,
    and the context belongs to the user's part.

    Raises:
        UserError: a part of a branch has no features, or a feature of a user or an item has the cause "context".
    """
    for feature in schema.features:
        if feature.side != "context" and feature.cause not in CAUSE_OF_BRANCH.values():
            raise UserError(
                f"feature {feature.name!r} of the {feature.side} must have one of the causes "
                f"{tuple(CAUSE_OF_BRANCH.values())}, so that CAM2 knows its branch. Received: {feature.cause!r}."
            )
    everything = config.variant == "all_features"
    kept = [f for f in schema.features if everything or f.name not in config.without]
    parts = {}
    for branch, cause in CAUSE_OF_BRANCH.items():
        parts[branch] = {
            part: tuple(f for f in kept if _belongs(f, part, cause, everything)) for part in ("user", "item")
        }
        for part, features in parts[branch].items():
            if not features:
                raise UserError(
                    f"CAM2's {branch} branch needs at least one {cause} feature of the {part}. Received: none among "
                    f"the groups {list(schema.groups)}."
                )
    return {
        branch: {part: schema.select(features=[f.name for f in features]) for part, features in sides.items()}
        for branch, sides in parts.items()
    }


def _belongs(feature: Feature, part: str, cause: str, everything: bool) -> bool:
    if everything:
        return (feature.side == "item") == (part == "item")
    return feature.side == part and feature.cause == cause


def branches(
    inputs: Mapping[str, Mapping[str, tf.Tensor]], schema: Schema, config: "CAM2", threshold: LabelThreshold | None
) -> Branches:
    """Build the two branches (CAM2, section 2.3).

    Args:
        inputs: the network's inputs, `{group: {feature: tensor}}`.
        schema: the features.
        config: the configuration of CAM2.
        threshold: the label threshold fitted on the training days, which sets the initial predictions; None: one half.

    Returns:
        The causal embeddings (B, e) that join the main network, "conformity" and "relevance", and the outputs of the
        causal heads, float32: "conformity" (B, 1), a logit, or "conformity_norm" (B, 1); "relevance" (B, 1), a logit;
        "interests" (B, k), the products û_x î_x; and unless `heads="joint"` "engagement" (B, 1), the mixture.

    The embeddings are û + î of conformity and û ⊙ î of relevance: the vectors from which the predictions are read.
    CERTAIN: embeddings and not scores are joined. DESIGN: which of them, as the text does not say.

    The branches draw their initial values from a separate random stream (NumPy's), so that with the same seed the rest
    of the network starts from the same weights with and without them.
    """
    threshold = threshold or LabelThreshold.unfitted(config)
    parts = {
        f"{branch}_{part}": _part(f"{branch}_{part}", inputs, read, config, _width(branch, schema, config))
        for branch, sides in partition(schema, config).items() for part, read in sides.items()
    }
    conformity = (parts["conformity_user"], parts["conformity_item"])
    relevance = (parts["relevance_user"], parts["relevance_item"])
    joint = config.heads == "joint"
    rate, rest = threshold.rates(joint)
    outputs = {
        "conformity_norm" if config.conformity == "norm" else "conformity":
            Conformity(config.conformity, rate, _seed(), name="conformity")(conformity),
        **Relevance(rest, name="relevance")(relevance),
    }
    embeddings = {
        "conformity": conformity[0] + conformity[1], "relevance": tf.cast(outputs["interests"], conformity[0].dtype),
    }
    if not joint:
        scores = cause_scores(outputs)
        scores["conformity"] = tf.minimum(scores["conformity"], 1.0)  # a norm is no probability
        share = threshold.rows_above / max(threshold.rows, 1)
        mixture = CauseMixture(config.heads == "gated", share, name="cause_mixture")
        outputs["engagement"] = mixture(
            [scores["conformity"][:, None], scores["relevance"][:, None], tf.concat(list(embeddings.values()), axis=1)]
        )
    return Branches(embeddings, outputs)


def _part(
    name: str, inputs: Mapping[str, Mapping[str, tf.Tensor]], schema: Schema, config: "CAM2", width: int
) -> tf.Tensor:
    """One part of a branch, with separate embedding tables."""
    read = {group: {f.name: inputs[group][f.name] for f in features} for group, features in schema.groups.items()}
    x = Embeddings(schema, seed=_seed(), shared=False, name=f"{name}_embeddings")(read)
    return Residual(config.units, config.blocks, width, _seed(), name=name)(x)


def _seed() -> int:
    return int(np.random.randint(2**31 - 1000))


def _width(branch: str, schema: Schema, config: "CAM2") -> int:
    if branch == "conformity":
        return config.embedding
    return interest_feature(schema, config).rows if config.relevance == "interests" else config.interests


def interest_feature(schema: Schema, config: "CAM2") -> Feature:
    """The feature that says which interests an item has.

    Raises:
        UserError: it is not among the model's features, or is not a categorical item feature.
    """
    for feature in schema.features:
        if feature.name == config.interest_feature and feature.side == "item" and not feature.is_numeric:
            return feature
    known = [f.name for f in schema.features if f.side == "item" and not f.is_numeric]
    raise UserError(
        "config.model.causal.interest_feature must name a categorical item feature of the model, which gives the loss "
        f"the interest of each item. Received: {config.interest_feature!r}. Known: {known}."
    )


def join(representation: tf.Tensor, embeddings: Mapping[str, tf.Tensor], config: "CAM2") -> tf.Tensor:
    """Append the causal embeddings (B, e) to each task's representation (B, T, h): (B, T, h + Σ e).

    CERTAIN: behind a stop-gradient, so the tasks' losses do not reach the branches. DESIGN: "joint_loss" is read as
    the sum of all losses without the stop-gradient; the tasks' losses then train the branches jointly with the causal
    losses. DESIGN: each embedding is normalised over its width, and the towers' weights for it start at 0
    (`Experts.joined`), since the towers read vectors that change while the branches learn (`docs/decisions/cam2.md`).
    """
    joined = []
    for name, embedding in embeddings.items():
        if config.variant != "joint_loss":
            embedding = tf.stop_gradient(embedding)
        norm = tf.keras.layers.LayerNormalization(epsilon=1e-6, center=False, scale=False, name=f"join_{name}")
        joined.append(tf.repeat(norm(embedding)[:, None], representation.shape[1], axis=1))
    return tf.concat([representation, *joined], axis=2)


def cause_scores(outputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The scores of a row's causes, "conformity" and "relevance", (B,) each; probabilities except for the norm."""
    norm = outputs.get("conformity_norm")
    conformity = tf.sigmoid(outputs["conformity"]) if norm is None else norm
    return {"conformity": conformity[:, 0], "relevance": tf.sigmoid(outputs["relevance"][:, 0])}
