"""python -m benchmarks.run --output=DIR: how fast we train the yardstick, beside the peers and the machine's limits.

The yardstick is MMOE and PLE on 5 tasks, 20 features with tables of 100,000 x 16, 10 numbers, batch 4096
(`benchmarks/yardstick.py`), in steady state on batches in memory. Every mode of ours and every peer trains in processes
of its own, which take turns, `--rounds` times; the products and the memory of the machine are measured in every round
too. Peers are installed into `--peers`/NAME on first use; one that cannot be is left out, with the reason.

Writes run.md (a table of each model), run.png and run.json (all figures) into DIR.
"""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
from absl import flags

from benchmarks.yardstick import MODELS, SIZES, Request
from dlen_cam2.utils import commands
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import staged, write_json
from dlen_cam2.utils.markdown import markdown

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

FLAGS = flags.FLAGS
ROOT = pathlib.Path(__file__).parent.parent
REPORT = "run.md"

# Modules of `benchmarks.contenders`, and what of the extra `peers` each needs.
PEERS = {
    "deepctr_tf": ("deepctr", "tensorflow", "tf_keras"), "torch_rechub": ("torch", "torch-rechub"),
    "deepctr_torch": ("torch", "deepctr-torch", "requests"),
}
# {mode: (fields of `TrainConfig`, variables of the environment)}. "side by side": a batch is cut into as many parts as
# there are cores, and an operation has one thread; XLA has threads of its own.
MODES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    f"{precision.removeprefix('mixed_')}{' XLA' * jit}{f' x{steps}' * (steps > 1)}{' side by side' * cut}": (
        {"precision": precision, "jit": jit, "steps_per_execution": steps,
         "microbatches": os.cpu_count() if cut else 1},
        {"TF_NUM_INTRAOP_THREADS": "1"} if cut else {},
    )
    for precision in ("float32", "mixed_bfloat16") for jit in (False, True) for steps in (1, 32)
    for cut in (False, True) if not (jit and cut)
}


@dataclasses.dataclass(frozen=True)
class Contender:
    """Who trains: a module of `benchmarks.contenders` under a Python, with options and variables of the environment."""

    name: str
    module: str
    python: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def ours(self) -> bool:
        return self.module == "ours"


def define_flags() -> None:
    flags.DEFINE_string("output", None, "Directory for run.md, run.png, run.json.", required=True)
    flags.DEFINE_enum("size", "yardstick", list(SIZES), "The yardstick, or a quick one to try.")
    flags.DEFINE_list("models", list(MODELS), "Of mmoe and ple.")
    flags.DEFINE_list("modes", list(MODES), "Ours.")
    flags.DEFINE_list("contend", list(PEERS), "Peers; empty: none.")
    flags.DEFINE_string("peers", ".peers", "Directory of the peers' environments.")
    flags.DEFINE_integer("rounds", 3, "Processes of each contender.", lower_bound=1)
    flags.DEFINE_float("seconds", 10.0, "Timed in each, after its warm-up.", lower_bound=0.1)


def installed(peer: str, home: pathlib.Path) -> str:
    """The Python of the peer's environment, made if it is not there yet.

    Raises:
        UserError: it cannot be installed.
    """
    python, done = home / peer / "bin" / "python", home / peer / "installed"
    if done.exists():
        return str(python)
    extra = [r for r in importlib.metadata.requires("dlen_cam2") or [] if re.search("extra == .peers.", r)]
    wanted = [
        r.partition(";")[0] for r in extra
        if re.split("[<>=!~ ]", r)[0].replace("_", "-") in {name.replace("_", "-") for name in PEERS[peer]}
    ]
    print(f"installing {' '.join(wanted)} into {home / peer}", flush=True)
    for command in ([sys.executable, "-m", "venv", str(home / peer)], [str(python), "-m", "pip", "install", *wanted]):
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode:
            raise UserError(f"{peer} cannot be installed. Received: {_last(ended.stderr)}")
    done.touch()
    return str(python)


def train(contender: Contender, model: str) -> dict[str, float]:
    """What a process of the contender measured. Raises `UserError` if it fails."""
    request = Request(model, FLAGS.size, FLAGS.seconds, dict(contender.options))
    module = f"benchmarks.contenders.{contender.module}"
    return child(contender.python, module, json.dumps(dataclasses.asdict(request)), **contender.environment)


def child(python: str, module: str, *arguments: str, **variables: str) -> dict[str, float]:
    """What a module prints as its last line, JSON. Raises `UserError` if it fails."""
    # DeepCTR is of Keras 2, too; and oneDNN is on for all, as `dlen_cam2` has it.
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1", "TF_ENABLE_ONEDNN_OPTS": "1"
    } | variables
    ended = subprocess.run([python, "-m", module, *arguments], env=environment, capture_output=True, text=True)
    if ended.returncode:
        raise UserError(f"{module} failed. Received: {_last(ended.stderr)}")
    return json.loads(ended.stdout.splitlines()[-1])


def _last(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "nothing")


Found = dict[str, dict[str, list[dict[str, float]]]]


def measured(contenders: Sequence[Contender]) -> tuple[Found, list[dict[str, float]], dict[str, str]]:
    """By model and contender a measurement of each round; the machine's limits of each round; who failed, and why."""
    found: Found = {model: {} for model in FLAGS.models}
    limits: list[dict[str, float]] = []
    failed: dict[str, str] = {}
    for turn in range(FLAGS.rounds):
        for model in FLAGS.models:
            limits.append(child(sys.executable, "benchmarks.ceilings"))
            for contender in contenders:
                key = f"{contender.name}, {model}"
                if key in failed:
                    continue
                try:
                    figures = train(contender, model)
                except UserError as error:
                    failed[key] = str(error)
                    continue
                found[model].setdefault(contender.name, []).append(figures)
                speed = f"{figures['rows_per_second']:,.0f} rows/s"
                print(f"round {turn + 1} of {FLAGS.rounds}, {key}: {speed}", flush=True)
    return found, limits, failed


def median(figures: Sequence[Mapping[str, float]], name: str) -> float:
    return statistics.median(f[name] for f in figures)


def table(
    model: str, found: Mapping[str, list[dict[str, float]]], limits: Sequence[Mapping[str, float]],
    contenders: Sequence[Contender],
) -> Iterator[list[str]]:
    """A row for each contender, the fastest first."""
    flop = SIZES[FLAGS.size].flop(model)
    speed = {name: median(figures, "rows_per_second") for name, figures in found.items()}
    peers = [speed[c.name] for c in contenders if not c.ours and c.name in speed]
    for contender in sorted((c for c in contenders if c.name in speed), key=lambda c: -speed[c.name]):
        figures = found[contender.name]
        each = [f["rows_per_second"] for f in figures]
        kind = "bfloat16" if contender.name.startswith("ours, bfloat16") else "float32"
        yield [
            contender.name, f"{speed[contender.name]:,.0f}", f"{min(each):,.0f} to {max(each):,.0f}",
            f"{speed[contender.name] / max(peers):.2f}" if peers else "",
            f"{speed[contender.name] * flop / 1e9:.0f}", f"{speed[contender.name] * flop / median(limits, kind):.0%}",
            f"{median(figures, 'peak_bytes') / 2**30:.2f}",
        ]


def draw(path: pathlib.Path, found: Found, limits: Sequence[Mapping[str, float]]) -> None:
    """Rows a second of each contender, a panel a model; dotted, what the machine's products allow."""
    figure, panels = plt.subplots(1, len(found), figsize=(6.5 * len(found), 4.5), squeeze=False, layout="constrained")
    for panel, (model, contenders) in zip(panels[0], found.items(), strict=True):
        speed = {name: median(figures, "rows_per_second") for name, figures in contenders.items()}
        for place, name in enumerate(sorted(speed, key=lambda name: speed[name])):
            each = [f["rows_per_second"] for f in contenders[name]]
            panel.barh(place, speed[name], color="C0" if name.startswith("ours") else "C7")
            panel.plot([min(each), max(each)], [place, place], color="black", linewidth=1)
            panel.text(0, place, f" {name}", va="center", fontsize=8, color="white")
        for kind, colour in (("float32", "C1"), ("bfloat16", "C3")):
            panel.axvline(median(limits, kind) / SIZES[FLAGS.size].flop(model), color=colour, linestyle=":",
                          label=f"limit of {kind} products")
        panel.set(title=model, xlabel="rows a second", yticks=[])
        panel.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    for name, values, known in (("models", FLAGS.models, MODELS), ("modes", FLAGS.modes, MODES),
                                ("contend", FLAGS.contend, PEERS)):
        if unknown := [value for value in values if value not in known]:
            raise UserError(f"--{name} must be of {list(known)}. Received: {unknown}.")
    contenders = [Contender(f"ours, {mode}", "ours", sys.executable, *MODES[mode]) for mode in FLAGS.modes]
    skipped = {}
    for peer in FLAGS.contend:
        try:
            contenders.append(Contender(peer, peer, installed(peer, pathlib.Path(FLAGS.peers).resolve())))
        except UserError as error:
            skipped[peer] = str(error)
    found, limits, failed = measured(contenders)
    head = ["", "rows/s", "range", "to the fastest peer", "GFLOP/s", "of the products' limit", "peak GiB"]
    text = [
        f"# The {FLAGS.size}\n\n{dataclasses.asdict(SIZES[FLAGS.size])}\n\nMedian of {FLAGS.rounds} processes, by "
        f"turns. The machine in the same run (median, range): "
        + "; ".join(
            f"{kind} products {median(limits, kind) / 1e9:.0f} GFLOP/s ({min(m[kind] for m in limits) / 1e9:.0f} to "
            f"{max(m[kind] for m in limits) / 1e9:.0f})" for kind in ("float32", "bfloat16")
        ) + f"; memory {median(limits, 'bandwidth') / 1e9:.1f} GB/s."
    ]
    for model in FLAGS.models:
        text.append(f"## {model}, {SIZES[FLAGS.size].flop(model) / 1e6:.1f} MFLOP a row\n\n"
                    f"{markdown(head, table(model, found[model], limits, contenders))}")
    text += [f"Left out: {name}: {reason}" for name, reason in (skipped | failed).items()]
    with staged(FLAGS.output, REPORT) as stage:
        draw(stage / "run.png", found, limits)
        write_json(stage / "run.json", {"found": found, "limits": limits, "left out": skipped | failed})
        (stage / REPORT).write_text("\n\n".join([*text, "![](run.png)"]) + "\n", encoding="utf-8")
    print("\n\n".join(text))


if __name__ == "__main__":
    commands.run(main, define_flags)
