"""What tests of layers share: tensors, comparison of outputs, weights drawn at random."""

import numpy as np
import tensorflow as tf

from dlen_cam2.layers import Embeddings
from dlen_cam2.schema import Feature, Schema

SCHEMA = Schema("hand", (
    Feature("user", "int", "user", "content", size=2, width=2),
    Feature("history", "int", "user", "content", size=3, width=2, table="video", max_length=3),
    Feature("video", "int", "item", "content", size=3, width=2, table="video"),
    Feature("author", "string", "item", "content", vocabulary=("ann",), width=1),
    Feature("ctr", "float", "item", "statistical"),
), ())
EMBEDDED = {
    "user_content": {
        "user": tf.constant([2, 0, 1], tf.int64),
        "history": tf.constant([[1, 2, -1], [0, -1, -1], [-1, -1, -1]], tf.int64),
    },
    "item_content": {"video": tf.constant([3, 1, 0], tf.int64), "author": tf.constant([1, 0, 1], tf.int64)},
    "item_statistical": {"ctr": tf.constant([0.5, -1.5, 0.0])},
}


def normal(*shape, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


def flat(outputs):
    return [np.asarray(tf.cast(o, tf.float32)) for o in tf.nest.flatten(outputs)]


def assert_close(left, right, **tolerance):
    for a, b in zip(flat(left), flat(right), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def randomise(layer, seed=0):
    """Draw all weights from N(0, 1), so that biases count too."""
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])


def expert_weights(layer, e, shared):
    """The kernels and biases of one expert; with a shared input the first kernel holds them side by side."""
    kernels = [k.numpy()[:, e] if shared and level == 0 else k.numpy()[e] for level, k in enumerate(layer.kernels)]
    return kernels, [b.numpy()[e] for b in layer.biases]


def gate_kernel(gates, k):
    """Of a shared input the gates lie side by side."""
    kernel = gates.kernel.numpy()
    return kernel[k] if kernel.shape[0] == gates.count else kernel[:, k]


def hand_tables(**kwargs):
    layer = Embeddings(SCHEMA, **kwargs)
    layer(EMBEDDED)
    # Width 2: user's rows 0..2, the videos' rows 3..6; row i holds (i, 10 i).
    layer.set_weights([np.array([[7.0], [8.0]]), np.array([[i, 10 * i] for i in range(7)])])
    return layer
