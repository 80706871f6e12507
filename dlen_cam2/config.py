"""`Config`: what is built and how it is trained. The experiment files in `configs/` return one."""

import contextlib
import dataclasses
import json
import os
import types
import typing
from collections.abc import Mapping
from typing import Any

from dlen_cam2 import parts
from dlen_cam2.parts import Part, option
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import read_json, write_json

# Whether a larger value is better.
MONITORS = {"auc": True, "gauc": True, "ne": False, "mae": False, "rank_correlation": True}


@dataclasses.dataclass
class ModelConfig:
    """The network: embeddings, encoder, trunk, causal branches, towers, transfer, head; see `dlen_cam2.models.build`.

    Attributes:
        trunk: turns the embedded row into a representation for each task: "shared_bottom", "mmoe", "cgc", "ple".
        head: turns the towers' outputs into what is trained: "logistic", "dlen", "esmm".
        causal: branches beside the trunk that learn why users engage: "cam2"; None: no branches.
        encoder: turns a list of events into a vector: "mean".
        transfer: passes information between the tasks' towers; None: no transfer.
        tower_units: layer sizes of a task's tower; ReLU after each. DESIGN: DLEN's paper does not state them.
        dropout: share of the trunk's input that is dropped while training.
        tables: "gather": all tables of one width are stacked in one variable. "tpu": TFRS's TPUEmbedding, which uses a
            TPU's embedding memory; causal branches still use "gather".
        embedding_l2: weight in the loss of the squared norm of a row's id embeddings in the trunk, averaged over rows.
        tasks, features: names to use; empty: all of the schema. without: features to leave out.
        task_weights: weights of the tasks' losses, in the order of the tasks used; empty: the schema's weights.
        task_loss: "ce": a task's loss is its cross-entropy. "ne": it is divided by that of the best constant, so that
            rare tasks weigh as much as others, `ω_k / H(rate_k)` with H the entropy of the training days' rate (CAM2,
            section 2.2, "normalized cross-entropy"; DESIGN: the default is "ce", since DLEN's and PLE's losses are).
        trunk_groups: feature groups that the trunk reads, such as "user_content"; empty: all. Causal branches choose
            theirs by cause.
    """

    trunk: Part = parts.part("trunk", "mmoe")
    head: Part = parts.part("head", "logistic")
    causal: Part | None = parts.part("causal", None)
    encoder: Part = parts.part("encoder", "mean")
    transfer: Part | None = parts.part("transfer", None)
    tower_units: tuple[int, ...] = option((64,), least=1, search=["", "32", "64", "128 64"])
    dropout: float = option(0.0, least=0, below=1, search=[0.0, 0.1, 0.2, 0.3, 0.5])
    tables: str = option("gather", choices=("gather", "tpu"))
    embedding_l2: float = option(0.0, least=0, search=[0.0, 1e-6, 1e-5, 1e-4, 1e-3])
    tasks: tuple[str, ...] = ()
    task_weights: tuple[float, ...] = ()
    task_loss: str = option("ce", choices=("ce", "ne"))
    features: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    trunk_groups: tuple[str, ...] = ()


@dataclasses.dataclass
class DailyConfig:
    """How a trained model takes in one more day: with `--continue_from`, and with `--eval=next` after the first day.

    With the rates and passes of the first training, a model would learn the few steps of a day by heart, and the last
    batches would decide how often a rare task is predicted.

    Attributes:
        epochs: passes over the day.
        rates: factor on `train.embedding_learning_rate` and `train.learning_rate`.
        cooldown: like `train.cooldown`, as a share of the day's steps.
    """

    epochs: int = option(1, least=1)
    rates: float = option(0.3, above=0)
    cooldown: float = option(0.5, least=0, most=1)


@dataclasses.dataclass
class TrainConfig:
    """How the network is trained. DESIGN: DLEN's paper does not state the optimizer, its rates or the batch size.

    Attributes:
        order: "shuffled": `epochs` passes over all training days together; "days": `epochs` passes over each
            day, in day order.
        epochs: number of passes.
        batch_size: rows in a step, over all replicas.
        shuffle: size, in rows, of the window within which rows are shuffled.
        seed: seed of the initial weights, the shuffling and dropout.
        embedding_learning_rate: learning rate of Adagrad, for the embedding tables.
        learning_rate: learning rate of Adam, for all other weights.
        cooldown: share of a stage's steps (a stage is all passes, or with order="days" those of one day) over which
            both rates fall linearly to zero at its end; 0: the rates are constant.
        bootstrap: number of user resamples behind each interval in `metrics.json`; 0: no intervals.
        scaling: "fixed": `batch_size` is the total over all replicas, and the rates are as given. "linear": it is the
            batch size of each replica, and the rates are multiplied by the number of replicas (Goyal et al., 2017).
        input_sharding: with several workers, "rows": each reads everything and trains on its slice of every batch, so
            that the batches are those of one worker. "shards": each reads its own shards, which scales further.
        precision: the Keras dtype policy; weights and losses stay float32.
        loss_scale: factor by which the loss is multiplied, and its gradients divided, to avoid underflow in float16;
            used with "mixed_float16" only.
        jit: compile the step with XLA.
        steps_per_execution: steps that run in one call, without returning to Python between them.
        accumulate: parts into which a batch is cut to save memory; their gradients are summed before the one update.
        microbatches: parts into which each of these is cut again, to compute them in parallel, one on each core; set
            TF_NUM_INTRAOP_THREADS=1 in the environment. Worthwhile from about 2,000 rows a part.
        clip_norm: above 0, gradients with a larger global norm are scaled down to this norm.
        monitor: metric computed on the validation days after each pass: "ne", "auc" (means over the tasks that have
            it), "click/ne", or for a regression task "watch/mae", "watch/rank_correlation". The weights of the pass
            with the best value are kept; empty: those of the last pass.
        patience: above 0, stop after this many passes without a better value.
        step_rule: what a step does about tasks that pull in different directions: "fixed", "decay", "uncertainty",
            "gradnorm", "pcgrad", "metabalance".
        daily: the settings that differ when a trained model takes in one more day.
    """

    order: str = option("shuffled", choices=("shuffled", "days"))
    epochs: int = option(1, least=1)
    batch_size: int = option(1024, least=1, search=[256, 512, 1024, 2048])
    shuffle: int = option(100_000, least=1)
    seed: int = option(0, least=0, below=2**32)
    embedding_learning_rate: float = option(0.02, above=0, search=(0.003, 0.3))
    learning_rate: float = option(0.001, above=0, search=(2e-4, 5e-3))
    cooldown: float = option(0.0, least=0, most=1)
    bootstrap: int = option(200, least=0)
    scaling: str = option("fixed", choices=("fixed", "linear"))
    input_sharding: str = option("rows", choices=("rows", "shards"))
    precision: str = option("float32", choices=("float32", "mixed_bfloat16", "mixed_float16"))
    loss_scale: float = option(1024.0, least=1)
    jit: bool = False
    steps_per_execution: int = option(1, least=1)
    accumulate: int = option(1, least=1)
    microbatches: int = option(1, least=1)
    clip_norm: float = option(0.0, least=0)
    monitor: str = ""
    patience: int = option(0, least=0)
    step_rule: Part = parts.part("step_rule", "fixed")
    daily: DailyConfig = dataclasses.field(default_factory=DailyConfig)

    def of_a_day(self) -> "TrainConfig":
        """These settings with the passes, rates and cooldown of `daily`."""
        daily = self.daily
        return dataclasses.replace(
            self, epochs=daily.epochs, cooldown=daily.cooldown, learning_rate=self.learning_rate * daily.rates,
            embedding_learning_rate=self.embedding_learning_rate * daily.rates,
        )


@dataclasses.dataclass
class Config:
    """The configuration of one experiment. It is mutable, so that an experiment can change another's."""

    name: str = "mmoe"
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)


def check(config: Config) -> None:
    """Raise `UserError` naming the key if a value breaks a rule."""
    _build(Config, _as_json(as_dict(config)), "config")  # names and types
    _check_tree(config, "config")
    model, train = config.model, config.train

    def rule(holds: bool, key: str, text: str, received: Any) -> None:
        if not holds:
            raise UserError(f"config.{key} must be {text}. Received: {received!r}.")

    rule(model.tables == "gather" or not model.embedding_l2, "model.embedding_l2", "0 with model.tables='tpu'",
         model.embedding_l2)
    rule(not train.cooldown or model.tables == "gather", "train.cooldown", "0 with model.tables='tpu'", train.cooldown)
    rule(train.monitor.rpartition("/")[2] in ("", *MONITORS), "train.monitor",
         f"empty, one of {tuple(MONITORS)}, or TASK/ and one of these", train.monitor)
    rule(not train.patience or bool(train.monitor), "train.monitor", "given if train.patience is", train.monitor)


def _check_tree(values: Any, where: str) -> None:
    """Check the rules of all fields; each part checks its own."""
    if isinstance(values, Part):
        values.check(where)
        return
    parts.check_fields(values, where)
    for field in dataclasses.fields(values):
        if dataclasses.is_dataclass(value := getattr(values, field.name)):
            _check_tree(value, f"{where}.{field.name}")


def as_dict(values: Any) -> Any:
    """Convert a configuration, or a section or part of one, to plain JSON values; a part has its name as "kind"."""
    if isinstance(values, Part):
        return values.to_dict()
    if not dataclasses.is_dataclass(values) or isinstance(values, type):
        return values
    return {field.name: as_dict(getattr(values, field.name)) for field in dataclasses.fields(values)}


def replaced(config: Config, values: Mapping[str, Any]) -> Config:
    """A copy of the configuration with other values, as in `replaced(config, {"train.batch_size": 512})`.

    A part is chosen by its name: "model.trunk": "ple". It keeps the values of fields that the previous part also had,
    such as the number of experts, and has defaults for the others. "none" removes a part that is optional.

    Raises:
        UserError: a key does not exist, or a value has the wrong type or breaks a rule.
    """
    tree = as_dict(config)
    for key, value in values.items():
        *sections, field = key.split(".")
        cls: type = Config
        node, where = tree, "config"
        for section in sections:
            cls = _section(cls, section, node, where)
            node, where = node[section], f"{where}.{section}"
        kind = _part_of(cls, field)
        node[field] = _chosen(kind, value, node.get(field), f"{where}.{field}") if kind else as_dict(value)
    found = _build(Config, _as_json(tree), "config")
    check(found)
    return found


def _section(cls: type, name: str, node: Any, where: str) -> type:
    """The class of the section or part `name` of `node`."""
    if kind := _part_of(cls, name):
        if node.get(name) is None:
            raise UserError(f"{where}.{name} must name a {kind} before its values are set. Received: none.")
        return parts.find(kind, node[name]["kind"], f"{where}.{name}")
    hint = typing.get_type_hints(cls).get(name)
    if not dataclasses.is_dataclass(hint):
        known = sorted(f.name for f in dataclasses.fields(cls))
        raise UserError(f"{where} has no section {name!r}. Known: {known}.{parts.elsewhere(Config, [name])}")
    return typing.cast(type, hint)


def _part_of(cls: type, name: str) -> str:
    """The kind of part that a field holds; "" for other fields and for unknown ones."""
    return next((f.metadata.get("part", "") for f in dataclasses.fields(cls) if f.name == name), "")


def _chosen(kind: str, value: Any, before: Any, where: str) -> Any:
    if value in (None, "none"):
        return None
    if isinstance(value, Part):
        return as_dict(value)
    cls = parts.find(kind, value, where)
    same = {f.name: before[f.name] for f in dataclasses.fields(cls) if before and f.name in before}
    return as_dict(cls()) | same


def larger_is_better(metric: str) -> bool:
    """Whether a larger value of a metric, such as "auc" or "click/ne", is better."""
    return MONITORS[metric.rpartition("/")[2]]


def save(config: Config, path: str | os.PathLike) -> None:
    """Write the configuration as JSON."""
    write_json(path, as_dict(config))


def load(path: str | os.PathLike) -> Config:
    """Read a configuration that `save` wrote. Raises `UserError` on an unknown key or a value of the wrong type."""
    config = _build(Config, read_json(path), f"{path}: config")
    check(config)
    return config


def _as_json(values: Any) -> Any:
    return json.loads(json.dumps(values, default=repr, skipkeys=True))


def _build(cls: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise UserError(f"{where} must be an object. Received: {values!r}.")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    if unknown := sorted(set(values) - set(fields)):
        raise UserError(f"{where} has no key {unknown}. Known: {sorted(fields)}.{parts.elsewhere(Config, unknown)}")
    hints = typing.get_type_hints(cls)
    return cls(**{key: _convert(fields[key], hints[key], value, f"{where}.{key}") for key, value in values.items()})


def _convert(field: dataclasses.Field, hint: Any, value: Any, where: str) -> Any:
    if kind := field.metadata.get("part"):
        if value is None and field.metadata["optional"]:
            return None
        if not isinstance(value, dict) or "kind" not in value:
            raise UserError(f"{where} must be an object with the key 'kind'. Received: {value!r}. In Python it is an "
                            f"instance of a {kind}, one of {[c.__name__ for c in parts.classes(kind).values()]}.")
        cls = parts.find(kind, value["kind"], f"{where}.kind")
        return _build(cls, {key: v for key, v in value.items() if key != "kind"}, f"{where} ({cls.name})")
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, where)
    item = typing.get_args(hint)[0] if isinstance(hint, types.GenericAlias) else None
    value = [value] if item is str and isinstance(value, str) else value  # one name, as a command line has it
    with contextlib.suppress(OverflowError):  # a whole number that no float can hold
        if item:
            if isinstance(value, list) and all(type(v) is item or (item is float and type(v) is int) for v in value):
                return tuple(item(v) for v in value)
        elif type(value) is hint or (hint is float and type(value) is int):
            return hint(value)
    wanted = f"a tuple of {item.__name__}" if item else getattr(hint, "__name__", hint)
    raise UserError(f"{where} must be {wanted}. Received: {json.dumps(value)}.")
