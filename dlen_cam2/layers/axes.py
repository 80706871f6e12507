"""What the places along a weight's axes mean. Layers declare it, and growing and balancing rely only on that.

A layer with weights has two methods:

    axes(read, tasks) -> [(weight, (axis, …)), …]     lists each weight once, with what lies along each of its axes:
                                                      `read`, the columns that the layer reads; `tasks`; an `Axis`
                                                      that the layer makes; or None, for places that never grow
    shared_weights() -> [(weight, mask), …]           lists the weights that several tasks reach; the mask, which is
                                                      broadcast to the weight, is 1 where more than one does, else 0

Both are called on the layers of a network, but not on the layers inside these, which only their owner can place.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2.layers.dropout import Dropout
from dlen_cam2.utils.errors import UserError

Key = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Axis:
    """The meaning of the places along one axis of a weight.

    Attributes:
        what: "rows" of tables, "inputs" (columns of the embedded row), "tasks", "experts", or "units" that never grow.
        segments: (key, length) in order. In two networks, the places of the same key correspond, first to first.
    """

    what: str
    segments: tuple[tuple[Key, int], ...]

    def places(self, old: "Axis") -> np.ndarray:
        """For each place, the corresponding place on yesterday's axis, or -1."""
        found, at = np.full(len(self), -1), old.starts()
        for key, (start, length) in self.starts().items():
            first, n = at.get(key, (0, 0))
            n = min(n, length)
            found[start : start + n] = np.arange(first, first + n)
        return found

    def starts(self) -> dict[Key, tuple[int, int]]:
        """The segments as {key: (first place, length)}."""
        firsts = itertools.accumulate((length for _, length in self.segments), initial=0)
        return {key: (first, length) for (key, length), first in zip(self.segments, firsts, strict=False)}

    def take(self, places: Sequence[int]) -> "Axis":
        """The axis made of some of the segments, or of all of them if none is named."""
        return Axis(self.what, tuple(self.segments[n] for n in places)) if places else self

    def __len__(self) -> int:
        return sum(length for _, length in self.segments)


Axes = list[tuple[tf.Variable, tuple[Axis | None, ...]]]
Reached = list[tuple[tf.Variable, np.ndarray]]


def of_tasks(names: Sequence[str]) -> Axis:
    """An axis with one place for each task."""
    return Axis("tasks", tuple(((name,), 1) for name in names))


def axes_of(network: tf.keras.Model, tasks: Axis) -> dict[str, tuple[Axis, ...]]:
    """The axes of each weight of a network, by the name of the weight.

    Raises:
        UserError: a layer with weights does not declare the axes of each of them.
    """
    found = {}
    for layer in _with_weights(network, "axes", "--grow"):
        declared = {id(weight): axes for weight, axes in layer.axes(_read(layer), tasks)}
        for weight in layer.weights:
            axes = declared.get(id(weight))
            sizes = axes and [n if a is None else len(a) for a, n in itertools.zip_longest(axes, weight.shape)]
            if sizes != list(weight.shape):
                raise UserError(
                    f"--grow needs every axis of the weight {weight.name!r}, of shape {tuple(weight.shape)}, from "
                    f"{type(layer).__name__}.axes of layer {layer.name!r}. Received: "
                    f"{'no axes' if axes is None else f'axes of lengths {sizes}'}.")
            assert axes is not None
            found[weight.name] = tuple(
                axis or Axis("units", ((("",), n),)) for axis, n in zip(axes, weight.shape, strict=True))
    return found


def shared_weights(network: tf.keras.Model) -> list[np.ndarray | None]:
    """For each trainable weight, a mask: 1 where more than one task reaches it, else 0; None: it is not shared.

    Raises:
        UserError: a layer with weights does not declare which of them tasks share.
    """
    layers = _with_weights(network, "shared_weights", "config.train.step_rule")
    masks = {id(weight): mask for layer in layers for weight, mask in layer.shared_weights()}
    return [masks.get(id(weight)) for weight in network.trainable_variables]


def _with_weights(network: tf.keras.Model, method: str, asked: str) -> Iterator[Any]:
    for layer in network.layers:
        if layer.weights:
            if not hasattr(layer, method):
                raise UserError(
                    f"{asked} needs layers that describe their weights with `axes` and `shared_weights` (see "
                    f"dlen_cam2.layers.axes). Received: layer {layer.name!r}, a {type(layer).__name__} without "
                    f"`{method}`, with the weights {[weight.name for weight in layer.weights]}.")
            yield layer


def _read(layer: tf.keras.layers.Layer) -> Axis | None:
    """The columns of the embedded row, if that is the layer's input."""
    read = tf.nest.flatten(layer.input)
    producer: Any = read[0]._keras_history.layer if len(read) == 1 else None
    while isinstance(producer, Dropout):
        producer = producer.input._keras_history.layer
    return producer.columns() if hasattr(producer, "columns") else None
