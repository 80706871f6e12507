"""`Config`: what is built and how it is trained. Experiment files in `configs/` return one."""

import dataclasses
import json
import math
import os
import types
import typing
from typing import Any

from dlen_cam2.cli import UserError
from dlen_cam2.files import read_json, write_json

TRUNKS = ("shared_bottom", "mmoe", "cgc", "ple")
HEADS = ("plain", "dlen")


@dataclasses.dataclass
class ModelConfig:
    """The network: `trunk x head` over one embedding layer.

    Attributes:
        trunk: "shared_bottom", "mmoe", "cgc" (one extraction layer) or "ple" (`levels` of them).
        experts: experts that all tasks share (MMOE: all of them).
        task_experts: experts of each task's own (CGC and PLE).
        levels: extraction layers of PLE.
        expert_units: layer sizes of an expert, and of the shared bottom; ReLU after each.
        tower_units: layer sizes of a task's tower; ReLU after each. DESIGN: DLEN's paper does not state them.
        head: "plain" (one logit per task) or "dlen".
        alpha: DLEN's cap factor c: alpha_k = c * positive rate of task k. The paper: 0.1 to 0.5.
        alpha_constant: above 0, the literal cap alpha of every task that is not negative, in place of
            c * positive rate.
        latent_units: layer sizes of DLEN's hidden state network.
        dropout: share of the trunk's input that is dropped while training.
        embedding_l2: weight of the mean squared norm of the looked-up id embeddings of a row in the loss.
        tasks, features: names to use; empty: all of the schema.
        task_weights: weights of the tasks' losses, in the schema's order of the tasks used; empty: the schema's.
        without: features to leave out.
    """

    trunk: str = "mmoe"
    experts: int = 5
    task_experts: int = 2
    levels: int = 2
    expert_units: tuple[int, ...] = (256, 128, 64)
    tower_units: tuple[int, ...] = (64,)
    head: str = "plain"
    alpha: float = 0.3
    alpha_constant: float = 0.0
    latent_units: tuple[int, ...] = (256, 128, 64)
    dropout: float = 0.0
    embedding_l2: float = 0.0
    tasks: tuple[str, ...] = ()
    task_weights: tuple[float, ...] = ()
    features: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


@dataclasses.dataclass
class TrainConfig:
    """How the network is trained. DESIGN: DLEN's paper states no optimizer, rates or batch size.

    Attributes:
        order: "shuffled": `epochs` passes over all training days together; "days": `epochs` passes over each
            day, in day order.
        epochs: passes.
        batch_size: rows of a step, over all replicas.
        shuffle: rows of a window within which rows are shuffled.
        seed: of weights, shuffling and dropout.
        embedding_learning_rate: Adagrad's, for embedding tables.
        learning_rate: Adam's, for all other weights.
        bootstrap: resamples of users behind each interval in `metrics.json`; 0 for none.
    """

    order: str = "shuffled"
    epochs: int = 1
    batch_size: int = 1024
    shuffle: int = 100_000
    seed: int = 0
    embedding_learning_rate: float = 0.02
    learning_rate: float = 0.001
    bootstrap: int = 200


@dataclasses.dataclass
class Config:
    """One experiment. The fields are plain, not frozen, because command-line overrides assign to them."""

    name: str = "mmoe"
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)


def check(config: Config) -> None:
    """Raise `UserError` naming the key if a value breaks a rule."""
    _build(Config, json.loads(json.dumps(dataclasses.asdict(config), default=repr)), "config")  # names and types
    model, train = config.model, config.train

    def rule(holds: bool, key: str, text: str, received: Any) -> None:
        if not holds:
            raise UserError(f"config.{key} must be {text}. Received: {received!r}.")

    rule(model.trunk in TRUNKS, "model.trunk", f"one of {TRUNKS}", model.trunk)
    rule(model.head in HEADS, "model.head", f"one of {HEADS}", model.head)
    for key in ("experts", "task_experts", "levels"):
        rule(getattr(model, key) >= 1, f"model.{key}", "at least 1", getattr(model, key))
    for key in ("expert_units", "latent_units", "tower_units"):
        units = getattr(model, key)
        # A tower may be no more than the read-out; an expert and the latent net have at least one layer.
        rule(all(isinstance(u, int) and u >= 1 for u in units) and (len(units) >= 1 or key == "tower_units"),
             f"model.{key}", "a tuple of sizes of at least 1", units)
    rule(0 < model.alpha <= 1, "model.alpha", "in (0, 1]", model.alpha)
    rule(0 <= model.alpha_constant <= 1, "model.alpha_constant", "in [0, 1]", model.alpha_constant)
    rule(0 <= model.dropout < 1, "model.dropout", "in [0, 1)", model.dropout)
    rule(0 <= model.embedding_l2 < math.inf, "model.embedding_l2", "finite and at least 0", model.embedding_l2)
    rule(train.order in ("shuffled", "days"), "train.order", "'shuffled' or 'days'", train.order)
    for key in ("epochs", "batch_size", "shuffle"):
        rule(getattr(train, key) >= 1, f"train.{key}", "at least 1", getattr(train, key))
    for key in ("embedding_learning_rate", "learning_rate"):
        rule(0 < getattr(train, key) < math.inf, f"train.{key}", "above 0 and finite", getattr(train, key))
    rule(0 <= train.seed < 2**32, "train.seed", "in [0, 2**32)", train.seed)
    rule(train.bootstrap >= 0, "train.bootstrap", "at least 0", train.bootstrap)


def save(config: Config, path: str | os.PathLike) -> None:
    """Write the configuration as JSON."""
    write_json(path, dataclasses.asdict(config))


def load(path: str | os.PathLike) -> Config:
    """Read what `save` wrote. Raises `UserError` on an unknown key or a value of the wrong type."""
    config = _build(Config, read_json(path), f"{path}: config")
    check(config)
    return config


def _build(cls: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise UserError(f"{where} must be an object. Received: {values!r}.")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise UserError(f"{where} has no key {unknown}. Known: {sorted(hints)}.")
    return cls(**{key: _convert(hints[key], value, f"{where}.{key}") for key, value in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, where)
    item = typing.get_args(hint)[0] if isinstance(hint, types.GenericAlias) else None
    if item:
        if isinstance(value, list) and all(type(v) is item or (item is float and type(v) is int) for v in value):
            return tuple(item(v) for v in value)
    elif type(value) is hint or (hint is float and type(value) is int):
        return hint(value)
    kind = f"a tuple of {item.__name__}" if item else getattr(hint, "__name__", hint)
    raise UserError(f"{where} must be {kind}. Received: {json.dumps(value)}.")
