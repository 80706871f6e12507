"""The optimizer: row-sparse Adagrad for the embedding tables, Adam for everything else."""

import tensorflow as tf
import tensorflow_recommenders as tfrs

from dlen_cam2.config import TrainConfig
from dlen_cam2.layers.embeddings import Embeddings
from dlen_cam2.training.optimizers.row_adagrad import RowAdagrad


def composite(
    network: tf.keras.Model, config: TrainConfig, factor: float = 1.0, asynchronous: bool = False
) -> tf.keras.optimizers.Optimizer:
    """Create TFRS's `CompositeOptimizer` from two new-style Keras 2 optimizers.

    Adagrad is the only Keras optimizer that touches just the rows in the batch, so the cost of a step does not grow
    with the vocabulary (`docs/decisions/training.md` has the measurements). Its accumulator starts near 0: a row's
    gradient is about 1 / batch size, and with the default start of 0.1 its first steps would be almost zero.

    Args:
        network: the network to train.
        config: the learning rates.
        factor: factor on both rates, see `TrainConfig.scaling`.
        asynchronous: whether several workers update the same rows at once.
    """
    lookups = [layer for layer in network.layers if isinstance(layer, Embeddings)]
    tables = {id(v) for layer in lookups for v in layer.trainable_variables}
    embedding = [v for v in network.trainable_variables if id(v) in tables]
    dense = [v for v in network.trainable_variables if id(v) not in tables]
    pairs = [(tf.keras.optimizers.Adam(config.learning_rate * factor), lambda: dense)]
    if embedding:
        adagrad = RowAdagrad(
            config.embedding_learning_rate * factor, initial_accumulator_value=1e-8, epsilon=1e-8,
            xla=any(layer.xla for layer in lookups), alone=not asynchronous,
        )
        pairs.append((adagrad, lambda: embedding))
    for optimizer, variables in pairs:
        optimizer.build(variables())  # at once, so that a checkpoint has slots to restore into
    return tfrs.experimental.optimizers.CompositeOptimizer(pairs)


def set_rates(optimizer: tf.keras.optimizers.Optimizer, config: TrainConfig, factor: float = 1.0) -> None:
    """Set the rates of an optimizer from `composite` to those of `config`, times `factor`."""
    for each in optimizer.optimizers:
        embedding = isinstance(each, tf.keras.optimizers.Adagrad)
        each.learning_rate = factor * (config.embedding_learning_rate if embedding else config.learning_rate)
