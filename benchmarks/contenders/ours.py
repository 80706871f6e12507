"""This package: `options` are fields of `TrainConfig` (precision, jit, steps_per_execution, microbatches)."""

from collections.abc import Sequence

import tensorflow as tf

from benchmarks.contenders.keras import fit
from benchmarks.yardstick import Batch, Clock, Request, Size, contend
from dlen_cam2.config import Config, ModelConfig, TrainConfig
from dlen_cam2.models import MMOE, PLE
from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.training import jobs
from dlen_cam2.training.distribution import Place


def schema(size: Size) -> Schema:
    """The yardstick's features and tasks."""
    numbers = (Feature(f"d{n}", "float", "context", "context") for n in range(size.dense))
    ids = (
        Feature(f"s{n}", "int", "user", "content", size=size.vocabulary, width=size.width) for n in range(size.sparse)
    )
    return Schema("yardstick", (*numbers, *ids), tuple(Task(f"t{n}", positive_rate=0.3) for n in range(size.tasks)))


def model_config(request: Request) -> ModelConfig:
    """The network in our words."""
    size = request.sizes
    experts = {"units": size.expert_units, "experts": size.experts}
    trunks = {"mmoe": MMOE(**experts), "ple": PLE(**experts, task_experts=size.task_experts, levels=1)}
    return ModelConfig(trunks[request.model], tower_units=size.tower_units)


def features(batch: Batch) -> tuple[dict[str, dict[str, tf.Tensor]], dict[str, tf.Tensor]]:
    """A batch as `dlen_cam2.data.read` gives it: indices from 1, since 0 is unknown."""
    ids, numbers, labels = batch
    return (
        {"user_content": {f"s{n}": tf.constant(column + 1) for n, column in enumerate(ids.T)},
         "context_context": {f"d{n}": tf.constant(column) for n, column in enumerate(numbers.T)}},
        {f"t{n}": tf.constant(column) for n, column in enumerate(labels.T)},
    )


def train(request: Request, size: Size, batches: Sequence[Batch], clock: Clock) -> float:
    config = Config("yardstick", model_config(request), TrainConfig(**request.options))
    job = jobs.assemble(config, "", schema(size), {}, "fail", Place())
    return fit(job.ranker, [features(batch) for batch in batches], clock, config.train.steps_per_execution)


if __name__ == "__main__":
    contend(train)
