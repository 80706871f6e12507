"""A network of a table: trained by the trainer's own code, with its cost."""

import math
import time
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2 import data, evaluation
from dlen_cam2.config import Config
from dlen_cam2.evaluation.introspection import inspect
from dlen_cam2.experiments.cells import Arrays
from dlen_cam2.experiments.rows import Log, kept
from dlen_cam2.training import jobs, passes

_FIRST = 10  # steps before the clock starts: the first one builds the graph


def train(config: Config, log: Log) -> Arrays:
    """A cell: train on the log's days, measure, and count."""
    job = jobs.start(config, log.data_dir, log.train)
    clock = _Clock()
    passes.fit(job, log.train, [clock])
    job.refresh()
    predictions = log.predictions(evaluation.scorer(job.scored, job.read_out), job.schema)
    more = {}
    if predictions.p_up is not None:
        # Over the measured rows, how near P(k|¬UP) is to its cap.
        found = inspect(job.scored, job.read_out, data.read(log.data_dir, job.schema, log.measured, 4096))
        more = {shown.name: shown.mean for shown in found.telemetry}
    return kept(
        predictions, parameters=job.scored.count_params(), flops=flops(job.scored),
        rows_per_second=clock.steps_per_second * config.train.batch_size, **more,
    )


class _Clock(tf.keras.callbacks.Callback):
    """Steps in a second of all passes, without the first steps of each."""

    def __init__(self) -> None:
        super().__init__()
        self._steps, self._seconds = 0, 0.0

    def on_train_begin(self, logs: Any = None) -> None:
        self._start = math.inf

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch + 1 == _FIRST:
            self._start = time.monotonic()
        self._last, self._done = time.monotonic(), batch + 1

    def on_train_end(self, logs: Any = None) -> None:
        if self._start < math.inf:
            self._steps += self._done - _FIRST
            self._seconds += self._last - self._start

    @property
    def steps_per_second(self) -> float:
        """NaN of passes that are too short."""
        return self._steps / self._seconds if self._steps else math.nan


def flops(network: tf.keras.Model) -> int:
    """Floating-point operations of one row's prediction: what TensorFlow's profiler counts, and the einsums.

    The profiler knows matrix products, sums and softmax; of an einsum, which it leaves out, there are 2 for each
    combination of its indices. Table look-ups and sigmoids are not counted.
    """
    shaped = tf.nest.map_structure(lambda t: tf.TensorSpec((1, *t.shape[1:]), t.dtype), network.input)
    graph = tf.function(lambda features: network(features), autograph=False).get_concrete_function(shaped).graph
    profiler, logger = tf.compat.v1.profiler, tf.get_logger()
    wanted = profiler.ProfileOptionBuilder.float_operation() | {"output": "none"}
    level = logger.level
    logger.setLevel("ERROR")  # the profiler itself calls what TensorFlow warns of as deprecated
    try:
        total = profiler.profile(graph, options=wanted).total_float_ops
    finally:
        logger.setLevel(level)
    for op in graph.get_operations():
        if op.type == "Einsum":
            indices = op.get_attr("equation").decode().partition("->")[0].replace(",", "")
            sizes = dict(zip(indices, (n for t in op.inputs for n in t.shape), strict=True))
            total += 2 * int(np.prod(list(sizes.values())))
    return int(total)
