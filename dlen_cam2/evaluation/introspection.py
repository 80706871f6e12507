"""What a trained network does inside: which experts the gates listen to, how near DLEN's caps are, where P(UP) lies."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2.evaluation import Predictions, behaviours
from dlen_cam2.layers import CGC, CappedHead, Embeddings, Gates
from dlen_cam2.models import functional
from dlen_cam2.models.losses import targets
from dlen_cam2.schema import Schema
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.markdown import markdown

GATES_PICTURE = "gates.png"
LATENT_PICTURE = "latent.png"
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


def tables(inspection: Inspection) -> str:
    """Everything that was measured, as markdown."""
    parts = []
    for found in inspection.gates:
        level = found.level
        lines = [
            [gate, *(f"{w:.3f}" if seen else "" for w, seen in zip(weights, sees, strict=True)), f"{entropy:.3f}"]
            for gate, weights, sees, entropy in zip(level.gates, found.weights, level.sees, found.entropy, strict=True)
        ]
        lines.append(["use", *(f"{u:.3f}" for u in found.use), ""])
        dead = ", ".join(found.dead) or "none"
        parts.append(
            f"## Gates: {level.name}\n\nMean weight of each expert over {inspection.rows:,} rows; a gate does not see "
            "the experts of empty cells. Entropy: 0 where each row listens to one expert, 1 where it listens to all "
            "alike. Use: the mean over the gates that see the expert.\n\n"
            f"{markdown(['gate', *level.experts, 'entropy'], lines)}\n\n"
            f"Dead experts (below {DEAD:.0%} for every gate): {dead}.\n"
        )
    if inspection.caps:
        caps = inspection.caps
        lines = [
            [task, f"{alpha:.4g}" if alpha < 1 else "1 (no cap)", f"{mean:.3f}", f"{near:.1%}"]
            for task, alpha, mean, near in zip(caps.tasks, caps.alphas, caps.mean, caps.near, strict=True)
        ]
        parts.append(
            "## Cap use\n\nb = P(k|¬UP) is at most the cap α (eq 10): near 1, the cap holds the task down.\n\n"
            + markdown(["task", "α", "mean b/α", f"rows with b/α > {NEAR:g}"], lines) + "\n"
        )
    if inspection.latent:
        latent = inspection.latent
        groups = latent.by_behaviours.items()
        edges = np.linspace(0, 1, BINS + 1)
        bins = zip(edges[:-1], edges[1:], latent.histogram, strict=True)
        parts.append(
            f"## P(UP)\n\nMean {latent.p_up.mean(dtype=np.float64):.4f} over {inspection.rows:,} rows. P(UP) has no "
            "label: that it rises with the number of positive behaviours is a necessary sign of convergence and not a "
            "sufficient one.\n\n"
            + markdown(
                ["positive behaviours", "rows", "mean P(UP)"],
                [[str(count), f"{len(p):,}", f"{p.mean(dtype=np.float64):.4f}"] for count, p in groups],
            ) + "\n\n"
            + markdown(
                ["P(UP)", "rows", "share"],
                [[f"{a:.2f} to {b:.2f}", f"{n:,}", f"{n / inspection.rows:.1%}"] for a, b, n in bins],
            ) + "\n"
        )
    return "\n".join(parts) or "This model has no gates and no latent state: there is nothing to inspect.\n"


def draw(directory: pathlib.Path, inspection: Inspection) -> list[str]:
    """Draw what was measured into `directory`; return the pictures' names."""
    drawn = []
    if inspection.gates:
        _draw_gates(directory / GATES_PICTURE, inspection.gates)
        drawn.append(GATES_PICTURE)
    if inspection.caps and inspection.latent:
        _draw_latent(directory / LATENT_PICTURE, inspection.caps, inspection.latent)
        drawn.append(LATENT_PICTURE)
    return drawn


def _draw_gates(path: pathlib.Path, gates: tuple[GateUse, ...]) -> None:
    """A row for each level: the mean weights as a heat map, and as bars in which each gate's weights add up to 1."""
    from matplotlib import color_sequences
    from matplotlib.figure import Figure

    cells = max(len(found.level.experts) for found in gates)
    bars = max(len(found.level.gates) for found in gates)
    width = max(4.2, 0.5 * cells + 1.6)
    figure = Figure(figsize=(width + 6.2, len(gates) * max(2.8, 0.42 * bars + 1.5)), layout="constrained")
    rows = figure.subplots(len(gates), 2, squeeze=False, width_ratios=[width, 6.2])
    for (heat, bar), found in zip(rows, gates, strict=True):
        level, y = found.level, np.arange(len(found.level.gates))
        names = [e + " (dead)" if e in found.dead else e for e in level.experts]
        heat.imshow(np.ma.masked_array(found.weights, ~level.sees), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        heat.set_facecolor("0.9")
        for gate, expert in zip(*np.nonzero(level.sees), strict=True):
            weight = found.weights[gate, expert]
            heat.text(expert, gate, f"{weight:.2f}".removeprefix("0"), ha="center", va="center", fontsize=7,
                      color="white" if weight > 0.6 else "black")
        heat.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
        labels = [f"{gate} (entropy {h:.2f})" for gate, h in zip(level.gates, found.entropy, strict=True)]
        heat.set_yticks(y, labels, fontsize=8)
        heat.set_title(f"{level.name}: mean weight" + ("" if level.sees.all() else " (grey: not seen)"), fontsize=10)

        colors = color_sequences["tab10" if len(names) <= 10 else "tab20"]
        left = np.zeros(len(y))
        for expert, name in enumerate(names):
            # More experts than colours: the next round is hatched.
            bar.barh(y, found.weights[:, expert], left=left, label=name, color=colors[expert % len(colors)],
                     edgecolor="white", linewidth=0.5, hatch="///" if expert >= len(colors) else None)
            left += found.weights[:, expert]
        bar.set_yticks(y, level.gates, fontsize=8)
        bar.invert_yaxis()
        bar.set(xlim=(0, 1), xlabel="mean weight")
        bar.set_title(f"{level.name}: expert use by task", fontsize=10)
        bar.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), ncols=1 + len(names) // 12)
    figure.savefig(path, dpi=110)


def _draw_latent(path: pathlib.Path, caps: CapUse, latent: LatentUse) -> None:
    """P(UP) as a histogram and by positive behaviours, and how near each task is to its cap."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.8, 4.2), layout="constrained")
    histogram, boxes, bars = figure.subplots(1, 3)
    histogram.stairs(latent.histogram / len(latent.p_up), np.linspace(0, 1, BINS + 1), fill=True)
    histogram.axvline(latent.p_up.mean(), color="C1", linewidth=1, label=f"mean {latent.p_up.mean():.3f}")
    histogram.set(xlabel="P(UP)", ylabel="share of rows", xlim=(0, 1))
    histogram.set_title("P(UP) of all rows", fontsize=10)
    histogram.legend(fontsize=8)

    groups = latent.by_behaviours
    boxes.boxplot(list(groups.values()), showfliers=False, showmeans=True, medianprops={"color": "C1"},
                  meanprops={"marker": "o", "markersize": 4, "markerfacecolor": "C0", "markeredgecolor": "C0"})
    boxes.set_xticks(range(1, len(groups) + 1), [f"{c}\nn={len(p):,}" for c, p in groups.items()], fontsize=7)
    boxes.set(xlabel="positive behaviours of the row", ylabel="P(UP)", ylim=(0, 1))
    boxes.set_title("P(UP) by positive behaviours (line: median, point: mean)", fontsize=10)

    x = np.arange(len(caps.tasks))
    for shift, values, label in ((-0.2, caps.mean, "mean b/α"), (0.2, caps.near, f"share of rows with b/α > {NEAR:g}")):
        bars.bar_label(bars.bar(x + shift, values, 0.4, label=label), fmt="%.2f", fontsize=7)
    names = [t if a < 1 else f"{t}\n(no cap)" for t, a in zip(caps.tasks, caps.alphas, strict=True)]
    bars.set_xticks(x, names, rotation=30, ha="right", rotation_mode="anchor", fontsize=8)
    bars.set(ylim=(0, 1.2), yticks=np.linspace(0, 1, 6))
    bars.set_title("Cap use: P(k|¬UP) over its cap α", fontsize=10)
    bars.legend(fontsize=8, loc="upper center", ncols=2)
    figure.savefig(path, dpi=110)
