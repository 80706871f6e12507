"""Tables and pictures of the introspection of a trained network."""

import pathlib
from collections.abc import Sequence

import numpy as np

from dlen_cam2.evaluation.introspection import BINS, DEAD, NEAR, GateUse, Inspection, LatentUse, Telemetry
from dlen_cam2.utils.markdown import markdown

GATES_PICTURE = "gates.png"
LATENT_PICTURE = "latent.png"


def tables(inspection: Inspection) -> str:
    """Markdown tables of everything that was measured."""
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
            f"## Gates: {level.name}\n\nThe cells are the mean weight of each expert over {inspection.rows:,} rows. An "
            "empty cell is an expert that the gate does not see. The entropy is 0 if each row uses one expert, and 1 "
            "if it uses all experts equally. Use is the mean over the gates that see the expert.\n\n"
            f"{markdown(['gate', *level.experts, 'entropy'], lines)}\n\n"
            f"Dead experts (below {DEAD:.0%} for every gate): {dead}.\n"
        )
    for shown in inspection.telemetry:
        lines = [
            [task, note, f"{mean:.3f}", f"{near:.1%}"]
            for task, note, mean, near in zip(shown.tasks, shown.notes, shown.mean, shown.near, strict=True)
        ]
        parts.append(
            f"## {shown.title}\n\n{shown.caption}\n\n"
            + markdown(["task", "", "mean", f"rows above {NEAR:g}"], lines) + "\n"
        )
    if inspection.latent:
        latent = inspection.latent
        groups = latent.by_behaviours.items()
        edges = np.linspace(0, 1, BINS + 1)
        bins = zip(edges[:-1], edges[1:], latent.histogram, strict=True)
        parts.append(
            f"## P(UP)\n\nThe mean is {latent.p_up.mean(dtype=np.float64):.4f} over {inspection.rows:,} rows. P(UP) "
            "has no label. It should rise with the number of positive behaviours, which is a necessary sign of "
            "convergence but not a sufficient one.\n\n"
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
    """Draw the measurements into `directory` and return the names of the pictures."""
    drawn = []
    if inspection.gates:
        _draw_gates(directory / GATES_PICTURE, inspection.gates)
        drawn.append(GATES_PICTURE)
    if inspection.latent:
        _draw_latent(directory / LATENT_PICTURE, inspection.telemetry, inspection.latent)
        drawn.append(LATENT_PICTURE)
    return drawn


def _draw_gates(path: pathlib.Path, gates: tuple[GateUse, ...]) -> None:
    """Draw a row for each level: the mean weights as a heat map, and as bars in which a gate's weights add up to 1."""
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


def _draw_latent(path: pathlib.Path, telemetry: Sequence[Telemetry], latent: LatentUse) -> None:
    """Draw P(UP) as a histogram and by positive behaviours, and the head's telemetry for each task."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2 + 4.6 * len(telemetry), 4.2), layout="constrained")
    histogram, boxes, *bars = figure.subplots(1, 2 + len(telemetry))
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

    for axis, shown in zip(bars, telemetry, strict=True):
        x = np.arange(len(shown.tasks))
        for shift, values, label in ((-0.2, shown.mean, "mean"), (0.2, shown.near, f"share of rows above {NEAR:g}")):
            axis.bar_label(axis.bar(x + shift, values, 0.4, label=label), fmt="%.2f", fontsize=7)
        names = [f"{task}\n({note})" for task, note in zip(shown.tasks, shown.notes, strict=True)]
        axis.set_xticks(x, names, rotation=30, ha="right", rotation_mode="anchor", fontsize=8)
        axis.set(ylim=(0, 1.2), yticks=np.linspace(0, 1, 6))
        axis.set_title(shown.title, fontsize=10)
        axis.legend(fontsize=8, loc="upper center", ncols=2)
    figure.savefig(path, dpi=110)
