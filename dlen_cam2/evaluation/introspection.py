"""Introspection of a trained network: which experts the gates use, how near DLEN's caps are, where P(UP) lies."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2.evaluation import Predictions, behaviours
from dlen_cam2.layers.gates import Mixture
from dlen_cam2.models import ReadOut, functional
from dlen_cam2.utils.errors import UserError

# An expert is dead if every gate that sees it gives it less than this on average.
DEAD = 0.01
# A row is near its cap where b/α is above this.
NEAR = 0.9
BINS = 20
_GATE = "gate/"
_P_UP = "p_up"


@dataclasses.dataclass(frozen=True)
class Level(Mixture):
    """One layer of gates: MMOE's, or one extraction layer of CGC or PLE.

    Attributes:
        name: the name of the layer: "gates", "cgc_1".
        gates, experts, sees: see `Mixture`.
    """

    name: str


@dataclasses.dataclass(frozen=True)
class GateUse:
    """Means over the rows of a level's gates g = softmax(W x).

    Attributes:
        level: the layer of gates and its experts.
        weights: (G, E), the mean of g_i; each row sums to 1, with 0 for an expert that the gate does not see.
        entropy: (G,), the mean of `-Σ_i g_i log g_i / log n`, with n the experts that the gate sees. 0: each row uses
            one expert, possibly a different one for each row; 1: all experts equally. 0 where n = 1.
    """

    level: Level
    weights: np.ndarray
    entropy: np.ndarray

    @property
    def use(self) -> np.ndarray:
        """Each expert's mean weight, (E,), over the gates that see it."""
        return self.weights.sum(axis=0) / self.level.sees.sum(axis=0)

    @property
    def dead(self) -> list[str]:
        """The experts whose mean weight is below `DEAD` in every gate."""
        return [e for e, most in zip(self.level.experts, self.weights.max(axis=0), strict=True) if most < DEAD]


@dataclasses.dataclass(frozen=True)
class Telemetry:
    """A quantity in [0, 1] that a head reports for each task and row; in DLEN, how near b_k = P(k|¬UP) is to its cap.

    Attributes:
        name, title, caption: its name, such as "cap_use", and its title and explanation for readers.
        tasks, notes: the tasks' names, and the head's note about each, such as its cap.
        mean: (T,), the mean over the rows.
        near: (T,), the share of rows where it is above `NEAR`.
    """

    name: str
    title: str
    caption: str
    tasks: tuple[str, ...]
    notes: tuple[str, ...]
    mean: np.ndarray
    near: np.ndarray


@dataclasses.dataclass(frozen=True)
class LatentUse:
    """P(UP) of every row.

    Attributes:
        p_up: (N,), P(UP) of each row.
        behaviours: (N,), the number of positive behaviours of each row, see `evaluation.behaviours`.
    """

    p_up: np.ndarray
    behaviours: np.ndarray

    @property
    def histogram(self) -> np.ndarray:
        """The number of rows by P(UP), (BINS,), in equal steps from 0 to 1."""
        return np.histogram(self.p_up, BINS, (0.0, 1.0))[0]

    @property
    def by_behaviours(self) -> dict[int, np.ndarray]:
        """P(UP) of the rows by their number of positive behaviours, {number: P(UP)}."""
        return {int(count): self.p_up[self.behaviours == count] for count in np.unique(self.behaviours)}


@dataclasses.dataclass(frozen=True)
class Inspection:
    """The findings of `inspect`; a shared bottom has no `gates`, a logistic head neither `telemetry` nor `latent`."""

    rows: int
    gates: tuple[GateUse, ...]
    telemetry: tuple[Telemetry, ...]
    latent: LatentUse | None


def levels(network: tf.keras.Model, tasks: Sequence[str]) -> list[Level]:
    """The layers of gates in a network that `dlen_cam2.models.build` made, in the order of its layers.

    A layer of gates is a layer with `gate_weights` and `mixture`, see `dlen_cam2.layers.gates`.
    """
    found = []
    for layer in _gates(network):
        mixture = layer.mixture(tasks)
        found.append(Level(mixture.gates, mixture.experts, mixture.sees, layer.name))
    return found


class _GateWeights(tf.keras.layers.Layer):
    """A layer's gates as a layer of a functional model. Input: the same as that layer's. Output: (B, G, E)."""

    def __init__(self, gates: tf.keras.layers.Layer):
        super().__init__(name=f"{gates.name}_gate_weights", autocast=False)
        self.gates = gates

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.gates.gate_weights(inputs)


def probe(network: tf.keras.Model) -> tf.keras.Model | None:
    """A network with the same layers and weights that also returns "gate/LEVEL" (B, G, E) for each of `levels`.

    The result is None if there are no gates. `network` itself does not change.
    """
    found = {_GATE + layer.name: _GateWeights(layer)(layer.get_input_at(0)) for layer in _gates(network)}
    return functional(network.input, {**network.output, **found}, f"{network.name}_probe") if found else None


def _gates(network: tf.keras.Model) -> list[Any]:
    return [layer for layer in network.layers if hasattr(layer, "gate_weights")]


def _reader(network: tf.keras.Model, read_out: ReadOut) -> Callable[[Any], dict[str, tf.Tensor]]:
    """A function from the features of a batch to the measured quantities, as one graph.

    The means over rows are "weights/LEVEL" (G, E) and "entropy/LEVEL" (G,) of each level, and "mean/NAME" and
    "near/NAME" (T,) of the head's telemetry. For each row, there is "p_up" (B,).
    """
    model = probe(network) or network
    most = {
        level.name: np.log(np.maximum(level.sees.sum(axis=1), 2))
        for level in levels(network, read_out.schema.task_names)
    }

    @tf.function(autograph=False, reduce_retracing=True)
    def read(features: Any) -> dict[str, tf.Tensor]:
        values = model(features, training=False)
        measured: dict[str, tf.Tensor] = {}
        for name, log_n in most.items():
            g = tf.cast(values[_GATE + name], tf.float32)
            entropy = -tf.reduce_sum(tf.math.xlogy(g, g), axis=2) / log_n.astype(np.float32)
            measured[f"weights/{name}"] = tf.reduce_mean(g, axis=0)
            measured[f"entropy/{name}"] = tf.reduce_mean(entropy, axis=0)
        for name, share in read_out.head.telemetry(values, read_out.schema).items():
            near = tf.cast(share > NEAR, tf.float32)
            measured |= {f"mean/{name}": tf.reduce_mean(share, axis=0), f"near/{name}": tf.reduce_mean(near, axis=0)}
        preference = read_out.head.preference(values)
        return measured if preference is None else measured | {_P_UP: preference}

    return read


def inspect(
    network: tf.keras.Model, read_out: ReadOut, batches: Iterable[tuple[Any, Mapping[str, tf.Tensor]]]
) -> Inspection:
    """Measure gates, the head's telemetry and P(UP) over all rows.

    Args:
        network: the network that `dlen_cam2.models.build` returned, with any trunk and head.
        read_out: the interpretation of its outputs.
        batches: `(features, labels)` as `dlen_cam2.data.read` gives them, of any size.

    Raises:
        UserError: there are no rows.
    """
    read, schema = _reader(network, read_out), read_out.schema
    rows, parts, y, mask = [], [], [], []
    for features, labels in batches:
        batch_y, batch_mask = read_out.targets(labels)
        rows.append(len(batch_y))
        y.append(batch_y.numpy())
        mask.append(batch_mask.numpy())
        parts.append({name: t.numpy() for name, t in read(features).items()})
    if not sum(rows):
        raise UserError("there must be at least one row to inspect. Received: none.")

    def mean(name: str) -> np.ndarray:
        return np.average([part[name].astype(np.float64) for part in parts], axis=0, weights=rows)

    gates = tuple(
        GateUse(v, mean(f"weights/{v.name}"), mean(f"entropy/{v.name}")) for v in levels(network, schema.task_names)
    )
    telemetry = tuple(
        Telemetry(
            name, *read_out.head.captions[name], tuple(notes), tuple(notes.values()), mean(f"mean/{name}"),
            mean(f"near/{name}"),
        )
        for name, notes in read_out.head.notes(schema).items()
    )
    if _P_UP not in parts[0]:
        return Inspection(sum(rows), gates, telemetry, None)
    p_up, labels_of_rows = np.concatenate([part[_P_UP] for part in parts]), np.concatenate(y)
    shown = Predictions(labels_of_rows, np.concatenate(mask), labels_of_rows, p_up, {}, {}, {}, {})
    return Inspection(sum(rows), gates, telemetry, LatentUse(p_up, behaviours(shown, schema)))


class Watcher:
    """Computes what TensorBoard shows of a network on a batch. Its graph is built at the first call and kept.

    Args:
        network: the network that `dlen_cam2.models.build` returned.
        read_out: the interpretation of its outputs.
    """

    def __init__(self, network: tf.keras.Model, read_out: ReadOut):
        self.read_out = read_out
        self._levels = levels(network, read_out.schema.task_names)
        self._read = _reader(network, read_out)

    def __call__(self, features: Any) -> dict[str, tf.Tensor]:
        """The scalars, and "p_up" (B,) for a histogram.

        The scalars are `gate_entropy/LEVEL/GATE` and `expert_use/LEVEL/EXPERT` (see `GateUse`), and the means of the
        head's telemetry, `cap_use/TASK`. A shared bottom with a logistic head has none.
        """
        measured = {name: t.numpy() for name, t in self._read(features).items()}
        values: dict[str, tf.Tensor] = {}
        for level in self._levels:
            use = GateUse(level, measured[f"weights/{level.name}"], measured[f"entropy/{level.name}"])
            values |= _named(f"gate_entropy/{level.name}", level.gates, use.entropy)
            values |= _named(f"expert_use/{level.name}", level.experts, use.use)
        for name, notes in self.read_out.head.notes(self.read_out.schema).items():
            values |= _named(name, tuple(notes), measured[f"mean/{name}"])
        if _P_UP in measured:
            values[_P_UP] = tf.constant(measured[_P_UP])
        return values


def _named(prefix: str, names: Iterable[str], values: np.ndarray) -> dict[str, tf.Tensor]:
    return {f"{prefix}/{name}": tf.constant(v, tf.float32) for name, v in zip(names, values, strict=True)}
