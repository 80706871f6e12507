"""A gradient of one's own, and what is left of the graphs that it was in."""

import gc
import weakref

import tensorflow as tf
from tensorflow.python.framework import ops

from dlen_cam2.utils.custom_gradient import custom_gradient, no_gradients


@custom_gradient
def doubled(x, y):
    """Twice the product, with a gradient that no rule of TensorFlow's gives."""
    return [2 * x * y], lambda of_output: (10 * of_output * y, 20 * of_output * x)


def gradients(x, y):
    with tf.GradientTape() as tape:
        tape.watch((x, y))
        z = doubled(x, y)[0]
    return z, *tape.gradient(z, (x, y))


def test_the_gradient_is_the_given_one_eagerly_in_a_graph_and_through_a_function():
    x, y = tf.constant(3.0), tf.constant(5.0)
    expected = [30.0, 50.0, 60.0]
    assert [float(t) for t in gradients(x, y)] == expected
    assert [float(t) for t in tf.function(gradients)(x, y)] == expected
    function = tf.function(lambda x, y: doubled(x, y)[0])
    with tf.GradientTape() as tape:
        tape.watch((x, y))
        z = function(x, y)
    assert [float(t) for t in (z, *tape.gradient(z, (x, y)))] == expected


def test_a_graph_and_its_gradients_are_freed_with_the_function():
    """TensorFlow's own decorator keeps both for as long as the process lives."""
    def registered():
        return {name for name in ops.gradient_registry.list() if name.startswith("CustomGradient")}

    before = registered()
    function = tf.function(gradients)
    graph = weakref.ref(function.get_concrete_function(tf.constant(1.0), tf.constant(2.0)).graph)
    assert graph() is not None and registered() > before
    del function
    gc.collect()
    assert graph() is None and registered() <= before


def test_a_graph_that_is_served_has_no_gradients():
    """It has TensorFlow's own, those of its operations, and nothing that a process registers when it loads it."""
    tensors = tf.TensorSpec([]), tf.TensorSpec([])
    with no_gradients():
        graph = tf.function(lambda x, y: doubled(x, y)[0]).get_concrete_function(*tensors).graph
    assert "IdentityN" not in {op.type for op in graph.get_operations()}
    graph = tf.function(lambda x, y: doubled(x, y)[0]).get_concrete_function(*tensors).graph
    assert "IdentityN" in {op.type for op in graph.get_operations()}
