"""What several test files share: a small schema, batches for it, a small configuration."""

import contextlib
import dataclasses
import io
import json
import runpy
import subprocess
import sys
from unittest import mock

import numpy as np
import tensorflow as tf
from absl import flags

from dlen_cam2 import parts
from dlen_cam2.config import Config, ModelConfig, TrainConfig
from dlen_cam2.data.preprocessing import Indexer
from dlen_cam2.models import CAM2, ReadOut, build
from dlen_cam2.parts import Part
from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.training import model_directory, runs, train_request
from dlen_cam2.training.optimizers import composite
from dlen_cam2.training.step import Ranker
from tests.support import processes

ROOT = processes.ROOT
# Some of the simulated feed's features, of every kind: a small run mostly builds graphs of its columns.
FEW = (
    "user_id", "user_topics", "watched", "video_id", "topics", "duration_s", "hour", "user_click_rate",
    "video_click_rate", "video_impressions", "video_age_days",
)


def tiny_schema(head: str = "logistic") -> Schema:
    """Every kind of feature; three tasks: a plain one, a negative one, one with a mask (of ESMM: the first)."""
    return Schema(
        "tiny",
        features=(
            Feature("user_id", "int", "user", "content", size=16, hashed=True, width=4),
            Feature("history", "int", "user", "content", size=9, width=4, table="video", max_length=3),
            Feature("active_days", "float", "user", "statistical", transform="log1p", mean=1.0, std=0.5),
            Feature("video_id", "int", "item", "content", size=9, width=4, table="video"),
            Feature("author", "string", "item", "content", vocabulary=("ann", "bob", "cy"), width=2),
            Feature("ctr", "float", "item", "statistical", mean=0.5, std=0.3),
            Feature("phone", "string", "context", "context", size=5, hashed=True, width=2),
        ),
        tasks=(
            Task("click", positive_rate=0.4),
            Task("hate", negative=True, positive_rate=0.1, weight=0.5),
            Task("finish", label="is_finish", mask="click" if head == "esmm" else "played", positive_rate=0.2),
        ),
        keys={"user": "user_id"},
    )


def raw_batch(rows: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    """Raw columns of `tiny_schema`, with unknown, missing and padded values among them."""
    rng = np.random.default_rng(seed)
    history = rng.integers(0, 11, (rows, 3))  # 9 and 10 are not in the table
    history[np.arange(3) >= rng.integers(0, 4, rows)[:, None]] = -1
    return {
        "user_id": rng.integers(0, 10**12, rows),
        "history": history,
        "active_days": rng.exponential(3.0, rows).astype(np.float32),
        "video_id": rng.integers(-1, 11, rows),
        "author": rng.choice(np.array(["ann", "bob", "cy", "dan", ""], object), rows),
        "ctr": rng.random(rows).astype(np.float32),
        "phone": rng.choice(np.array(["x", "y", "z"], object), rows),
    }


def tiny_batch(rows: int = 8, seed: int = 0) -> tuple[dict[str, dict[str, tf.Tensor]], dict[str, tf.Tensor]]:
    """`(features, labels)` as `dlen_cam2.data.read` gives them."""
    raw = {name: tf.constant(column) for name, column in raw_batch(rows, seed).items()}
    rng = np.random.default_rng(seed + 1)
    names = ("click", "hate", "is_finish", "played")
    labels = {name: tf.constant(rng.integers(0, 2, rows), tf.float32) for name in names}
    return Indexer(tiny_schema())(raw), labels


def flat(trunk: str = "mmoe", head: str = "logistic", causal: Part | None = None, **values) -> ModelConfig:
    """A model by its parts' names, with the values of all of them side by side; each part takes those that it has."""
    chosen = {"trunk": parts.make("trunk", trunk), "head": parts.make("head", head)}
    for name in list(values):
        if name in OF_PARTS:  # a part that is not chosen has no such field
            value = values.pop(name)
            for part in chosen.values():
                if name in [field.name for field in dataclasses.fields(part)]:
                    setattr(part, name, value)
    return ModelConfig(**chosen, causal=causal, **values)


# Fields of trunks and heads.
OF_PARTS = ("experts", "task_experts", "levels", "units", "alpha", "alpha_constant", "latent_units")


def branches(variant: str = "proposed", **fields) -> CAM2 | None:
    """CAM2's variant; None for "production"."""
    return None if variant == "production" else CAM2(variant=variant, **fields)


def tiny_config(**model) -> Config:
    """A configuration that builds and trains in a moment."""
    sizes = {"experts": 3, "task_experts": 2, "units": (8, 6), "tower_units": (4,), "latent_units": (5,)}
    return Config("tiny", flat(**(sizes | model)), TrainConfig(batch_size=8, bootstrap=0))


def built(**model):
    tf.keras.utils.set_random_seed(5)
    return build(tiny_config(**model).model, tiny_schema(model.get("head", "logistic")))


def ranker(network, schema=None, config=None, **train):
    """Of a logistic head, unless the network's configuration is given."""
    model = Ranker(network, ReadOut(config or ModelConfig(), schema or tiny_schema()))
    model.compile(optimizer=composite(network, TrainConfig(**train)), run_eagerly=True)
    return model


def trained_model(tmp_path, **model):
    """A model after one step, written and read again, and what it predicts for the batch before that."""
    config, network, schema = tiny_config(**model), built(**model), tiny_schema(model.get("head", "logistic"))
    model = ranker(network, schema, config.model)
    model.train_on_batch(*tiny_batch(8))
    tmp_path.mkdir(exist_ok=True)
    model_directory.save(tmp_path, config, schema, {}, tf.train.Checkpoint(network=network))
    return model_directory.load(tmp_path), network(tiny_batch(8)[0])


def numpy_mlp(x: np.ndarray, kernels: list[np.ndarray], biases: list[np.ndarray]) -> np.ndarray:
    """The reference network: `relu(… relu(x W + b) …)` in float64."""
    for kernel, bias in zip(kernels, biases, strict=True):
        x = np.maximum(np.asarray(x, np.float64) @ kernel + bias, 0)
    return x


def numpy_softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(np.asarray(x, np.float64) - np.max(x, axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def numpy_sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def two_replicas() -> tf.distribute.Strategy:
    """Two of the processor. Once, at the start of a process of its own: a second strategy would be confused."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def reported_by(module: str) -> dict:
    """What `compare_replicas` of a test module prints, run in a process of its own."""
    done = processes.run(["-c", f"from {module} import compare_replicas; compare_replicas()"])
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def train(*arguments, place=None, **options) -> dict:
    """What `python -m dlen_cam2 train` does; other arguments as of `dlen_cam2.training.train_request.once`."""
    return runs.train(train_request.once(*arguments, **options), place)


def run(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`python -m module …` in a process of its own."""
    return processes.run(["-m", module, *arguments])


def command(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The same in this process, which spares the seconds that TensorFlow takes to start; what C++ prints is lost."""
    given, known = [module, *map(str, arguments)], set(flags.FLAGS)
    out, err = io.StringIO(), io.StringIO()
    status: object = 0
    with mock.patch.object(sys, "argv", given), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as error:
            status = error.code or 0
        finally:
            for name in set(flags.FLAGS) - known:
                delattr(flags.FLAGS, name)
    assert isinstance(status, int), status
    return subprocess.CompletedProcess(given, status, out.getvalue(), err.getvalue())
