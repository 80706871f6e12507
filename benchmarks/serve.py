"""python -m benchmarks.serve --data_dir=DIR --day=D --output=DIR: how long does one user with N candidates take?

For MMOE and PLE of the papers' sizes, with weights as initialised (time does not depend on them), it sends the same
candidates

- to `rank`, the user once;
- to `raw`, as N full rows, the user's features N times;
- to `serving_default`, as N serialised `tf.train.Example`s;
- one by one, as N requests to `raw` of one row each,

from a C program (`c_session.c`) that loads the SavedModel as TensorFlow Serving does, in processes that take turns.
Network and protobuf of a request are not in these times. Also measured are bfloat16 products, and a graph whose weights
are constants (`frozen`), from which TensorFlow can fold what does not depend on the request.
"""

import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import matplotlib
import numpy as np
import tensorflow as tf
from absl import flags

from benchmarks import c_session
from dlen_cam2 import data, serving
from dlen_cam2.config import Config, ModelConfig, TrainConfig
from dlen_cam2.models import MMOE, PLE, build
from dlen_cam2.schema import Schema, pbtxt
from dlen_cam2.serving import request_log
from dlen_cam2.training.model_directory import TrainedModel
from dlen_cam2.utils import commands
from dlen_cam2.utils.files import staged
from dlen_cam2.utils.markdown import markdown

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

FLAGS = flags.FLAGS

REPORT = "serve.md"
MODELS = {
    "mmoe": ModelConfig(MMOE(units=(256, 128, 64), experts=5), tower_units=(64,)),
    "ple": ModelConfig(PLE(units=(256, 128, 64), experts=5, task_experts=2, levels=1), tower_units=(64,)),
}
# The first requests of a process are slower: TensorFlow optimises the graph and memory is not there yet.
WARM = 30
SIGNATURES = ("rank", "raw", "serving_default")


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "Data set whose rows are sent.", required=True)
    flags.DEFINE_string("day", None, "Its day; the model's features are fitted on it too.", required=True)
    flags.DEFINE_string("output", None, "Directory for serve.md and serve.png.", required=True)
    flags.DEFINE_list("candidates", ["1", "100", "500", "2000"], "Numbers of candidates; 500 is compared.")
    flags.DEFINE_list("variants", ["float32", "frozen", "bfloat16"], "How the weights are used.")
    flags.DEFINE_integer("requests", 100, "Requests of a process that are timed.", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "Processes for each kind of request, by turns.", lower_bound=1)


def exported(config: ModelConfig, schema: Schema, variant: str, output: pathlib.Path) -> pathlib.Path:
    """A SavedModel of the untrained network."""
    tf.keras.utils.set_random_seed(0)
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16" if variant == "bfloat16" else "float32")
    network = build(config, schema)
    if variant == "frozen":
        freeze(network)
    return serving.export(TrainedModel(Config("benchmark", config, TrainConfig()), schema, {}, network, []), output)


def freeze(network: tf.keras.Model) -> None:
    """Make constants of all weights but the embedding tables."""
    for part in network.submodules:
        for name, value in list(vars(part).items()):
            if isinstance(value, tf.Variable):
                vars(part)[name] = value.numpy()
            elif isinstance(value, list) and name in ("kernels", "biases"):
                vars(part)[name] = [variable.numpy() for variable in value]


def requests(schema: Schema, rows: Mapping[str, np.ndarray], number: int) -> dict[str, dict[str, Any]]:
    """The same candidates of the first row's user for each signature."""
    place = np.arange(number) % len(next(iter(rows.values())))
    of_user = {f.name for f in schema.features if f.side == "user"}
    full = {name: column[place * (name not in of_user)] for name, column in rows.items()}
    once = {name: column[:1] if name in of_user else column for name, column in full.items()}
    return {"rank": once, "raw": full, "serving_default": {"examples": request_log.examples(schema, full)}}


def timed(
    version: pathlib.Path, sent: Mapping[int, Mapping[str, Any]], task: str, tolerance: float
) -> dict[tuple[str, int], list[float]]:
    """Milliseconds of each request, by signature and number of candidates; `task`'s scores must agree."""
    times: dict[tuple[str, int], list[float]] = {(s, n): [] for n in sent for s in SIGNATURES}
    for turn in range(FLAGS.rounds):
        scores: dict[tuple[str, int], np.ndarray] = {}
        for signature, number in times:
            answer = c_session.send(version, signature, sent[number][signature], WARM + FLAGS.requests)
            times[signature, number] += answer.milliseconds[WARM:].tolist()
            scores[signature, number] = answer.scores[task]
        for (signature, number), score in scores.items():
            np.testing.assert_allclose(score, scores["raw", number], atol=tolerance, err_msg=signature)
        print(f"{version.parent.name}: round {turn + 1} of {FLAGS.rounds}", flush=True)
    return times


def table(times: Mapping[tuple[str, int], list[float]]) -> Iterator[list[str]]:
    """A row for each way to score so many candidates."""
    numbers = sorted({number for _, number in times})
    one = float(np.median(times["raw", 1])) if 1 in numbers else None
    for number in numbers:
        p50 = {signature: float(np.median(times[signature, number])) for signature in SIGNATURES}
        for signature in SIGNATURES:
            p99 = float(np.percentile(times[signature, number], 99))
            yield [
                str(number), signature, f"{p50[signature]:.2f}", f"{p99:.2f}", f"{p99 / p50[signature]:.1f}",
                f"{1e3 * number / p50[signature]:,.0f}", f"{p50['rank'] / p50[signature]:.2f}",
            ]
        if one is not None and number > 1:
            yield [str(number), "one by one", f"{one * number:.1f}", "", "", f"{1e3 / one:,.0f}",
                   f"{p50['rank'] / one / number:.3f}"]


def draw(path: pathlib.Path, found: Mapping[str, Mapping[tuple[str, int], list[float]]]) -> None:
    """Median latency against the number of candidates, a panel for each model."""
    figure, panels = plt.subplots(1, len(found), figsize=(5.5 * len(found), 4), squeeze=False)
    for panel, (name, times) in zip(panels[0], found.items(), strict=True):
        numbers = sorted({number for _, number in times})
        for signature in SIGNATURES:
            panel.plot(numbers, [np.median(times[signature, n]) for n in numbers], marker="o", label=signature)
        panel.set(title=name, xlabel="candidates", ylabel="milliseconds, median", xscale="log", yscale="log")
        panel.grid(alpha=0.3)
        panel.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    numbers = [int(number) for number in FLAGS.candidates]
    schema = data.fit(FLAGS.data_dir, pbtxt.load(FLAGS.data_dir), [FLAGS.day])
    rows = request_log.first_rows(FLAGS.data_dir, FLAGS.day, schema, max(numbers))
    sent = {number: requests(schema, rows, number) for number in numbers}
    found: dict[str, dict[tuple[str, int], list[float]]] = {}
    text = [f"# Serving\n\n{len(schema.features)} features, {len(schema.tasks)} tasks. Milliseconds."]
    with tempfile.TemporaryDirectory() as directory, staged(FLAGS.output, REPORT) as stage:
        for model, config in MODELS.items():
            for variant in FLAGS.variants:
                name = f"{model} {variant}"
                version = exported(config, schema, variant, pathlib.Path(directory, name.replace(" ", "_")))
                size = sum(path.stat().st_size for path in version.rglob("*") if path.is_file())
                loads = [c_session.send(version, "raw", sent[numbers[0]]["raw"]).load for _ in range(3)]
                found[name] = timed(version, sent, schema.tasks[0].name, 0.02 if variant == "bfloat16" else 1e-5)
                head = ["candidates", "as", "p50", "p99", "p99/p50", "rows/s", "rank's p50 / this"]
                text.append(f"## {name}: {size / 1e6:.1f} MB, loaded in {np.median(loads):.0f} ms\n\n"
                            f"{markdown(head, table(found[name]))}")
                print(text[-1], flush=True)
        draw(stage / "serve.png", found)
        (stage / REPORT).write_text("\n\n".join([*text, "![](serve.png)"]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    commands.run(main, define_flags)
