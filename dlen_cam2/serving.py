"""A trained model as a SavedModel that TensorFlow Serving loads."""

import os
import pathlib
from typing import Any

import tensorflow as tf

from dlen_cam2.cli import UserError
from dlen_cam2.data import DTYPES, parse_examples
from dlen_cam2.files import staged
from dlen_cam2.indexing import Indexer
from dlen_cam2.model_dir import TrainedModel
from dlen_cam2.models import cause_scores, functional, serving_scores
from dlen_cam2.models.cam2 import AUXILIARY


class Server(tf.Module):
    """Raw rows in, scores out: {task: (B,)} and, for DLEN, {"p_up": (B,)}, see `serving_scores`.

    CAM2's causal heads are for training only and are left out with their weights; with `causes` they stay, and
    {"conformity", "relevance": (B,)} are served too, see `cause_scores`.

    Signatures:
        serving_default: "examples", (B,) serialised `tf.train.Example`s. A missing categorical value counts
            as unknown; a missing number is an error that names the column.
        raw: one tensor for each feature, (B,), or (B, L) for lists, padded with -1 or "".
    """

    def __init__(self, model: TrainedModel, causes: bool = False):
        super().__init__(name="server")
        if causes and model.split is None:
            raise UserError(
                "only a model with CAM2's branches has scores of causes to serve. Received: "
                f"config.model.cam2.variant={model.config.model.cam2.variant!r}."
            )
        self.schema = model.schema
        kept = {name: t for name, t in model.network.output.items() if causes or name not in AUXILIARY}
        self.network = functional(model.network.input, kept, model.network.name)
        self.indexer = Indexer(model.schema)

    def concrete_signatures(self) -> dict[str, Any]:
        """The signatures, traced, by name."""
        columns = {
            f.name: tf.TensorSpec([None, None] if f.is_list else [None], DTYPES[f.dtype], name=f.name)
            for f in self.schema.features
        }
        examples = tf.TensorSpec([None], tf.string, name="examples")
        return {
            "serving_default": tf.function(self.score_examples, autograph=False).get_concrete_function(examples),
            "raw": tf.function(self.score_raw, autograph=False).get_concrete_function(**columns),
        }

    def score_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._score(parse_examples(examples, self.schema, labels=False))

    def score_raw(self, **columns: tf.Tensor) -> dict[str, tf.Tensor]:
        for feature in self.schema.features:
            if feature.is_list:
                values = columns[feature.name][:, : feature.max_length]
                missing = feature.max_length - tf.shape(values)[1]
                padding = -1 if feature.dtype == "int" else ""
                values = tf.pad(values, [[0, 0], [0, missing]], constant_values=padding)
                columns[feature.name] = tf.ensure_shape(values, (None, feature.max_length))
        return self._score(columns)

    def _score(self, columns: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        outputs = self.network(self.indexer(columns), training=False)
        return {**serving_scores(outputs, self.schema.tasks), **cause_scores(outputs)}


def export(model: TrainedModel, output: str | os.PathLike, causes: bool = False) -> pathlib.Path:
    """Write `output/<version>/`, version one above the newest there, aside and renamed. Returns the directory.

    Raises:
        UserError: `output` cannot be written, or `causes` is asked of a model without branches.
    """
    output = pathlib.Path(output)
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} must be a directory. Received: a file.")
    versions = [int(p.name) for p in output.iterdir() if p.name.isdigit()] if output.is_dir() else []
    target = output / str(max(versions, default=0) + 1)
    server = Server(model, causes)
    with staged(target, "saved_model.pb") as stage:
        tf.saved_model.save(server, str(stage), signatures=server.concrete_signatures())
    return target
