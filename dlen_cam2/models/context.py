"""`Context`: what a part may know about the model to which it belongs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from dlen_cam2.schema import Schema

Inputs = Mapping[str, Mapping[str, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Context:
    """The information that a part may use about the model to which it belongs.

    Attributes:
        schema: the features and tasks, fitted: the tasks' positive rates are the initial values of their probabilities.
        inputs: the network's inputs, `{group: {feature: tensor}}`.
        fitted: the fitted states by name, see `NetworkPart.states`; empty where nothing was fitted (tests, sketches).
        joined: number of the last columns of the part's input that were joined from causal branches; their weights
            start at 0, see `Experts`.
        places: the indices of `schema.tasks` among the model's tasks; empty: they are all of them.
    """

    schema: Schema
    inputs: Inputs
    fitted: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    joined: int = 0
    places: tuple[int, ...] = ()

    @property
    def tasks(self) -> int:
        """The number of tasks, T."""
        return len(self.schema.tasks)
