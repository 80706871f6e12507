"""Score the rows of a day and measure every task, exactly."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2 import data
from dlen_cam2.labels.kind import Calibrate, binary, kind_of
from dlen_cam2.metrics import task_metrics
from dlen_cam2.models import ReadOut
from dlen_cam2.schema import Schema
from dlen_cam2.utils import arrays, console

USER_FAVOR = "user_favor"
USER_FAVOR_NOTE = (
    "AUC of P(UP) against any positive behaviour (DLEN, section 3.3). It is a necessary but not a sufficient sign of "
    "convergence, and never a measure of the model's quality."
)


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The scored rows of one day.

    Attributes:
        labels, mask, probabilities: (N, T) in the schema's task order; `probabilities` is P(k) for a binary task (DLEN:
            eq 1), and the predicted number for a regression task.
        p_up: (N,), DLEN's P(UP), or None for other heads.
        serving: {score: (N,)}, the scores that the exported model returns.
        causes: {"conformity", "relevance"}: (N,), CAM2's scores of the causes; empty without branches.
        columns: {column: (N,)}, the schema's targets.
        keys: {role: (N,)} raw key columns: int64, or objects that are bytes.
    """

    labels: np.ndarray
    mask: np.ndarray
    probabilities: np.ndarray
    p_up: np.ndarray | None
    serving: dict[str, np.ndarray]
    causes: dict[str, np.ndarray]
    columns: dict[str, np.ndarray]
    keys: dict[str, np.ndarray]

    @functools.cached_property
    def users(self) -> np.ndarray:
        """The index (N,) of each row's user among the sorted distinct users; without a user key, each row has its own.

        The result is cached, because texts take long to sort.
        """
        return np.unique(self.keys.get("user", np.arange(len(self.labels))), return_inverse=True)[1]

    def save(self, path: pathlib.Path) -> None:
        """Write the predictions to a NumPy archive, as a whole or not at all."""
        given: dict[str, np.ndarray] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, dict):
                given |= {f"{field.name}/{key}": array for key, array in value.items()}
            elif value is not None:
                given[field.name] = value
        arrays.save(path, given)

    @classmethod
    def load(cls, path: pathlib.Path) -> "Predictions":
        """Read predictions that `save` wrote."""
        values: dict[str, Any] = {"p_up": None, "serving": {}, "causes": {}, "columns": {}, "keys": {}}
        for name, array in arrays.load(path).items():
            field, _, key = name.partition("/")
            if key:
                values[field][key] = array
            else:
                values[field] = array
        return cls(**values)


Score = Callable[[Any, Any], tuple[Any, ...]]


def scorer(network: tf.keras.Model, read_out: ReadOut, calibration: Calibrate | None = None) -> Score:
    """The network with its derived scores as one graph, for `predict` to call on the batches of any day.

    `calibration` changes the served scores but not `Predictions.probabilities`, on which every metric is computed.
    """

    @tf.function(autograph=False, reduce_retracing=True)
    def score(features: Any, labels: Any) -> tuple[Any, ...]:
        outputs = network(features, training=False)
        preference = read_out.head.preference(outputs)
        return (
            *read_out.targets(labels), read_out.predictions(outputs), () if preference is None else (preference,),
            read_out.scores(outputs, calibration), read_out.causes(outputs),
        )

    return score


def predict(
    score: Score, schema: Schema, directory: str | os.PathLike, day: str, batch_size: int = 4096,
    on_bad_record: str = "fail",
) -> Predictions:
    """Score every row of `day` with the result of `scorer`, in file order. Arguments: see `dlen_cam2.data.read`."""
    parts: list[tuple[Any, ...]] = []
    rows = data.statistics(directory)["days"].get(day, {}).get("rows")  # `read` refuses a day that is not there
    with data.explained(directory, schema, [day]), console.Progress(f"scoring {day}", rows) as progress:
        for features, labels in data.read(directory, schema, [day], batch_size, on_bad_record=on_bad_record):
            columns = {column: labels[column] for column in schema.targets}
            keys = {role: labels[column] for role, column in schema.keys.items()}
            parts.append(tf.nest.map_structure(lambda t: t.numpy(), (*score(features, labels), columns, keys)))
            progress.advance(len(parts[-1][0]))
    if not parts:
        empty = np.zeros((0, len(schema.tasks)), np.float32)
        keys = {role: np.zeros(0, np.int64) for role in schema.keys}
        return Predictions(empty, empty, empty, None, {}, {}, {c: np.zeros(0) for c in schema.targets}, keys)
    whole = tf.nest.map_structure(lambda *arrays: np.concatenate(arrays), *parts)
    labels, mask, predicted, preference, serving, causes, columns, keys = whole
    p_up = preference[0] if preference else None
    return Predictions(labels, mask, predicted, p_up, serving, causes, columns, keys)


def together(parts: Sequence[Predictions]) -> Predictions:
    """Concatenate the rows of several predictions."""
    filled = [p for p in parts if len(p.labels)] or parts[:1]
    fields = [{f.name: getattr(p, f.name) for f in dataclasses.fields(Predictions)} for p in filled]
    return Predictions(**tf.nest.map_structure(lambda *a: None if a[0] is None else np.concatenate(a), *fields))


def evaluate(predictions: Predictions, schema: Schema, bootstrap: int = 200, seed: int = 0) -> dict[str, Any]:
    """The metrics of one day, `{task: metrics}`, see `dlen_cam2.metrics.task_metrics`; undefined values are None.

    A task is measured on its own sample space. A task that follows others also has the metrics of its entire space,
    under "entire_space", see there. With a latent state, there is one more entry, "user_favor": P(UP) against "any
    positive behaviour", the convergence check of DLEN's section 3.3.
    """
    users = predictions.users
    result: dict[str, Any] = {}
    for column, task in enumerate(schema.tasks):
        rows = predictions.mask[:, column] == 1
        result[task.name] = kind_of(task).metrics(
            predictions.labels[rows, column], predictions.probabilities[rows, column], users[rows], bootstrap, seed
        )
    for name, (y, shown, p) in entire_space(
            schema, predictions.labels, predictions.mask, predictions.probabilities).items():
        rows = shown == 1
        result[name]["entire_space"] = task_metrics(y[rows], p[rows], users[rows], bootstrap, seed)
    if predictions.p_up is not None:
        any_positive = (behaviours(predictions, schema) > 0).astype(np.float32)
        result[USER_FAVOR] = task_metrics(any_positive, predictions.p_up, users, bootstrap, seed)
        result[USER_FAVOR]["note"] = USER_FAVOR_NOTE
    return result


def entire_space(
    schema: Schema, labels: np.ndarray, mask: np.ndarray, probabilities: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Labels and probabilities in the entire space of each task that follows others: purchases of all exposures.

        y = Π_a y_a,   p = Π_a P(a | the task before a),   a over the task and those that it follows

    The entire space is the sample space of the first task in the chain. With every head, a row's probability is the
    product of its chain, so that heads that learn conditional probabilities can be compared with ESMM, which learns the
    product.

    Args:
        schema: the T tasks.
        labels, mask: (N, T).
        probabilities: (…, N, T).

    Returns:
        {task: (labels (N,), mask (N,), probabilities (…, N))}.

    References:
        ESMM (Ma et al., SIGIR 2018), eq 1.
    """
    found = {}
    for k, before in enumerate(schema.ancestors):
        if before and kind_of(schema.tasks[k]).binary:
            chain, root = [k, *before], before[-1]
            y = (labels * mask)[:, chain].prod(axis=1)
            found[schema.task_names[k]] = y, mask[:, root], probabilities[..., chain].prod(axis=-1)
    return found


def behaviours(predictions: Predictions, schema: Schema) -> np.ndarray:
    """The number of positive behaviours in each row, (N,); negative tasks do not count."""
    positive = [i for i in binary(schema) if not schema.tasks[i].negative]
    return (predictions.labels[:, positive] * predictions.mask[:, positive]).sum(axis=1).astype(int)
