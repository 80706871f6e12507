"""The serving signatures: a trained model as the functions that a feed calls."""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from dlen_cam2.data.parsing import DTYPES, parse_examples
from dlen_cam2.data.preprocessing import Indexer
from dlen_cam2.layers import Embeddings
from dlen_cam2.models import functional
from dlen_cam2.schema import Feature
from dlen_cam2.serving.calibration import Calibration
from dlen_cam2.serving.fusion import Fusion, FusionTable
from dlen_cam2.serving.score_adapters.adapter import ScoreAdapter
from dlen_cam2.training.model_directory import TrainedModel
from dlen_cam2.utils.errors import UserError

FUSED = "fused"
ORDER = "order"


class Server(tf.Module):
    """Maps raw rows to scores, (B,) float32 each: those of `Head.scores`, and "fused", see `Fusion`.

    CAM2's causal heads are for training only and are left out with their weights. With `causes` they are kept, and
    "conformity" and "relevance" are served too, see `Causal.scores`.

    Signatures:
        serving_default: takes "examples", (B,) serialised `tf.train.Example`s. A missing categorical value counts as
            unknown; a missing number is an error that names the column.
        raw: takes one tensor for each feature, (B,), or (B, L) for lists, padded with -1 or "".
        rank: takes one user and N candidates: features of the user are (1,) or (1, L), those of an item (N,) or (N, L),
            and those of the context either. Scores are (N,), and "order" (N,) int32 says which candidate is first,
            second, … by "fused" (of equals, the earlier one). What depends only on the user is computed once.
        classify, regress: optional; the signatures behind TensorFlow's Classify and Regress calls, with serialised
            Examples in "inputs". They return "classes" and "scores", (B, T) for the binary tasks; and "outputs" (B,),
            one score.

    NaN in a numeric feature is an error that names the feature; an infinite value counts as a very large one.

    Args:
        model: the trained model.
        causes: also serve CAM2's scores of causes.
        calibration: the calibration of the tasks' probabilities; None: as trained.
        fusion: the fusion of the scores; None: `Fusion.default`.
        classify: add this signature.
        regress: add this signature, for the score of this name.
        adapters: score adapters, applied one after another before the scores are fused.

    Raises:
        UserError: `causes` is set for a model without branches, the calibration or the fusion names other tasks, a
            score does not exist, or two scores have the same name.
    """

    def __init__(
        self, model: TrainedModel, causes: bool = False, calibration: Calibration | None = None,
        fusion: Fusion | None = None, classify: bool = False, regress: str = "",
        adapters: Sequence[ScoreAdapter] = (),
    ):
        super().__init__(name="server")
        if causes and model.config.model.causal is None:
            raise UserError("scores of causes need a model with causal branches. Received: "
                            "config.model.causal=None.")
        self._read_out, self._causes = model.read_out, causes
        self.schema = model.schema
        self.calibration = calibration
        self._adapters = tuple(adapters)
        self.tracked = [module for adapter in adapters if (module := adapter.tracked()) is not None]
        kept = self._read_out.served(model.network.output, causes)
        network = functional(model.network.input, kept, model.network.name)
        embeddings = [layer for layer in network.layers if isinstance(layer, Embeddings)]
        after_embeddings = functional([layer.output for layer in embeddings], kept, "after_embeddings")
        # Variables and functions, not Keras models: of those TensorFlow would trace and store every layer's functions,
        # which no signature calls. It doubled an export's time and made saved_model.pb half as large again.
        self.weights = network.variables
        self._network = lambda features: network(features, training=False)
        self._after_embeddings = lambda features, rows: after_embeddings(
            [layer.candidates(features, rows) for layer in embeddings], training=False
        )
        self.indexer = Indexer(model.schema)
        names = self._names()
        tasks = model.schema.tasks
        if calibration is not None and (strange := sorted(set(calibration.knots) - set(model.schema.task_names))):
            raise UserError(f"the calibration must be for tasks of the model only. Received: {strange} as well.")
        self.fusion = FusionTable(
            fusion or Fusion.default(tasks), [t.name for t in tasks if t.negative], names,
            [t.name for t in tasks if t.is_number],
        )
        self.names = (*names, FUSED)
        self._classify, self._regress = classify, regress
        if classify and all(task.is_number for task in tasks):
            raise UserError("the signature classify needs a task that is a probability. Received: "
                            f"{list(model.schema.task_names)}, all numbers.")
        if regress and regress not in self.names:
            raise UserError(f"the signature regress needs a score. Received: {regress!r}. Known: {list(self.names)}.")

    def _names(self) -> list[str]:
        """The names of the scores, except "fused"."""
        names = self._read_out.names(self._causes)
        counts = collections.Counter([*names, FUSED, ORDER])
        if twice := [name for name, count in counts.items() if count > 1]:
            raise UserError(f"a task must not have the name of another score. Received: {twice}.")
        return names

    def concrete_signatures(self) -> dict[str, Any]:
        """The traced signatures, by name."""

        def traced(function: Callable[..., Any], *specs: tf.TensorSpec, **columns: tf.TensorSpec) -> Any:
            return tf.function(function, autograph=False).get_concrete_function(*specs, **columns)

        features = self.schema.features
        signatures = {
            "serving_default": traced(self.score_examples, tf.TensorSpec([None], tf.string, "examples")),
            "raw": traced(self.score_raw, **{
                f.name: tf.TensorSpec([None, *_list_axis(f)], DTYPES[f.dtype], f.name) for f in features
            }),
        }
        if any(f.side == "item" for f in features):
            signatures["rank"] = traced(self.rank, **{
                f.name: tf.TensorSpec([1 if f.side == "user" else None, *_list_axis(f)], DTYPES[f.dtype], f.name)
                for f in features
            })
        inputs = tf.TensorSpec([None], tf.string, "inputs")
        if self._classify:
            signatures["classify"] = traced(self.classify, inputs)
        if self._regress:
            signatures["regress"] = traced(self.regress, inputs)
        return signatures

    def score_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._score(parse_examples(examples, self.schema, labels=False))

    def score_raw(self, **columns: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._score(columns)

    def classify(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = self.score_examples(inputs)
        tasks = [task.name for task in self.schema.tasks if not task.is_number]
        return {
            "classes": tf.repeat(tf.constant(tasks)[None], tf.size(inputs), axis=0),
            "scores": tf.stack([scores[task] for task in tasks], axis=1),
        }

    def regress(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"outputs": self.score_examples(inputs)[self._regress]}

    def rank(self, **columns: tf.Tensor) -> dict[str, tf.Tensor]:
        user = [f for f in self.schema.features if f.side == "user"]
        others = [f for f in self.schema.features if f.side != "user"]
        rows = tf.shape(columns[next(f.name for f in others if f.side == "item")])[0]
        with tf.control_dependencies([_check_rows(columns, self.schema.features, rows)]):
            # Before operations on columns of different length fail without naming one.
            columns = dict(zip(columns, tf.identity_n(list(columns.values())), strict=True))
        columns = self._cut(columns)
        for f in others:
            if f.side == "context":
                columns[f.name] = tf.broadcast_to(columns[f.name], [rows, f.max_length] if f.is_list else [rows])
        inputs: dict[str, dict[str, tf.Tensor]] = {}
        for side in (user, others):
            _check_numbers(columns, side)
            for group, indexed in self.indexer(columns, side).items():
                inputs[group] = {**inputs.get(group, {}), **indexed}
        scores = self._scores(self._after_embeddings(inputs, rows), columns)
        return {**scores, ORDER: tf.argsort(scores[FUSED], direction="DESCENDING", stable=True)}

    def _cut(self, columns: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The columns with lists as long as those of the model."""
        return {f.name: _to_length(columns[f.name], f) if f.is_list else columns[f.name] for f in self.schema.features}

    def _score(self, columns: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        _check_numbers(columns, self.schema.features)
        return self._scores(self._network(self.indexer(self._cut(columns))), columns)

    def _scores(self, outputs: Mapping[str, tf.Tensor], columns: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        scores = self._read_out.scores(outputs, self.calibration)
        if self._causes:
            scores |= self._read_out.causes(outputs)
        for adapter in self._adapters:
            names = set(scores)
            scores = adapter(scores, columns)
            assert set(scores) == names, f"{adapter.name} must keep the names of scores. Received: {sorted(scores)}."
        return {**scores, FUSED: self.fusion(scores)}


def _list_axis(feature: Feature) -> list[None]:
    return [None] if feature.is_list else []


def _to_length(value: tf.Tensor, feature: Feature) -> tf.Tensor:
    """Truncate or pad (with -1 or "") a list column: (B, any) -> (B, max_length)."""
    value = value[:, : feature.max_length]
    missing = feature.max_length - tf.shape(value)[1]
    value = tf.pad(value, [[0, 0], [0, missing]], constant_values=-1 if feature.dtype == "int" else "")
    return tf.ensure_shape(value, (None, feature.max_length))


def _check_numbers(columns: Mapping[str, tf.Tensor], features: Sequence[Feature]) -> None:
    """Check the numeric features, which must have equally many rows, for NaN."""
    if numeric := [f.name for f in features if f.is_numeric]:
        wrong = tf.reduce_any(tf.math.is_nan(tf.stack([columns[name] for name in numeric])), axis=1)
        _require(~tf.reduce_any(wrong), "must be numbers. Received: NaN.", numeric, wrong)


def _check_rows(columns: Mapping[str, tf.Tensor], features: Sequence[Feature], rows: tf.Tensor) -> tf.Operation:
    given, ordered = [], []
    for dtype in DTYPES:  # the shapes of all columns of a type by one operation
        if alike := [f for f in features if f.dtype == dtype]:
            shapes = tf.shape_n([columns[f.name] for f in alike])
            given += [shape[:1] if f.is_list else shape for shape, f in zip(shapes, alike, strict=True)]
            ordered += alike
    received = tf.concat(given, axis=0)
    sides = [f.side for f in ordered]
    right = tf.equal(received, tf.where(tf.constant([side == "user" for side in sides]), 1, rows))
    right |= tf.equal(received, 1) & tf.constant([side == "context" for side in sides])
    return _require(
        tf.reduce_all(right), "must have one row (user features), one row for each candidate (item features), or "
        "either (context features).", [f.name for f in ordered], ~right,
    )


def _require(holds: tf.Tensor, rule: str, names: Sequence[str], wrong: tf.Tensor) -> tf.Operation:
    """Unless `holds`, end the request with an error that names the features that `wrong` marks, (F,)."""

    def fail() -> tf.Operation:
        named = tf.strings.reduce_join(tf.boolean_mask(tf.constant(names), wrong), separator=", ")
        return tf.debugging.Assert(False, [tf.strings.join(["features ", named, " ", rule])])

    return tf.cond(holds, tf.no_op, fail)
