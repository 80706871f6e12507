"""What a trained network does inside: which experts the gates listen to, how near DLEN's caps are, where P(UP) lies."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2.evaluation import Predictions, behaviours
from dlen_cam2.layers import Embeddings, Gates
from dlen_cam2.models import functional
from dlen_cam2.models.heads.dlen import CappedHead
from dlen_cam2.models.losses import targets
from dlen_cam2.models.trunks.cgc import CGC
from dlen_cam2.schema import Schema
from dlen_cam2.utils.errors import UserError

# An expert is dead if every gate that sees it gives it less than this on average.
DEAD = 0.01
# A row is near its cap where b/α is above this.
NEAR = 0.9
BINS = 20
_SHARED = "shared"
_GATE = "gate/"


@dataclasses.dataclass(frozen=True)
class Level:
    """One layer of gates: MMOE's, or one extraction layer of CGC or PLE.

    Attributes:
        name: of the layer: "gates", "cgc_1".
        gates: G names: the tasks, then "shared" where the layer has a shared gate.
        experts: E names: MMOE "expert 1"; CGC "click 1" for a task's own and "shared 1".
        sees: (G, E), which experts each gate weighs.
    """

    name: str
    gates: tuple[str, ...]
    experts: tuple[str, ...]
    sees: np.ndarray


@dataclasses.dataclass(frozen=True)
class GateUse:
    """Means over rows of a level's gates g = softmax(W x).

    Attributes:
        level: what the gates and experts are.
        weights: (G, E), mean g_i; each row sums to 1, and is 0 where a gate does not see an expert.
        entropy: (G,), the mean of `-Σ_i g_i log g_i / log n` with n the experts that the gate sees. 0: each row listens
            to one expert, which may be another one for each row; 1: to all alike. 0 where n = 1.
    """

    level: Level
    weights: np.ndarray
    entropy: np.ndarray

    @property
    def use(self) -> np.ndarray:
        """(E,): each expert's mean weight over the gates that see it."""
        return self.weights.sum(axis=0) / self.level.sees.sum(axis=0)

    @property
    def dead(self) -> list[str]:
        """The experts to which no gate gives `DEAD` on average."""
        return [e for e, most in zip(self.level.experts, self.weights.max(axis=0), strict=True) if most < DEAD]


@dataclasses.dataclass(frozen=True)
class CapUse:
    """How near DLEN's b_k = P(k|¬UP) = α_k σ(·) comes to its cap α_k, by task.

    Attributes:
        tasks, alphas: names and caps; a task with α = 1 has none.
        mean: (T,), mean of b/α.
        near: (T,), share of rows with b/α > `NEAR`.
    """

    tasks: tuple[str, ...]
    alphas: tuple[float, ...]
    mean: np.ndarray
    near: np.ndarray


@dataclasses.dataclass(frozen=True)
class LatentUse:
    """P(UP) of every row.

    Attributes:
        p_up: (N,).
        behaviours: (N,), positive behaviours of the row, see `evaluation.behaviours`.
    """

    p_up: np.ndarray
    behaviours: np.ndarray

    @property
    def histogram(self) -> np.ndarray:
        """(BINS,): rows by P(UP), in equal steps from 0 to 1."""
        return np.histogram(self.p_up, BINS, (0.0, 1.0))[0]

    @property
    def by_behaviours(self) -> dict[int, np.ndarray]:
        """{number of positive behaviours: P(UP) of the rows that have it}."""
        return {int(count): self.p_up[self.behaviours == count] for count in np.unique(self.behaviours)}


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What `inspect` finds; a shared bottom has no `gates`, a plain head has neither `caps` nor `latent`."""

    rows: int
    gates: tuple[GateUse, ...]
    caps: CapUse | None
    latent: LatentUse | None


def levels(network: tf.keras.Model) -> list[Level]:
    """The layers of gates of a network that `dlen_cam2.models.build` made, in the order of its layers."""
    tasks = _task_names(network)
    found = []
    for layer in _layers(network, Gates, CGC):
        if isinstance(layer, Gates):
            experts = tuple(f"expert {i + 1}" for i in range(layer.experts))
            found.append(Level(layer.name, tasks, experts, np.ones((layer.count, layer.experts), bool)))
            continue
        counts = [layer.task_experts] * len(tasks) + [layer.shared_experts]
        experts = tuple(
            f"{owner} {i + 1}" for owner, count in zip((*tasks, _SHARED), counts, strict=True) for i in range(count)
        )
        gates = tasks if layer.last else (*tasks, _SHARED)
        gate, owner = np.arange(len(gates))[:, None], np.repeat(np.arange(len(counts)), counts)
        sees = (owner == gate) | (owner == len(tasks)) | (gate == len(tasks))
        found.append(Level(layer.name, gates, experts, sees))
    return found


class _GateWeights(tf.keras.layers.Layer):
    """A CGC's gates as a layer of a functional model. Input: the CGC's. Output: (B, G, E)."""

    def __init__(self, cgc: CGC):
        super().__init__(name=f"{cgc.name}_gate_weights", autocast=False)
        self.cgc = cgc

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.cgc.gate_weights(inputs)


def probe(network: tf.keras.Model) -> tf.keras.Model | None:
    """The network, with its own layers and weights, that also returns "gate/LEVEL" (B, G, E) for each of `levels`.

    None where there are no gates. Nothing of `network` changes.
    """
    found = {}
    for layer in _layers(network, Gates, CGC):
        x = layer.get_input_at(0)
        found[_GATE + layer.name] = _GateWeights(layer)(x) if isinstance(layer, CGC) else layer.get_output_at(0)
    return functional(network.input, {**network.output, **found}, f"{network.name}_probe") if found else None


def _task_names(network: tf.keras.Model) -> tuple[str, ...]:
    return tuple(_layers(network, Embeddings)[0].schema.task_names)


def _layers(network: tf.keras.Model, *types: type) -> list[Any]:
    return [layer for layer in network.layers if isinstance(layer, types)]


def _reader(network: tf.keras.Model) -> Callable[[Any], dict[str, tf.Tensor]]:
    """From the features of a batch to what is measured of it, as a graph of just the layers that this needs.

    Means over rows: of each level "weights/LEVEL" (G, E) and "entropy/LEVEL" (G,); for DLEN "cap_use" and "cap_near"
    (T,). Of each row: "p_up" (B,).
    """
    outputs = (probe(network) or network).output
    wanted = {n: t for n, t in outputs.items() if n.startswith(_GATE) or n in ("latent", "not_preferred")}
    if not wanted:
        return lambda features: {}
    model = functional(network.input, wanted, "inspection")
    most = {level.name: np.log(np.maximum(level.sees.sum(axis=1), 2)) for level in levels(network)}
    log_alphas = [np.log(np.float32(head.alphas)) for head in _layers(network, CappedHead)]

    @tf.function(autograph=False, reduce_retracing=True)
    def read(features: Any) -> dict[str, tf.Tensor]:
        values = model(features, training=False)
        measured: dict[str, tf.Tensor] = {}
        for name, log_n in most.items():
            g = tf.cast(values[_GATE + name], tf.float32)
            entropy = -tf.reduce_sum(tf.math.xlogy(g, g), axis=2) / log_n.astype(np.float32)
            measured[f"weights/{name}"] = tf.reduce_mean(g, axis=0)
            measured[f"entropy/{name}"] = tf.reduce_mean(entropy, axis=0)
        for log_alpha in log_alphas:
            share = tf.exp(values["not_preferred"] - log_alpha)
            near = tf.cast(share > NEAR, tf.float32)
            measured |= {"cap_use": tf.reduce_mean(share, axis=0), "cap_near": tf.reduce_mean(near, axis=0)}
            measured["p_up"] = tf.sigmoid(values["latent"][:, 0])
        return measured

    return read


def inspect(
    network: tf.keras.Model, schema: Schema, batches: Iterable[tuple[Any, Mapping[str, tf.Tensor]]]
) -> Inspection:
    """Measure gates, caps and P(UP) over all rows.

    Args:
        network: what `dlen_cam2.models.build` returns, of any trunk and head.
        schema: the tasks, in the order of the network's logits.
        batches: `(features, labels)` as `dlen_cam2.data.read` gives them, of any sizes.

    Raises:
        UserError: there are no rows.
    """
    read = _reader(network)
    rows, parts, y, mask = [], [], [], []
    for features, labels in batches:
        batch_y, batch_mask = targets(labels, schema)
        rows.append(len(batch_y))
        y.append(batch_y.numpy())
        mask.append(batch_mask.numpy())
        parts.append({name: t.numpy() for name, t in read(features).items()})
    if not sum(rows):
        raise UserError("there must be at least one row to inspect. Received: none.")

    def mean(name: str) -> np.ndarray:
        return np.average([part[name].astype(np.float64) for part in parts], axis=0, weights=rows)

    gates = tuple(GateUse(v, mean(f"weights/{v.name}"), mean(f"entropy/{v.name}")) for v in levels(network))
    heads = _layers(network, CappedHead)
    if not heads:
        return Inspection(sum(rows), gates, None, None)
    p_up, labels_of_rows = np.concatenate([part["p_up"] for part in parts]), np.concatenate(y)
    shown = Predictions(labels_of_rows, np.concatenate(mask), labels_of_rows, p_up, {}, {}, {}, {})
    caps = CapUse(schema.task_names, heads[0].alphas, mean("cap_use"), mean("cap_near"))
    return Inspection(sum(rows), gates, caps, LatentUse(p_up, behaviours(shown, schema)))


def summaries(network: tf.keras.Model, features: Any) -> dict[str, tf.Tensor]:
    """What TensorBoard shows of one batch: scalars, and "p_up" (B,) for a histogram.

    `gate_entropy/LEVEL/GATE` and `expert_use/LEVEL/EXPERT` (see `GateUse`), `cap_use/TASK` (mean of b/α). Nothing for
    a shared bottom with a plain head. The graph is built at the first call for a network and kept for the next ones.
    """
    found, read = _watcher(network)
    measured = {name: t.numpy() for name, t in read(features).items()}
    values: dict[str, tf.Tensor] = {}
    for level in found:
        use = GateUse(level, measured[f"weights/{level.name}"], measured[f"entropy/{level.name}"])
        values |= _named(f"gate_entropy/{level.name}", level.gates, use.entropy)
        values |= _named(f"expert_use/{level.name}", level.experts, use.use)
    if "p_up" in measured:
        values |= _named("cap_use", _task_names(network), measured["cap_use"])
        values["p_up"] = tf.constant(measured["p_up"])
    return values


@functools.lru_cache(maxsize=1)
def _watcher(network: tf.keras.Model) -> tuple[list[Level], Callable[[Any], dict[str, tf.Tensor]]]:
    return levels(network), _reader(network)


def _named(prefix: str, names: Iterable[str], values: np.ndarray) -> dict[str, tf.Tensor]:
    return {f"{prefix}/{name}": tf.constant(v, tf.float32) for name, v in zip(names, values, strict=True)}
