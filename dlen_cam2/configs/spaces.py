"""Search spaces of `dlen_cam2 tune`: what it may change, and within which values.

A space is a function that takes keras-tuner's `hp` and returns `{key of the configuration: value}`:

    def space(hp):
        return {"train.learning_rate": hp.Float("train.learning_rate", 1e-4, 1e-2, sampling="log")}

Every field of a configuration or part that declares values to try (`option(search=…)`) belongs to the space of its
section: "training" has those of `train` and of `model` itself; "trunk", "head", "causal", … have those of the part in
the configuration. Spaces can be combined: `--space=training+trunk`. Without `--space`, tune uses `space(hp)` of the
configuration file if there is one, and otherwise all of them. DESIGN: all ranges except that of DLEN's alpha. (An
`hp.Int` has `step=1`, without which keras-tuner 1.4.8's Bayesian search exceeds the range by one.)
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from dlen_cam2.config import Config
from dlen_cam2.parts import Part
from dlen_cam2.utils.errors import UserError

# `hp` is a keras_tuner.HyperParameters.
Space = Callable[[Any], dict[str, Any]]

TRAINING = "training"


def named(config: Config, name: str) -> Space:
    """The combined space of sections joined by +, such as "training+trunk".

    Raises:
        UserError: the configuration has no such section.
    """
    known = sections(config)
    chosen = name.split("+")
    if unknown := [section for section in chosen if section not in known]:
        raise UserError(f"--space must be one or more of {sorted(known)}, joined by +. Received: {unknown} in "
                        f"{name!r}.")
    return lambda hp: {key: v for section in chosen for values, where in known[section]
                       for key, v in _choices(hp, values, where).items()}


def fitting(config: Config) -> Space:
    """The space of everything that may be tried for `config`."""
    return named(config, "+".join(sections(config)))


def sections(config: Config) -> dict[str, list[tuple[Any, str]]]:
    """The sections of a configuration, {section: [(object with the fields, its key), …]}."""
    found = {TRAINING: [(config.train, "train"), (config.model, "model")]}
    for section, where in ((config.model, "model"), (config.train, "train")):
        for field in dataclasses.fields(section):
            if isinstance(part := getattr(section, field.name), Part):
                found[field.name] = [(part, f"{where}.{field.name}")]
    return found


def _choices(hp: Any, values: Any, where: str) -> dict[str, Any]:
    """The values that keras-tuner chooses for the fields of one section."""
    found = {}
    for field in dataclasses.fields(values):
        if (search := field.metadata.get("search")) is None:
            continue
        key = f"{where}.{field.name}"
        if isinstance(search, tuple) and isinstance(field.default, int):
            found[key] = hp.Int(key, *search, step=1)
        elif len(search) == 1:  # what others stand on, such as the unit of a value
            found[key] = search[0]
        elif isinstance(search, tuple):
            found[key] = hp.Float(key, *search, sampling="log")
        elif isinstance(field.default, tuple):  # layer sizes, of which keras-tuner sees the text: "128 64" is (128, 64)
            found[key] = tuple(int(units) for units in hp.Choice(key, search).split())
        else:
            found[key] = hp.Choice(key, search)
    return found
