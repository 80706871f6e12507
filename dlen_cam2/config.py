"""`Config`: what is built and how it is trained. Experiment files in `configs/` return one."""

import dataclasses
import json
import math
import os
import types
import typing
from collections.abc import Mapping
from typing import Any

from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import read_json, write_json

TRUNKS = ("shared_bottom", "mmoe", "cgc", "ple")
HEADS = ("plain", "dlen", "esmm")
TABLES = ("gather", "tpu")
VARIANTS = ("production", "task_arch", "joint_loss", "all_features", "proposed")
CAUSAL_HEADS = ("joint", "conditional", "gated")
CONFORMITY = ("logistic", "norm")
RELEVANCE = ("probability", "interests")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
SCALING = ("fixed", "linear")
INPUT_SHARDING = ("rows", "shards")
# Whether a larger value is better.
MONITORS = {"auc": True, "gauc": True, "ne": False}
BALANCE = ("fixed", "decay", "uncertainty", "gradnorm", "pcgrad", "metabalance")
ANY_POSITIVE = "any_positive"


@dataclasses.dataclass
class Cam2Config:
    """CAM2's conformity and relevance branches, beside any trunk and head (`dlen_cam2/models/causal/cam2/branches.py`).

    Attributes:
        variant: a row of the paper's Table 1. "production": no branches. "proposed": the branches' embeddings, behind
            a stop-gradient, join the trunk's output. "task_arch": they join the towers' outputs. "joint_loss": no
            stop-gradient, so that one loss of task and causal labels trains the branches (DESIGN, our reading).
            "all_features": both branches see all features.
        engagement: whose labels are split by cause: a task, or "any_positive" for any positive behaviour of the row.
        statistic: X, a numeric statistical feature of the data set; the model need not use it.
        thresh: engagement at X >= thresh is conformity, at X < thresh relevance; see `thresh_unit`.
        thresh_unit: "quantile": `thresh` is a quantile of X over the training rows; "value": X itself.
        heads: "joint" heads estimate Pr(t and X >= thresh) and Pr(t and X < thresh) on all rows. "conditional" heads
            estimate Pr(t | X >= thresh) on the rows at or above thresh and Pr(t | X < thresh) on the others, and two
            learned scalars mix them; "gated": a learned gate for each row mixes them.
        conformity: "logistic" or "norm", see `Conformity`.
        relevance: "probability": cross-entropy of Σ û_x î_x; "interests": the paper's loss of each interest,
            squared, where `interest_feature` says which an item has; see `CausalLoss`.
        interest_feature: a categorical item feature such as "tags".
        without: features that no branch reads (but under "all_features"), such as ids of single videos, whose
            embeddings learn how popular each one is although their cause is content.
        units, blocks: width and number of the residual blocks.
        embedding: width of the conformity parts û and î.
        interests: k of the relevance parts (with "interests" the rows of the table of `interest_feature`).
        conformity_weight, relevance_weight: w_C and w_R of the total loss.
    """

    variant: str = "production"
    engagement: str = ANY_POSITIVE
    statistic: str = "video_impressions"
    thresh: float = 0.5
    thresh_unit: str = "quantile"
    heads: str = "joint"
    conformity: str = "logistic"
    relevance: str = "probability"
    interest_feature: str = ""
    without: tuple[str, ...] = ()
    units: int = 64
    blocks: int = 2
    embedding: int = 16
    interests: int = 8
    conformity_weight: float = 1.0
    relevance_weight: float = 1.0


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
        head: "plain" (one logit per task), "dlen", or "esmm", for tasks whose mask is another task's label.
        alpha: DLEN's cap factor c: alpha_k = c * positive rate of task k. The paper: 0.1 to 0.5.
        alpha_constant: above 0, the literal cap alpha of every task that is not negative, in place of
            c * positive rate.
        latent_units: layer sizes of DLEN's hidden state network.
        dropout: share of the trunk's input that is dropped while training.
        tables: "gather": all tables of a width in one variable. "tpu": TFRS's TPUEmbedding, for the embedding memory of
            a TPU; CAM2's branches keep the others.
        embedding_l2: weight of the mean squared norm of the trunk's looked-up id embeddings of a row in the loss.
        tasks, features: names to use; empty: all of the schema.
        task_weights: weights of the tasks' losses, in the schema's order of the tasks used; empty: the schema's.
        without: features to leave out.
        trunk_groups: feature groups that the trunk reads, such as "user_content"; empty: all. CAM2's branches choose
            theirs by cause.
        cam2: the causal branches.
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
    tables: str = "gather"
    embedding_l2: float = 0.0
    tasks: tuple[str, ...] = ()
    task_weights: tuple[float, ...] = ()
    features: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    trunk_groups: tuple[str, ...] = ()
    cam2: Cam2Config = dataclasses.field(default_factory=Cam2Config)


@dataclasses.dataclass
class BalanceConfig:
    """How the tasks' losses are balanced (`dlen_cam2/training/balancing.py`).

    Attributes:
        method: "fixed": the weights of `model.task_weights`. The others start from them. "decay": PLE's weights,
            `ω_k,0 γ_k^step`. "uncertainty", "gradnorm": learned weights. "pcgrad", "metabalance": the tasks' gradients
            on shared weights are changed before they are summed.
        decay: γ of each task, in the schema's order of the tasks used; one value stands for all.
        alpha: GradNorm's α: how strongly tasks that learn slowly are favoured.
        learning_rate: of the learned weights.
        relax: MetaBalance's r in [0, 1]: 0 changes nothing, 1 gives auxiliary gradients the main one's norm.
        beta: MetaBalance's decay of the moving averages of gradient norms.
        main: MetaBalance's main task; empty: the first.
    """

    method: str = "fixed"
    decay: tuple[float, ...] = (0.9999,)
    alpha: float = 1.5
    learning_rate: float = 0.025
    relax: float = 0.7
    beta: float = 0.9
    main: str = ""


@dataclasses.dataclass
class DailyConfig:
    """How a model that is trained already takes in one day more: `--continue_from`, and `--eval=next` after the first.

    A day has few steps. With the rates and passes of a first training it would be learned by heart, and its last
    batches would decide how often a rare task is predicted.

    Attributes:
        epochs: passes over the day.
        rates: factor of `train.embedding_learning_rate` and `train.learning_rate`.
        cooldown: as `train.cooldown`, of the steps of the day.
    """

    epochs: int = 1
    rates: float = 0.3
    cooldown: float = 0.5


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
        cooldown: share of the steps of a stage (all passes, or with order="days" those of a day) at whose end both
            rates fall linearly to nothing; 0: they are constant.
        bootstrap: resamples of users behind each interval in `metrics.json`; 0 for none.
        scaling: "fixed": `batch_size` is over all replicas and the rates are as written. "linear": `batch_size` is
            that of a replica, and the rates are multiplied by the number of replicas (Goyal et al., 2017).
        input_sharding: with several workers, "rows": each reads everything and trains on its slice of every batch, so
            that the batches are those of one worker. "shards": each reads its own shards, which scales further.
        precision: Keras' policy; weights and losses stay float32.
        loss_scale: factor of the loss before its gradients are computed and divisor of these, against float16's
            underflow; used with "mixed_float16" only.
        jit: compile the step with XLA.
        steps_per_execution: steps that run in one call, without Python between them.
        accumulate: parts into which a batch is cut; their gradients are summed before one update, in less memory.
        microbatches: parts into which each of these is cut, to be worked on side by side: a core each, with
            TF_NUM_INTRAOP_THREADS=1 in the environment. Pays from some 2,000 rows a part on.
        clip_norm: above 0, gradients are scaled to this global norm where theirs is larger.
        monitor: metric that is computed on the validation days after each pass: "ne", "auc" (means over tasks), or
            "click/ne". The pass with the best value gives the weights; empty: the last pass does.
        patience: above 0, stop after so many passes without a better value.
        balance: weights of the tasks against each other.
        daily: what is different where a trained model takes in one day more.
    """

    order: str = "shuffled"
    epochs: int = 1
    batch_size: int = 1024
    shuffle: int = 100_000
    seed: int = 0
    embedding_learning_rate: float = 0.02
    learning_rate: float = 0.001
    cooldown: float = 0.0
    bootstrap: int = 200
    scaling: str = "fixed"
    input_sharding: str = "rows"
    precision: str = "float32"
    loss_scale: float = 1024.0
    jit: bool = False
    steps_per_execution: int = 1
    accumulate: int = 1
    microbatches: int = 1
    clip_norm: float = 0.0
    monitor: str = ""
    patience: int = 0
    balance: BalanceConfig = dataclasses.field(default_factory=BalanceConfig)
    daily: DailyConfig = dataclasses.field(default_factory=DailyConfig)

    def of_a_day(self) -> "TrainConfig":
        """The same, with the passes, rates and cooldown of `daily`."""
        daily = self.daily
        return dataclasses.replace(
            self, epochs=daily.epochs, cooldown=daily.cooldown, learning_rate=self.learning_rate * daily.rates,
            embedding_learning_rate=self.embedding_learning_rate * daily.rates,
        )


@dataclasses.dataclass
class Config:
    """One experiment. The fields are plain, not frozen, because command-line overrides assign to them."""

    name: str = "mmoe"
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)


def check(config: Config) -> None:
    """Raise `UserError` naming the key if a value breaks a rule."""
    _build(Config, _as_json(dataclasses.asdict(config)), "config")  # names and types
    model, train = config.model, config.train

    def rule(holds: bool, key: str, text: str, received: Any) -> None:
        if not holds:
            raise UserError(f"config.{key} must be {text}. Received: {received!r}.")

    rule(model.trunk in TRUNKS, "model.trunk", f"one of {TRUNKS}", model.trunk)
    rule(model.head in HEADS, "model.head", f"one of {HEADS}", model.head)
    rule(model.tables in TABLES, "model.tables", f"one of {TABLES}", model.tables)
    rule(model.tables == "gather" or not model.embedding_l2, "model.embedding_l2", "0 with model.tables='tpu'",
         model.embedding_l2)
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
    cam2 = model.cam2
    for key, choices in (
        ("variant", VARIANTS), ("heads", CAUSAL_HEADS), ("conformity", CONFORMITY), ("relevance", RELEVANCE),
        ("thresh_unit", ("quantile", "value")),
    ):
        rule(getattr(cam2, key) in choices, f"model.cam2.{key}", f"one of {choices}", getattr(cam2, key))
    quantile = cam2.thresh_unit == "quantile"
    rule(0 < cam2.thresh < 1 if quantile else math.isfinite(cam2.thresh), "model.cam2.thresh",
         "a quantile in (0, 1)" if quantile else "finite", cam2.thresh)
    rule(cam2.relevance != "interests" or bool(cam2.interest_feature), "model.cam2.interest_feature",
         "the item feature that names interests, since model.cam2.relevance='interests' needs known interests",
         cam2.interest_feature)
    for key, least in (("units", 1), ("blocks", 0), ("embedding", 2), ("interests", 2)):
        rule(getattr(cam2, key) >= least, f"model.cam2.{key}", f"at least {least}", getattr(cam2, key))
    for key in ("conformity_weight", "relevance_weight"):
        rule(0 <= getattr(cam2, key) < math.inf, f"model.cam2.{key}", "finite and at least 0", getattr(cam2, key))
    rule(train.order in ("shuffled", "days"), "train.order", "'shuffled' or 'days'", train.order)
    for key in ("epochs", "batch_size", "shuffle", "steps_per_execution", "accumulate", "microbatches"):
        rule(getattr(train, key) >= 1, f"train.{key}", "at least 1", getattr(train, key))
    for key in ("embedding_learning_rate", "learning_rate"):
        rule(0 < getattr(train, key) < math.inf, f"train.{key}", "above 0 and finite", getattr(train, key))
    rule(0 <= train.seed < 2**32, "train.seed", "in [0, 2**32)", train.seed)
    for key in ("bootstrap", "patience"):
        rule(getattr(train, key) >= 0, f"train.{key}", "at least 0", getattr(train, key))
    for key, choices in (("scaling", SCALING), ("input_sharding", INPUT_SHARDING), ("precision", PRECISIONS)):
        rule(getattr(train, key) in choices, f"train.{key}", f"one of {choices}", getattr(train, key))
    rule(0 <= train.cooldown <= 1, "train.cooldown", "from 0 to 1", train.cooldown)
    rule(not train.cooldown or model.tables == "gather", "train.cooldown", "0 with model.tables='tpu'", train.cooldown)
    daily = train.daily
    rule(daily.epochs >= 1, "train.daily.epochs", "at least 1", daily.epochs)
    rule(0 < daily.rates < math.inf, "train.daily.rates", "above 0 and finite", daily.rates)
    rule(0 <= daily.cooldown <= 1, "train.daily.cooldown", "from 0 to 1", daily.cooldown)
    rule(0 <= train.clip_norm < math.inf, "train.clip_norm", "finite and at least 0", train.clip_norm)
    rule(1 <= train.loss_scale < math.inf, "train.loss_scale", "finite and at least 1", train.loss_scale)
    rule(train.monitor.rpartition("/")[2] in ("", *MONITORS), "train.monitor",
         f"empty, one of {tuple(MONITORS)}, or TASK/ and one of these", train.monitor)
    rule(not train.patience or bool(train.monitor), "train.monitor", "given where train.patience is", train.monitor)
    balance = train.balance
    rule(balance.method in BALANCE, "train.balance.method", f"one of {BALANCE}", balance.method)
    rule(all(0 < g <= 1 for g in balance.decay), "train.balance.decay", "in (0, 1] for every task", balance.decay)
    rule(0 <= balance.alpha < math.inf, "train.balance.alpha", "finite and at least 0", balance.alpha)
    rule(0 < balance.learning_rate < math.inf, "train.balance.learning_rate", "above 0 and finite",
         balance.learning_rate)
    rule(0 <= balance.relax <= 1, "train.balance.relax", "in [0, 1]", balance.relax)
    rule(0 <= balance.beta < 1, "train.balance.beta", "in [0, 1)", balance.beta)


def replaced(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration with other values: `replaced(config, {"train.batch_size": 512})`; `config` stays as it is.

    Raises:
        UserError: a key does not exist, a value is of another kind or breaks a rule.
    """
    tree = dataclasses.asdict(config)
    for key, value in values.items():
        *sections, field = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise UserError(f"config has no key {key!r}: {section!r} is no section of it.")
        node[field] = value
    found = _build(Config, _as_json(tree), "config")
    check(found)
    return found


def larger_is_better(metric: str) -> bool:
    """Whether a larger value of "auc" or "click/ne" is better."""
    return MONITORS[metric.rpartition("/")[2]]


def save(config: Config, path: str | os.PathLike) -> None:
    """Write the configuration as JSON."""
    write_json(path, dataclasses.asdict(config))


def load(path: str | os.PathLike) -> Config:
    """Read what `save` wrote. Raises `UserError` on an unknown key or a value of the wrong type."""
    config = _build(Config, read_json(path), f"{path}: config")
    check(config)
    return config


def _as_json(values: Any) -> Any:
    return json.loads(json.dumps(values, default=repr))


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
