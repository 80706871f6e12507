"""The base classes of a network's parts: how each kind is called, what it returns, and what else it may define."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import tensorflow as tf

from dlen_cam2.labels.kind import Calibrate, binary, kind_of, targets
from dlen_cam2.layers import TaskLogits
from dlen_cam2.models.context import Context
from dlen_cam2.parts import Part
from dlen_cam2.schema import Feature, Schema
from dlen_cam2.utils.errors import UserError

Outputs = Mapping[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class TrainingLog:
    """The data on which a part may fit: the training days and nothing else.

    Attributes:
        schema: the model's features and tasks, fitted.
        stored: the features of the data set.
        directory, days, on_bad_record: see `dlen_cam2.data.read`.
    """

    schema: Schema
    stored: Schema
    directory: Any
    days: Sequence[str]
    on_bad_record: str = "fail"


class Loss(Protocol):
    """A loss that a part adds to the tasks' losses while training."""

    def weights(self, features: Any, labels: Mapping[str, tf.Tensor]) -> Any:
        """The weight of each row, as tensors (B,), in means over the rows of all replicas."""

    def __call__(self, features: Any, labels: Mapping[str, tf.Tensor], outputs: Outputs, weights: Any) -> tf.Tensor:
        """This replica's share of the loss, a scalar, for a batch, or for a part of one and of its `weights`."""


class NetworkPart(Part):
    """A part of the network, with what it may define besides layers; by default nothing.

    Attributes:
        states: {name: class} of the states that the part fits on the training days; each is stored with the model as
            `fitted/NAME.json`. A class has `to_dict()`, `from_dict(values)`, which may raise `UserError`, and
            `describe()`, which returns a line for the user.
    """

    states: ClassVar[Mapping[str, Any]] = {}

    def fit(self, log: TrainingLog) -> dict[str, Any]:
        """Fit the states and return them by name. Raises `UserError` if the log does not allow it."""
        return {}

    def columns(self, fitted: Mapping[str, Any]) -> tuple[str, ...]:
        """The numeric columns that training reads besides features and labels."""
        return ()

    def loss(self, schema: Schema, fitted: Mapping[str, Any]) -> Loss | None:
        """The loss that the part adds to the tasks' losses, if any."""
        return None

    def check_grown(self, before: Schema, now: Schema, stored: Sequence[Feature], fitted: Mapping[str, Any]) -> None:
        """Raise `UserError` if a model with the schema `before` cannot continue training with the schema `now`."""


class Trunk(NetworkPart):
    """Turns the embedded row x (B, d), which may be `Candidates`, into a representation for each task, (B, T, h)."""

    def __call__(self, x: tf.Tensor, context: Context) -> tf.Tensor:
        raise NotImplementedError


class Encoder(NetworkPart):
    """Turns the events of a list feature into one vector, inside the embedding layer.

    Attributes:
        reads_candidate: whether the vector depends on the row's item; `rank` then computes it for each candidate.
    """

    reads_candidate: ClassVar[bool] = False

    def layer(self, feature: Feature, name: str, dtype: Any) -> tf.keras.layers.Layer:
        """The layer, which maps events (B, L, w), present (B, L) of 1 and 0, and candidate (B, w) or None to (B, w).

        The candidate is the vector of the item's feature that shares the list's table, if there is one. Layers with
        weights declare them, see `dlen_cam2.layers.axes`. `dtype` is the embedding layer's dtype policy.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Branches:
    """The embeddings and outputs of causal branches.

    Attributes:
        embeddings: {name: (B, e)}, which join the main network.
        outputs: {name: tensor}, float32, from which the losses and scores are computed.
    """

    embeddings: Mapping[str, tf.Tensor]
    outputs: Outputs


class Causal(NetworkPart):
    """Branches beside the trunk, with separate losses, whose embeddings join the main network.

    Attributes:
        score_names: the names of `scores`.
        output_names: the outputs that only training and `scores` need; a serving model may leave them out.
        at_towers: whether the embeddings join the towers' outputs rather than their inputs.
    """

    score_names: ClassVar[tuple[str, ...]] = ()
    output_names: ClassVar[tuple[str, ...]] = ()

    @property
    def at_towers(self) -> bool:
        raise NotImplementedError

    def branches(self, context: Context) -> Branches:
        raise NotImplementedError

    def join(self, representation: tf.Tensor, embeddings: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Append embeddings, (B, e) each, to a representation (B, T, h): (B, T, h + Σ e)."""
        raise NotImplementedError

    def scores(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """The scores of the row's causes, {name: (B,)}."""
        raise NotImplementedError


class Transfer(NetworkPart):
    """Passes information between the tasks, after their towers and before the head: (B, T, h) -> (B, T, h')."""

    def __call__(self, towers: tf.Tensor, context: Context) -> tf.Tensor:
        raise NotImplementedError


class Head(NetworkPart):
    """Turns the towers' outputs into what is trained, evaluated and served.

    A head handles the binary tasks and returns their z (B, T) as "logits". Tasks of other kinds, which a head does not
    know, get a linear read-out of their tower with every head.

    Attributes:
        captions: {name in `telemetry`: (title, explanation)}.
        compared_on: the trunks with which it appears in tables.
        needs_binary: whether the head needs at least one binary task.
    """

    compared_on: ClassVar[tuple[str, ...]] = ("mmoe",)
    captions: ClassVar[Mapping[str, tuple[str, str]]] = {}
    needs_binary: ClassVar[bool] = False

    @classmethod
    def name_on(cls, trunk: str) -> str:
        """The name in tables of the head on a trunk with this title: "MMOE-DLEN"."""
        return f"{trunk}-{cls.title or cls.name}"

    def outputs(self, towers: tf.Tensor, x: tf.Tensor, context: Context) -> dict[str, tf.Tensor]:
        """The outputs {"logits": (B, T), …}, float32; T counts the binary tasks, the only ones in `context`.

        Args:
            towers: (B, T, h); the last `context.joined` columns were joined.
            x: (B, d), the embedded row.
            context: the binary tasks; all features.
        """
        raise NotImplementedError

    def __call__(self, towers: tf.Tensor, x: tf.Tensor, context: Context) -> dict[str, tf.Tensor]:
        """The `outputs`, with the tasks of other kinds added to the "logits".

        Raises:
            UserError: no task is binary, although the head needs one.
        """
        tasks = context.schema.tasks
        own = binary(context.schema)
        rest = [k for k in range(len(tasks)) if k not in own]
        if not rest:
            return self.outputs(towers, x, context)
        if self.needs_binary and not own:
            raise UserError(
                f"config.model.head={self.name!r} needs a binary task. Received: {list(context.schema.task_names)}.")
        linear = TaskLogits([kind_of(tasks[k]).start(tasks[k]) for k in rest], context.joined, rest, name="numbers")(
            tf.gather(towers, rest, axis=1))
        if not own:
            return {"logits": linear}
        of_own = dataclasses.replace(context, schema=_only(context.schema, own), places=tuple(own))
        found = self.outputs(tf.gather(towers, own, axis=1), x, of_own)
        both = tf.concat([found["logits"], linear], axis=1)
        return {**found, "logits": tf.gather(both, [(own + rest).index(k) for k in range(len(tasks))], axis=1)}

    def start_rates(self, schema: Schema) -> list[float]:
        """The positive rate (T,) of each task's `targets`."""
        return [task.positive_rate for task in schema.tasks]

    def targets(self, labels: Mapping[str, tf.Tensor], schema: Schema) -> tuple[tf.Tensor, tf.Tensor]:
        """The labels that are trained on and their sample-space masks, (B, T) each."""
        return targets(labels, schema)

    def trained(self, outputs: Outputs, schema: Schema) -> tf.Tensor:
        """The z that is trained, (B, T)."""
        return outputs["logits"]

    def losses(self, outputs: Outputs, y: tf.Tensor, schema: Schema) -> tf.Tensor:
        """The loss of each row in each task, (B, T), before masks and weights."""
        return _of_tasks(schema, lambda task, y, z: kind_of(task).losses(y, z, task), y, self.trained(outputs, schema))

    def predictions(self, outputs: Outputs, schema: Schema) -> tf.Tensor:
        """The predictions (B, T), on which every metric is computed: P(k) of binary tasks (DLEN: eq 1), or numbers."""
        return _predictions(outputs["logits"], schema)

    def scores(self, outputs: Outputs, schema: Schema, calibrate: Calibrate | None = None) -> dict[str, tf.Tensor]:
        """The scores to rank by, {name: (B,)}: calibrated `predictions` by task, and scores that a head adds."""
        z = outputs["logits"] if calibrate is None else calibrate(outputs["logits"], schema.task_names)
        return dict(zip(schema.task_names, tf.unstack(_predictions(z, schema), axis=1), strict=True))

    def score_names(self, schema: Schema) -> list[str]:
        """The names of `scores`, in order."""
        return list(schema.task_names)

    def preference(self, outputs: Outputs) -> tf.Tensor | None:
        """P(UP), (B,), the probability that the user prefers the item, if the head has such a state."""
        return None

    def telemetry(self, outputs: Outputs, schema: Schema) -> dict[str, tf.Tensor]:
        """Quantities to watch during training, {name: (B, T')}, for each binary task; means are shown."""
        return {}

    def notes(self, schema: Schema) -> dict[str, dict[str, str]]:
        """Notes about `telemetry`, {name: {task: note}}, such as a task's cap."""
        return {}


def _only(schema: Schema, tasks: Sequence[int]) -> Schema:
    return dataclasses.replace(schema, tasks=tuple(schema.tasks[k] for k in tasks))


def _predictions(z: tf.Tensor, schema: Schema) -> tf.Tensor:
    return _of_tasks(schema, lambda task, z: kind_of(task).predictions(z, task), z)


def _of_tasks(schema: Schema, of_task: Callable[..., tf.Tensor], *values: tf.Tensor) -> tf.Tensor:
    """Stack, as (B, T), the results of `of_task(task, *columns)` for each task and its columns (B,) of the values."""
    if all(task.kind == "binary" for task in schema.tasks):
        return of_task(schema.tasks[0], *values)  # all at once, which is the same numbers
    columns = zip(schema.tasks, *(tf.unstack(value, axis=1) for value in values), strict=True)
    return tf.stack([of_task(task, *of_values) for task, *of_values in columns], axis=1)
