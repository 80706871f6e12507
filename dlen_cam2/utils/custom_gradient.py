"""A `tf.custom_gradient` whose graphs can be freed."""

import contextlib
import contextvars
import functools
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops

Function = Callable[..., Sequence[tf.Tensor]]
_wanted = contextvars.ContextVar("wanted", default=True)


@contextlib.contextmanager
def no_gradients() -> Iterator[None]:
    """Trace functions of `custom_gradient` without their gradients, for a graph that is served.

    TensorFlow writes such a gradient into a SavedModel, as a function, and each process that loads it registers that
    for as long as it lives: no version that a server has loaded would be freed.
    """
    token = _wanted.set(False)
    try:
        yield
    finally:
        _wanted.reset(token)


def custom_gradient(function: Callable[..., tuple[Sequence[tf.Tensor], Callable[..., Any]]]) -> Function:
    """A `tf.custom_gradient` for a function of tensors that returns a list of tensors.

    In a graph, TensorFlow registers every such gradient under a unique name for as long as the process lives, and the
    gradient refers to its tensors, hence to the whole graph. No graph of any training step would ever be freed: a
    process that trains one model after another would grow with each of them. Here, a gradient stays registered only as
    long as its graph exists.
    """
    with_gradient = tf.custom_gradient(function)

    @functools.wraps(function)
    def call(*tensors: tf.Tensor) -> Sequence[tf.Tensor]:
        if not _wanted.get():
            return function(*tensors)[0]
        outputs = with_gradient(*tensors)
        if not tf.executing_eagerly():
            _register_weakly(outputs[0].op)
        return outputs

    return call


def _register_weakly(op: tf.Operation) -> None:
    """Make the graph of `op` own the gradient of `op`, so that the registry only refers to it."""
    name = op.get_attr("_gradient_op_type").decode()
    graph, registered = op.graph, ops.gradient_registry._registry
    gradient = registered[name]["type"]
    graph._own_gradients = [*getattr(graph, "_own_gradients", ()), gradient]
    of_graph: Any = weakref.ref(gradient)
    registered[name]["type"] = lambda op, *of_outputs: of_graph()(op, *of_outputs)
    weakref.finalize(graph, registered.pop, name, None).atexit = False
