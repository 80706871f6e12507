"""Tiny models, built and after one step."""

import tensorflow as tf

from dlen_cam2.config import TrainConfig
from dlen_cam2.models import build
from dlen_cam2.training import model_directory
from dlen_cam2.training.optimizers import composite
from dlen_cam2.training.step import Ranker
from tests.support.builders import tiny_batch, tiny_config, tiny_schema


def built(**model):
    tf.keras.utils.set_random_seed(5)
    return build(tiny_config(**model).model, tiny_schema(model.get("head", "plain")))


def ranker(network, schema=None, **train):
    model = Ranker(network, schema or tiny_schema())
    model.compile(optimizer=composite(network, TrainConfig(**train)), run_eagerly=True)
    return model


def trained_model(tmp_path, **model):
    """A model after one step, written and read again, and what it predicts for the batch before that."""
    config, network, schema = tiny_config(**model), built(**model), tiny_schema(model.get("head", "plain"))
    model = ranker(network, schema)
    model.train_on_batch(*tiny_batch(8))
    tmp_path.mkdir(exist_ok=True)
    model_directory.save(tmp_path, config, schema, None, tf.train.Checkpoint(network=network))
    return model_directory.load(tmp_path), network(tiny_batch(8)[0])
