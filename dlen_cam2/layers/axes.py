"""What the places of a weight mean: layers declare it, and growing and balancing trust nothing else.

A layer with weights has two methods:

    axes(read, tasks) -> [(weight, (axis, …)), …]     each weight once, and for each of its axes what lies along it:
                                                      `read`, the columns that the layer reads, `tasks`, an `Axis` of
                                                      its own, or None: places that never grow
    shared_weights() -> [(weight, mask), …]           weights that several tasks reach; the mask, which is broadcast to
                                                      the weight, is 1 where more than one does, else 0

Both are asked of the layers of a network and not of layers within these, which only their owner can place.
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
    """What the places along one axis of a weight are.

    Attributes:
        what: "rows" of tables, "inputs" (columns of the embedded row), "tasks", "experts", or "units" that never grow.
        segments: (key, length) in order; places of one key in two networks correspond from its first place on.
    """

    what: str
    segments: tuple[tuple[Key, int], ...]

    def places(self, old: "Axis") -> np.ndarray:
        """For each place its place on yesterday's axis, or -1."""
        found, at = np.full(len(self), -1), old.starts()
        for key, (start, length) in self.starts().items():
            first, n = at.get(key, (0, 0))
            n = min(n, length)
            found[start : start + n] = np.arange(first, first + n)
        return found

    def starts(self) -> dict[Key, tuple[int, int]]:
        """{key: (first place, length)}."""
        firsts = itertools.accumulate((length for _, length in self.segments), initial=0)
        return {key: (first, length) for (key, length), first in zip(self.segments, firsts, strict=False)}

    def take(self, places: Sequence[int]) -> "Axis":
        """The axis of some of the segments; of all, if none is named."""
        return Axis(self.what, tuple(self.segments[n] for n in places)) if places else self

    def __len__(self) -> int:
        return sum(length for _, length in self.segments)


Axes = list[tuple[tf.Variable, tuple[Axis | None, ...]]]
Reached = list[tuple[tf.Variable, np.ndarray]]


def of_tasks(names: Sequence[str]) -> Axis:
    """One place for each task."""
    return Axis("tasks", tuple(((name,), 1) for name in names))


def axes_of(network: tf.keras.Model, tasks: Axis) -> dict[str, tuple[Axis, ...]]:
    """The axes of each weight of a network, by the weight's name.

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
    """For each trainable weight: which elements more than one task reaches, 1 or 0, to be broadcast; None: not shared.

    Raises:
        UserError: a layer with weights does not say which of them tasks share.
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
    """The columns of the embedded row, if that is what the layer reads."""
    read = tf.nest.flatten(layer.input)
    producer: Any = read[0]._keras_history.layer if len(read) == 1 else None
    while isinstance(producer, Dropout):
        producer = producer.input._keras_history.layer
    return producer.columns() if hasattr(producer, "columns") else None
