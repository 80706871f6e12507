"""What a part may know of the model that it is built into."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from dlen_cam2.schema import Schema

Inputs = Mapping[str, Mapping[str, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Context:
    """What a part may know of the model that it is built into.

    Attributes:
        schema: the features and tasks, fitted: the tasks' positive rates are where their probabilities start.
        inputs: the network's inputs, `{group: {feature: tensor}}`.
        fitted: fitted states by their names, see `Part.states`; empty where nothing was fitted (tests, sketches).
        joined: how many of the last columns of what the part reads were joined from causal branches; their weights
            start at 0, see `Experts`.
        places: where `schema.tasks` lie among the model's tasks; empty: they are all of them.
    """

    schema: Schema
    inputs: Inputs
    fitted: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    joined: int = 0
    places: tuple[int, ...] = ()

    @property
    def tasks(self) -> int:
        """T."""
        return len(self.schema.tasks)
