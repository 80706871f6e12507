"""python -m benchmarks.curves --output=DIR: how our speed changes with vocabulary, batch, tasks, experts.

From the yardstick (`benchmarks/yardstick.py`) one size is changed at a time; every point is the median of `--rounds`
processes, which take turns. The vocabulary's curve has 4 tables in place of 20, so that those of 10M rows fit into
memory. Then, scoring: p50 and p99 of a batch of 500 rows through the network.

Writes curves.md, curves.png and curves.json (all figures) into DIR.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import matplotlib
from absl import flags

from benchmarks.run import child, median
from benchmarks.yardstick import MODELS, SIZES, Request
from dlen_cam2.utils import commands
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import staged, write_json
from dlen_cam2.utils.markdown import markdown

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

FLAGS = flags.FLAGS
REPORT = "curves.md"

# What changes, its values, and what is other than the yardstick's on the whole curve.
CURVES: dict[str, tuple[Sequence[int], dict[str, Any]]] = {
    "vocabulary": ((10_000, 100_000, 1_000_000, 10_000_000), {"sparse": 4}),
    "batch": ((256, 1024, 4096, 16384), {}),
    "tasks": ((1, 2, 5, 10, 20), {}),
    "experts": ((1, 2, 5, 10, 20), {}),
}
SCORED = 500

Point = tuple[str, str, int]  # model, curve, value


def define_flags() -> None:
    flags.DEFINE_string("output", None, "Directory for curves.md, curves.png, curves.json.", required=True)
    flags.DEFINE_enum("size", "yardstick", list(SIZES), "The yardstick, or a quick one to try.")
    flags.DEFINE_list("models", ["mmoe"], "Of mmoe and ple.")
    flags.DEFINE_list("curves", list(CURVES), "Which curves.")
    flags.DEFINE_integer("rounds", 3, "Processes for each point, by turns.", lower_bound=1)
    flags.DEFINE_float("seconds", 5.0, "Timed in each, after its warm-up.", lower_bound=0.1)


def request(model: str, changes: dict[str, Any]) -> str:
    return json.dumps(dataclasses.asdict(Request(model, FLAGS.size, FLAGS.seconds, changes=changes)))


def table(name: str, model: str, found: dict[Point, list[dict[str, float]]]) -> str:
    """A row for each value of the curve."""
    values, others = CURVES[name]
    speeds = {value: median(found[model, name, value], "rows_per_second") for value in values}
    rows = []
    for value in values:
        size = dataclasses.replace(SIZES[FLAGS.size], **others, **{name: value})
        each = [f["rows_per_second"] for f in found[model, name, value]]
        rows.append([
            f"{value:,}", f"{speeds[value]:,.0f}", f"{min(each):,.0f} to {max(each):,.0f}",
            f"{1e3 * size.batch / speeds[value]:.1f}", f"{speeds[value] / speeds[values[0]]:.2f}",
            f"{size.flop(model) / 1e6:.1f}", f"{speeds[value] * size.flop(model) / 1e9:.0f}",
            f"{median(found[model, name, value], 'peak_bytes') / 2**30:.2f}",
        ])
    head = [name, "rows/s", "range", "ms a step", "to the first", "MFLOP a row", "GFLOP/s", "peak GiB"]
    return markdown(head, rows)


def draw(path: pathlib.Path, found: dict[Point, list[dict[str, float]]]) -> None:
    """Rows a second along each curve, a panel each, a line for each model."""
    figure, panels = plt.subplots(1, len(FLAGS.curves), figsize=(4.2 * len(FLAGS.curves), 3.6), squeeze=False,
                                  layout="constrained")
    for panel, name in zip(panels[0], FLAGS.curves, strict=True):
        for model in FLAGS.models:
            values = CURVES[name][0]
            each = [[f["rows_per_second"] for f in found[model, name, value]] for value in values]
            speeds = [median(found[model, name, value], "rows_per_second") for value in values]
            panel.plot(values, speeds, marker="o", label=model)
            panel.fill_between(values, [min(e) for e in each], [max(e) for e in each], alpha=0.2)
        panel.set(title=name, xlabel=name, xscale="log", ylim=(0, None), xticks=values)
        panel.set_xticklabels([f"{value:g}" for value in values])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("rows a second")
    panels[0][0].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    for flag, values, known in (("models", FLAGS.models, MODELS), ("curves", FLAGS.curves, CURVES)):
        if unknown := [value for value in values if value not in known]:
            raise UserError(f"--{flag} must be of {list(known)}. Received: {unknown}.")
    found: dict[Point, list[dict[str, float]]] = {}
    scored: dict[str, list[dict[str, float]]] = {}
    for turn in range(FLAGS.rounds):
        for model in FLAGS.models:
            for name in FLAGS.curves:
                for value in CURVES[name][0]:
                    wanted = request(model, CURVES[name][1] | {name: value})
                    figures = child(sys.executable, "benchmarks.contenders.ours", wanted)
                    found.setdefault((model, name, value), []).append(figures)
                    print(f"round {turn + 1} of {FLAGS.rounds}, {model}, {name} {value:,}: "
                          f"{figures['rows_per_second']:,.0f} rows/s", flush=True)
            figures = child(sys.executable, "benchmarks.latency", request(model, {"batch": SCORED}))
            scored.setdefault(model, []).append(figures)
    text = [f"# Curves around the {FLAGS.size}\n\nMedian of {FLAGS.rounds} processes, by turns."]
    text += [f"## {model}: {name}\n\n{table(name, model, found)}" for model in FLAGS.models for name in FLAGS.curves]
    rows = [[model, *(f"{median(scored[model], name):.1f}" for name in ("p50", "p99"))] for model in FLAGS.models]
    text.append(f"## Scoring {SCORED} rows, milliseconds\n\n{markdown(['', 'p50', 'p99'], rows)}")
    with staged(FLAGS.output, REPORT) as stage:
        draw(stage / "curves.png", found)
        plain = {" ".join(map(str, point)): figures for point, figures in found.items()}
        write_json(stage / "curves.json", {"trained": plain, "scored": scored})
        (stage / REPORT).write_text("\n\n".join([*text, "![](curves.png)"]) + "\n", encoding="utf-8")
    print("\n\n".join(text))


if __name__ == "__main__":
    commands.run(main, define_flags)
