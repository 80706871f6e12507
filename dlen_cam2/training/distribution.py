"""Where a job trains: one device, several devices, several machines, parameter servers, or a TPU."""

import dataclasses
import functools
import json
import os
from typing import Any

import tensorflow as tf

from dlen_cam2.config import TrainConfig
from dlen_cam2.utils import console
from dlen_cam2.utils.errors import UserError

STRATEGIES = ("one", "mirrored", "multi_worker", "parameter_server", "tpu")
# Matrices with at least this many rows (embedding tables) are sharded across all parameter servers.
MIN_SHARED_ROWS = 1024
# Threads of operations that wait for other tasks: with as few as a small machine has cores they wait for each other.
_WAITING_THREADS = 8
_TASKS = {"multi_worker": ("chief", "worker"), "parameter_server": ("chief", "worker", "ps")}


@dataclasses.dataclass(frozen=True)
class Place:
    """The place where this process trains.

    Attributes:
        name: one of `STRATEGIES`.
        strategy: the strategy of `tf.distribute`; for "one", the default strategy.
        chief: whether this process writes files and measures.
        workers: number of processes that read data.
    """

    name: str = "one"
    strategy: tf.distribute.Strategy = dataclasses.field(default_factory=tf.distribute.get_strategy)
    chief: bool = True
    workers: int = 1

    @property
    def replicas(self) -> int:
        """The number of model copies that share a batch; with parameter servers, each worker has a batch of its own."""
        return int(self.strategy.num_replicas_in_sync)

    @property
    def asynchronous(self) -> bool:
        return self.name == "parameter_server"

    def batch_size(self, train: TrainConfig) -> int:
        """The number of rows in a step, over all replicas.

        Raises:
            UserError: the batch cannot be divided equally among the replicas.
        """
        if train.scaling == "linear":
            return train.batch_size * self.replicas
        if train.batch_size % self.replicas:
            raise UserError(
                f"config.train.batch_size must be a multiple of the {self.replicas} replicas. "
                f"Received: {train.batch_size}."
            )
        return train.batch_size

    def rate_factor(self, train: TrainConfig) -> int:
        """The factor by which the learning rates are multiplied."""
        return self.replicas if train.scaling == "linear" else 1

    def together(self) -> None:
        """Wait for all workers: one that ends earlier would seem lost to the others."""
        if self.workers > 1 and not self.asynchronous:
            strategy = self.strategy

            def one() -> tf.Tensor:
                return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(lambda: tf.constant(1.0)), axis=None)

            tf.function(one, autograph=False)()

    def describe(self, train: TrainConfig) -> dict[str, Any]:
        """A description for the log when a job starts."""
        batch, factor = self.batch_size(train), self.rate_factor(train)
        return {
            "strategy": self.name, "workers": self.workers, "replicas": self.replicas, "global_batch": batch,
            "replica_batch": batch // self.replicas, "scaling": train.scaling,
            "learning_rate": train.learning_rate * factor,
            "embedding_learning_rate": train.embedding_learning_rate * factor,
            "input_sharding": "random order for each worker" if self.asynchronous else train.input_sharding,
            "precision": train.precision, "jit": train.jit, "accumulate": train.accumulate,
            "microbatches": train.microbatches,
        }


def connect(name: str, cpu_devices: int = 0, tpu: str = "") -> Place:
    """Join the cluster, if there is one, and create the strategy. Call this before TensorFlow has run anything.

    With "mirrored", all jobs of a process share one strategy. A second `tf.distribute.MirroredStrategy` over the same
    devices would end with "Shape mismatch in the collective instance": TensorFlow identifies sums over replicas by
    numbers, which start again with each strategy.

    Args:
        name: "one": one device. "mirrored": all GPUs of this machine, or its logical CPUs. "multi_worker": processes
            that train synchronously and that TF_CONFIG describes. "parameter_server": the same, but asynchronous; the
            chief coordinates, and tasks of type worker and ps serve and do not return. "tpu": the TPU named by `tpu`.
        cpu_devices: above 0, divide the CPU into this many logical devices (to try "mirrored" without GPUs).
        tpu: name or address; "" on a TPU's own machine, "local" to find it there.

    Raises:
        UserError: TF_CONFIG is missing or does not fit, or there is no such device.
    """
    if name not in STRATEGIES:
        raise UserError(f"--strategy must be one of {STRATEGIES}. Received: {name!r}.")
    if cpu_devices:
        if name not in ("mirrored", "multi_worker"):
            raise UserError(f"--cpu_devices is for --strategy=mirrored. Received: --strategy={name}.")
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * cpu_devices
        )
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return Place(name, _mirrored(tuple(d.name for d in devices)))
    if name == "multi_worker":
        return _multi_worker()
    if name == "parameter_server":
        return _parameter_server()
    return _tpu(tpu) if name == "tpu" else Place()


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """One strategy for all jobs of this process: each numbers its sums from the same start, so two would collide."""
    return tf.distribute.MirroredStrategy(devices)


def _cluster(name: str) -> tuple[dict[str, list[str]], str, int]:
    """The addresses by task type, this process's type and its index, from TF_CONFIG."""
    text = os.environ.get("TF_CONFIG", "")
    example = '{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}'
    try:
        config = json.loads(text)
        cluster, kind, index = config["cluster"], config["task"]["type"], config["task"]["index"]
        address = cluster[kind][index]
        if not (isinstance(address, str) and isinstance(index, int) and index >= 0 and set(cluster) <= {*_TASKS[name]}):
            raise ValueError
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"--strategy={name} needs the environment variable TF_CONFIG, such as {example}, with tasks of types "
            f"{_TASKS[name]}. Received: {text!r}."
        ) from error
    return cluster, kind, index


def _multi_worker() -> Place:
    cluster, kind, index = _cluster("multi_worker")
    chief = kind == "chief" or ("chief" not in cluster and index == 0)
    console.say(f"{kind} {index} is waiting for {', '.join(sum(cluster.values(), []))}")
    return Place("multi_worker", tf.distribute.MultiWorkerMirroredStrategy(), chief, sum(map(len, cluster.values())))


def _parameter_server() -> Place:
    cluster, kind, index = _cluster("parameter_server")
    if missing := [task for task in _TASKS["parameter_server"] if not cluster.get(task)]:
        raise UserError(f"--strategy=parameter_server needs tasks of every type in TF_CONFIG. Received: no {missing}.")
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if kind != "chief":
        threads = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=max(_WAITING_THREADS, os.cpu_count() or 1))
        console.say(f"{kind} {index} listens on {cluster[kind][index]} until you stop it")
        tf.distribute.Server(
            resolver.cluster_spec(), job_name=kind, task_index=index, protocol="grpc", config=threads
        ).join()
    tf.config.threading.set_inter_op_parallelism_threads(max(_WAITING_THREADS, os.cpu_count() or 1))
    servers = len(cluster["ps"])

    def partitioner(shape: tf.TensorShape, dtype: tf.DType, **_: Any) -> list[int]:
        tables = shape.rank == 2 and shape[0] >= MIN_SHARED_ROWS
        return [servers, 1] if tables else [1] * shape.rank

    strategy = tf.distribute.ParameterServerStrategy(resolver, variable_partitioner=partitioner)
    return Place("parameter_server", strategy, workers=len(cluster["worker"]))


def _tpu(tpu: str) -> Place:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return Place("tpu", tf.distribute.TPUStrategy(resolver))
    except (ValueError, tf.errors.OpError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"--strategy=tpu needs a TPU: name it with --tpu or the environment variable TPU_NAME. "
                        f"Received: {reason}") from error
