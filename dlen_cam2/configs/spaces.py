"""Search spaces of `dlen_cam2 tune`: what it may change, and between which values.

A space is a function of keras-tuner's `hp` that returns `{key of the configuration: value}`:

    def space(hp):
        return {"train.learning_rate": hp.Float("train.learning_rate", 1e-4, 1e-2, sampling="log")}

Each function here is a part, and parts are put together: `--space=training+ple+dlen`. Without `--space`, tune takes
`space(hp)` of the configuration file if there is one, and otherwise the parts that fit its trunk and head. DESIGN: all
ranges but that of alpha. (An `hp.Int` has `step=1`, without which keras-tuner 1.4.8's Bayesian search goes one beyond.)
"""

from collections.abc import Callable
from typing import Any

from dlen_cam2.config import Config
from dlen_cam2.utils.errors import UserError

# `hp` is a keras_tuner.HyperParameters.
Space = Callable[[Any], dict[str, Any]]


def training(hp: Any) -> dict[str, Any]:
    """Rates, batch size, and what keeps the network from learning rows by heart."""
    return {
        "train.embedding_learning_rate": hp.Float("train.embedding_learning_rate", 0.003, 0.3, sampling="log"),
        "train.learning_rate": hp.Float("train.learning_rate", 2e-4, 5e-3, sampling="log"),
        "train.batch_size": hp.Choice("train.batch_size", [256, 512, 1024, 2048]),
        "model.dropout": hp.Choice("model.dropout", [0.0, 0.1, 0.2, 0.3, 0.5]),
        "model.embedding_l2": hp.Choice("model.embedding_l2", [0.0, 1e-6, 1e-5, 1e-4, 1e-3]),
    }


def shared_bottom(hp: Any) -> dict[str, Any]:
    """Sizes of the shared network and of the towers."""
    return {
        "model.expert_units": sizes(hp, "model.expert_units", ["64", "128 64", "256 128 64", "512 256 128"]),
        "model.tower_units": sizes(hp, "model.tower_units", ["", "32", "64", "128 64"]),
    }


def mmoe(hp: Any) -> dict[str, Any]:
    """The experts, their number and their sizes."""
    return shared_bottom(hp) | {"model.experts": hp.Int("model.experts", 2, 8, step=1)}


def cgc(hp: Any) -> dict[str, Any]:
    """MMOE's, and the experts of each task's own."""
    return mmoe(hp) | {"model.task_experts": hp.Int("model.task_experts", 1, 4, step=1)}


def ple(hp: Any) -> dict[str, Any]:
    """CGC's, and the extraction layers."""
    return cgc(hp) | {"model.levels": hp.Int("model.levels", 1, 3, step=1)}


def dlen(hp: Any) -> dict[str, Any]:
    """The cap (DLEN: 0.1 to 0.5) and the hidden state network."""
    return {
        "model.alpha": hp.Choice("model.alpha", [0.1, 0.2, 0.3, 0.4, 0.5]),
        "model.latent_units": sizes(hp, "model.latent_units", ["64", "128 64", "256 128 64"]),
    }


def cam2(hp: Any) -> dict[str, Any]:
    """How much of the engagement is conformity: the quantile of X from which on it is."""
    return {
        "model.cam2.thresh_unit": "quantile",
        "model.cam2.thresh": hp.Choice("model.cam2.thresh", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]),
    }


PARTS: dict[str, Space] = {
    "training": training, "shared_bottom": shared_bottom, "mmoe": mmoe, "cgc": cgc, "ple": ple, "dlen": dlen,
    "cam2": cam2,
}


def sizes(hp: Any, key: str, choices: list[str]) -> tuple[int, ...]:
    """Layer sizes, of which keras-tuner sees the text: "128 64" is (128, 64)."""
    return tuple(int(units) for units in hp.Choice(key, choices).split())


def named(name: str) -> Space:
    """The space of parts: "training+mmoe". Raises `UserError` if there is no such part."""
    parts = name.split("+")
    if unknown := [part for part in parts if part not in PARTS]:
        raise UserError(f"--space must be parts of {sorted(PARTS)} joined by +. Received: {unknown} in {name!r}.")
    return lambda hp: {key: value for part in parts for key, value in PARTS[part](hp).items()}


def fitting(config: Config) -> Space:
    """The parts that fit the trunk, the head and CAM2's branches of `config`."""
    model = config.model
    branches = "" if model.cam2.variant == "production" else "cam2"
    return named("+".join(part for part in ("training", model.trunk, model.head, branches) if part in PARTS))
