"""What each kind of part of a network is: what it is called with, what it returns, and what else it owns."""

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
    """What a part may fit on: the training days, and nothing else.

    Attributes:
        schema: the model's features and tasks, fitted.
        stored: that of the data set.
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
        """Tensors (B,): what each row counts, over all replicas' rows."""

    def __call__(self, features: Any, labels: Mapping[str, tf.Tensor], outputs: Outputs, weights: Any) -> tf.Tensor:
        """This replica's share of the loss, a scalar, of a batch or a part of one with its part of `weights`."""


class NetworkPart(Part):
    """A part of the network, and what it owns besides layers; by default nothing.

    Attributes:
        states: {name: class} of what the part fits on the training days; each is stored with the model as
            `fitted/NAME.json`. A class has `to_dict()`, `from_dict(values)`, which may raise `UserError`, and
            `describe()`, a line for whoever watches.
    """

    states: ClassVar[Mapping[str, Any]] = {}

    def fit(self, log: TrainingLog) -> dict[str, Any]:
        """The fitted states, by name. Raises `UserError` if the log cannot give them."""
        return {}

    def columns(self, fitted: Mapping[str, Any]) -> tuple[str, ...]:
        """Numeric columns that training reads beside features and labels."""
        return ()

    def loss(self, schema: Schema, fitted: Mapping[str, Any]) -> Loss | None:
        """What the part adds to the tasks' losses."""
        return None

    def check_grown(self, before: Schema, now: Schema, stored: Sequence[Feature], fitted: Mapping[str, Any]) -> None:
        """Raise `UserError` if a model of the schema `before` cannot go on as one of the schema `now`."""


class Trunk(NetworkPart):
    """From the embedded row x (B, d), which may be `Candidates`, to a representation for each task, (B, T, h)."""

    def __call__(self, x: tf.Tensor, context: Context) -> tf.Tensor:
        raise NotImplementedError


class Encoder(NetworkPart):
    """From the events of a list feature to one vector, in the embedding layer.

    Attributes:
        reads_candidate: the vector depends on the row's item, so that `rank` computes it for each candidate.
    """

    reads_candidate: ClassVar[bool] = False

    def layer(self, feature: Feature, name: str, dtype: Any) -> tf.keras.layers.Layer:
        """A layer called with (events (B, L, w), present (B, L) of 1 and 0, candidate (B, w) or None), to (B, w).

        The candidate is the vector of the item's feature that shares the list's table, if there is one. Layers with
        weights declare them, see `dlen_cam2.layers.axes`. `dtype` is the embedding layer's policy, for the layer.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Branches:
    """What causal branches give.

    Attributes:
        embeddings: {name: (B, e)}, to join the main network.
        outputs: {name: tensor}, float32: what their losses and scores are of.
    """

    embeddings: Mapping[str, tf.Tensor]
    outputs: Outputs


class Causal(NetworkPart):
    """Branches beside the trunk, with losses of their own, whose embeddings join the main network.

    Attributes:
        score_names: of `scores`.
        output_names: the outputs that only training and `scores` need; a serving model may leave them out.
        at_towers: the embeddings join the towers' outputs, not their inputs.
    """

    score_names: ClassVar[tuple[str, ...]] = ()
    output_names: ClassVar[tuple[str, ...]] = ()

    @property
    def at_towers(self) -> bool:
        raise NotImplementedError

    def branches(self, context: Context) -> Branches:
        raise NotImplementedError

    def join(self, representation: tf.Tensor, embeddings: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """(B, T, h) and (B, e) each -> (B, T, h + Σ e)."""
        raise NotImplementedError

    def scores(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """{name: (B,)}: the row's causes."""
        raise NotImplementedError


class Transfer(NetworkPart):
    """What tasks hand to each other between towers and head: (B, T, h) -> (B, T, h')."""

    def __call__(self, towers: tf.Tensor, context: Context) -> tf.Tensor:
        raise NotImplementedError


class Head(NetworkPart):
    """From the towers' outputs to what is trained, evaluated and served.

    A head is for binary tasks, and gives z (B, T) as "logits". Tasks of other kinds, which it does not know, get a
    linear read-out of their tower whatever the head.

    Attributes:
        captions: {name in `telemetry`: (title, what it says)}.
        compared_on: the trunks with which tables have it.
        needs_binary: whether the head has nothing to say where no task is binary.
    """

    compared_on: ClassVar[tuple[str, ...]] = ("mmoe",)
    captions: ClassVar[Mapping[str, tuple[str, str]]] = {}
    needs_binary: ClassVar[bool] = False

    @classmethod
    def name_on(cls, trunk: str) -> str:
        """What tables call it on a trunk of that title: "MMOE-DLEN"."""
        return f"{trunk}-{cls.title or cls.name}"

    def outputs(self, towers: tf.Tensor, x: tf.Tensor, context: Context) -> dict[str, tf.Tensor]:
        """{"logits": (B, T), …}, float32: T are the binary tasks, which are all that `context` knows.

        Args:
            towers: (B, T, h), of which `context.joined` columns were joined.
            x: (B, d), the embedded row.
            context: the binary tasks; all features.
        """
        raise NotImplementedError

    def __call__(self, towers: tf.Tensor, x: tf.Tensor, context: Context) -> dict[str, tf.Tensor]:
        """`outputs`, with the tasks of other kinds among the "logits".

        Raises:
            UserError: no task is binary, and the head needs one.
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
        """Each task's positive rate among what is trained (T,)."""
        return [task.positive_rate for task in schema.tasks]

    def targets(self, labels: Mapping[str, tf.Tensor], schema: Schema) -> tuple[tf.Tensor, tf.Tensor]:
        """Labels and sample-space masks of what is trained, (B, T) each."""
        return targets(labels, schema)

    def trained(self, outputs: Outputs, schema: Schema) -> tf.Tensor:
        """(B, T): z of what is trained."""
        return outputs["logits"]

    def losses(self, outputs: Outputs, y: tf.Tensor, schema: Schema) -> tf.Tensor:
        """(B, T): each row's loss in each task, before masks and weights."""
        return _of_tasks(schema, lambda task, y, z: kind_of(task).losses(y, z, task), y, self.trained(outputs, schema))

    def predictions(self, outputs: Outputs, schema: Schema) -> tf.Tensor:
        """(B, T): P(k) of a binary task (DLEN: eq 1), the expected number of others. Every metric is of these."""
        return _predictions(outputs["logits"], schema)

    def scores(self, outputs: Outputs, schema: Schema, calibrate: Calibrate | None = None) -> dict[str, tf.Tensor]:
        """What a feed ranks by, {name: (B,)}: calibrated `predictions` under the tasks' names, and what a head adds."""
        z = outputs["logits"] if calibrate is None else calibrate(outputs["logits"], schema.task_names)
        return dict(zip(schema.task_names, tf.unstack(_predictions(z, schema), axis=1), strict=True))

    def score_names(self, schema: Schema) -> list[str]:
        """The names of `scores`, in order."""
        return list(schema.task_names)

    def preference(self, outputs: Outputs) -> tf.Tensor | None:
        """(B,): P(UP), the probability that the user prefers the item, where the head has such a state."""
        return None

    def telemetry(self, outputs: Outputs, schema: Schema) -> dict[str, tf.Tensor]:
        """{name: (B, T')}: what is worth watching while a model trains, by binary task; means are shown."""
        return {}

    def notes(self, schema: Schema) -> dict[str, dict[str, str]]:
        """{name in `telemetry`: {task: what is to be said of it}}, such as a task's cap."""
        return {}


def _only(schema: Schema, tasks: Sequence[int]) -> Schema:
    return dataclasses.replace(schema, tasks=tuple(schema.tasks[k] for k in tasks))


def _predictions(z: tf.Tensor, schema: Schema) -> tf.Tensor:
    return _of_tasks(schema, lambda task, z: kind_of(task).predictions(z, task), z)


def _of_tasks(schema: Schema, of_task: Callable[..., tf.Tensor], *values: tf.Tensor) -> tf.Tensor:
    """(B, T): what `of_task(task, *columns)` is of each task and its columns (B,) of the values (B, T)."""
    if all(task.kind == "binary" for task in schema.tasks):
        return of_task(schema.tasks[0], *values)  # all at once, which is the same numbers
    columns = zip(schema.tasks, *(tf.unstack(value, axis=1) for value in values), strict=True)
    return tf.stack([of_task(task, *of_values) for task, *of_values in columns], axis=1)
